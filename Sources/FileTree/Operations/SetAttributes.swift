import NIOCore

/// Sets an entry's mode, its modification time, or both; content and inode stay. What is so already is no change, and gets no
/// new revision.
///
///     0   9  condition on the path
///     9   2  mode, zero unless given: of a file its nine bits of permissions count, of a directory its twelve lowest
///     11  1  flags: 1 = the mode is given, 2 = the mtime is given, 4 = the mtime is the wall time of the leader's proposal
///     12  8  mtime: nanoseconds since 1970, signed; zero unless given
///     20  .  path
package struct SetAttributes: TreeCommand, Equatable, Sendable {
    static let statement = OperationStatement(since: 5, proposer: .client, session: .mayBelong, takesSpace: false)

    package enum Time: Equatable, Sendable {
        case at(Int64)
        /// When the leader proposes it.
        case now
    }

    package var path: TreePath
    package var mode: UInt16?
    package var mtime: Time?
    package var condition: Condition

    /// - Precondition: one of mode and mtime is given.
    package init(path: TreePath, mode: UInt16? = nil, mtime: Time? = nil, condition: Condition = .always) {
        precondition(mode != nil || mtime != nil, "a command that sets nothing would be malformed")
        self.path = path
        self.mode = mode
        self.mtime = mtime
        self.condition = condition
    }

    init(from buffer: inout ByteBuffer, _: CommandHeader) throws(TreeError) {
        condition = try buffer.readCondition()
        guard let (mode, flags, time) = buffer.readMultipleIntegers(as: (UInt16, UInt8, Int64).self),
            (1...7).contains(flags), flags & 6 != 6, flags & 1 != 0 || mode == 0, flags & 2 != 0 || time == 0
        else { throw .malformed }
        self.mode = flags & 1 != 0 ? mode : nil
        mtime = flags & 2 != 0 ? .at(time) : flags & 4 != 0 ? .now : nil
        path = try buffer.readPath()
    }

    package func write(to buffer: inout ByteBuffer) {
        CommandHeader(.setAttributes).write(to: &buffer)
        buffer.writeCondition(condition)
        let (timeFlag, time): (UInt8, Int64) =
            switch mtime {
            case nil: (0, 0)
            case .at(let time): (2, time)
            case .now: (4, 0)
            }
        buffer.writeMultipleIntegers(mode ?? 0, timeFlag | (mode == nil ? 0 : 1), time)
        buffer.writePath(path)
    }

    func execute<Store: ~Copyable>(
        on tree: inout FileTree<Store>, _ header: CommandHeader
    ) throws(StateError) -> Outcome {
        let (key, entry): ([UInt8], Entry)
        // The root stands in no row.
        switch try tree.find(path, if: condition, orOfRoot: .invalidPath) {
        case .success(let found): (key, entry) = (found.key, found.entry)
        case .failure(let obstacle): return obstacle.outcome
        }
        var metadata = entry.metadata
        if let mode {
            metadata.mode = mode & (metadata.kind == .directory ? MakeDirectory.modeMask : Put.modeMask)
        }
        switch mtime {
        case nil: break
        case .at(let time): metadata.mtime = time
        case .now: metadata.mtime = header.wallTime
        }
        guard metadata != entry.metadata else { return .done(revision: metadata.revision) }
        metadata.revision = tree.applied.index
        try tree.setMetadata(key, metadata)
        return .done(revision: metadata.revision)
    }
}

extension FileTree where Store: ~Copyable {
    /// Exchanges the metadata of a row.
    fileprivate mutating func setMetadata(_ key: [UInt8], _ metadata: Metadata) throws(StateError) {
        let row = try readRow(key) { row in row?.withUnsafeBytes { Array($0) } ?? [] }
        try setRow(key, byteCount: row.count) { changed in
            changed.copyBytes(from: row)
            metadata.write(to: changed)
        }
    }
}
