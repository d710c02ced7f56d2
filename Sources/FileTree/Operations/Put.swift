import NIOCore

/// Writes a whole file, and makes the directories above it where they are missing.
///
///     0   9  condition on the path
///     9   2  mode; from cluster version 4 on, its nine bits of permissions alone count
///     11  1  flags: 1 = the mtime is given
///     12  8  mtime: nanoseconds since 1970, signed; zero unless given, and then the wall time counts
///     20  .  path
///     .   4  length of the content
///     .   .  content
package struct Put: TreeCommand, Equatable, Sendable {
    static let statement = OperationStatement(since: 1, proposer: .client, session: .mayBelong, takesSpace: true)

    package static let directoryMode: UInt16 = 0o755
    /// Of a file's mode its permissions are kept. To set an id belongs to an owner, whom nobody stores.
    static let modeMask: UInt16 = 0o777

    package var path: TreePath
    package var condition: Condition
    package var mode: UInt16
    package var mtime: Int64?
    package var content: ByteBuffer

    package init(
        path: TreePath, content: ByteBuffer, mode: UInt16 = 0o644, mtime: Int64? = nil, condition: Condition = .always
    ) {
        self.path = path
        self.condition = condition
        self.mode = mode
        self.mtime = mtime
        self.content = content
    }

    init(from buffer: inout ByteBuffer, _: CommandHeader) throws(TreeError) {
        condition = try buffer.readCondition()
        guard let (mode, flags, mtime) = buffer.readMultipleIntegers(as: (UInt16, UInt8, Int64).self), flags <= 1 else {
            throw .malformed
        }
        self.mode = mode
        self.mtime = flags & 1 != 0 ? mtime : nil
        path = try buffer.readPath()
        guard let length = buffer.readInteger(as: UInt32.self) else { throw .malformed }
        if length > FileTreeLimits.contentBytesMax { throw .contentTooLarge }
        guard let content = buffer.readSlice(length: Int(length)) else { throw .malformed }
        self.content = content
    }

    package func write(to buffer: inout ByteBuffer) {
        CommandHeader(.put).write(to: &buffer)
        buffer.writeCondition(condition)
        buffer.writeMultipleIntegers(mode, UInt8(mtime == nil ? 0 : 1), mtime ?? 0)
        buffer.writePath(path)
        buffer.writeInteger(UInt32(content.readableBytes))
        buffer.writeImmutableBuffer(content)
    }

    func execute<Store: ~Copyable>(
        on tree: inout FileTree<Store>, _ header: CommandHeader
    ) throws(StateError) -> Outcome {
        guard let name = path.name else { return .failed(.isDirectory, revision: 0) }
        var old: Entry?
        var key: [UInt8] = []
        var above: (parent: UInt64, depth: Int)?
        switch try tree.resolve(path) {
        case .failure(let error): return .failed(error, revision: 0)
        case .success(.root): return .failed(.isDirectory, revision: 0)
        case .success(.entry(_, let found, let entry)): (key, old) = (found, entry)
        case .success(.missing(_, let found)): key = found
        case .success(.missingParents(let parent, let depth)): above = (parent, depth)
        }
        let revision = old?.metadata.revision ?? 0
        guard condition.holds(revision) else { return .failed(.conditionFailed, revision: revision) }
        if old?.metadata.kind == .directory { return .failed(.isDirectory, revision: 0) }

        if let (parent, depth) = above {
            let directory = try tree.makeDirectories(
                path, from: depth, to: path.components.count - 1, below: parent, mode: Self.directoryMode,
                mtime: header.wallTime)
            key = StateKey.entry(in: directory, name)
        }
        try tree.setFile(
            key, content, inode: old?.metadata.inode ?? tree.allocateInode(),
            mode: tree.applied.clusterVersion >= 4 ? mode & Self.modeMask : mode, mtime: mtime ?? header.wallTime)
        // The old content goes last: if both name the same chunk, it never leaves the store.
        if let old { try tree.releaseContent(of: old) }
        return .done(revision: tree.applied.index)
    }
}

extension FileTree where Store: ~Copyable {
    /// Writes a file's row, and its chunk if the content is too long for the row.
    fileprivate mutating func setFile(
        _ key: [UInt8], _ content: ByteBuffer, inode: UInt64, mode: UInt16, mtime: Int64
    ) throws(StateError) {
        let size = content.readableBytes
        let isInline = size <= FileTreeLimits.inlineBytesMax
        let metadata = Metadata(
            kind: .file, place: isInline ? .inline : .chunks, mode: mode, inode: inode, revision: applied.index,
            mtime: mtime, size: UInt64(size))
        if isInline {
            try setRow(key, byteCount: Metadata.byteCount + size) { row in
                metadata.write(to: row)
                content.withUnsafeReadableBytes { bytes in
                    UnsafeMutableRawBufferPointer(rebasing: row[Metadata.byteCount...]).copyMemory(from: bytes)
                }
            }
        } else {
            let hash = ContentHash(of: content.readableBytesView)
            try retainChunk(hash, content)
            try setRow(key, byteCount: Metadata.byteCount + ContentHash.byteCount) { row in
                metadata.write(to: row)
                UnsafeMutableRawBufferPointer(rebasing: row[Metadata.byteCount...]).copyBytes(from: hash.bytes)
            }
        }
        applied.files += 1
        applied.bytes += UInt64(size)
    }
}
