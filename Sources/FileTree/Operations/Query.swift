import NIOCore

/// A question to the tree. It changes nothing. The first byte says which:
///
///     get   1, path                                       answers metadata (40), then the content
///     stat  2, path                                       answers metadata (40)
///     list  3, entries at most (4), name after which to go on: length (1) and bytes, path
///           answers 1 if more follow else 0 (1), how many (4), and of each: length of the name (1), name, metadata (40)
///
/// Each answer begins with the result code (2); anything but 0 ends it.
package enum Query: Equatable, Sendable {
    case get(TreePath)
    case stat(TreePath)
    case list(TreePath, after: [UInt8], limit: UInt32)

    package init(from buffer: inout ByteBuffer) throws(TreeError) {
        switch buffer.readInteger(as: UInt8.self) {
        case 1: self = .get(try buffer.readPath())
        case 2: self = .stat(try buffer.readPath())
        case 3:
            guard let (limit, length) = buffer.readMultipleIntegers(as: (UInt32, UInt8).self),
                let after = buffer.readBytes(length: Int(length))
            else { throw .malformed }
            self = .list(try buffer.readPath(), after: after, limit: limit)
        default: throw .malformed
        }
        guard buffer.readableBytes == 0 else { throw .malformed }
    }

    package func write(to buffer: inout ByteBuffer) {
        switch self {
        case .get(let path):
            buffer.writeInteger(UInt8(1))
            buffer.writePath(path)
        case .stat(let path):
            buffer.writeInteger(UInt8(2))
            buffer.writePath(path)
        case .list(let path, let after, let limit):
            buffer.writeMultipleIntegers(UInt8(3), limit, UInt8(after.count))
            buffer.writeBytes(after)
            buffer.writePath(path)
        }
    }
}

extension FileTree where Store: ~Copyable {
    /// Answers `query` from the present state, uncommitted changes included.
    package borrowing func answer(_ query: ByteBuffer, into answer: inout ByteBuffer) throws(StateError) {
        var query = query
        let start = answer.writerIndex
        do {
            switch try Query(from: &query) {
            case .get(let path): try get(path, into: &answer)
            case .stat(let path): try stat(path, into: &answer)
            case .list(let path, let after, let limit):
                try list(path, after: after, limit: limit, into: &answer)
            }
        } catch let error as TreeError {
            answer.moveWriterIndex(to: start)
            answer.writeInteger(error.rawValue)
        } catch let error as StateError {
            answer.moveWriterIndex(to: start)
            throw error
        } catch {
            preconditionFailure("queries throw two types of error alone")
        }
    }

    private borrowing func find(_ path: TreePath) throws -> (key: [UInt8], entry: Entry)? {
        switch try resolve(path).get() {
        case .root: return nil
        case .entry(_, let key, let entry): return (key, entry)
        case .missing, .missingParents: throw TreeError.notFound
        }
    }

    /// The directory that holds, or would hold, what is at the path.
    private borrowing func parent(of path: TreePath) throws -> UInt64 {
        if let parent = directories.inode(of: path.parentBytes) { return parent }
        switch try resolve(path).get() {
        case .entry(let parent, _, _): return parent
        case .root, .missing, .missingParents: throw TreeError.notFound
        }
    }

    private borrowing func stat(_ path: TreePath, into answer: inout ByteBuffer) throws {
        let metadata = try find(path)?.entry.metadata ?? Self.rootMetadata
        answer.writeInteger(UInt16(0))
        answer.writeMetadata(metadata)
    }

    private borrowing func get(_ path: TreePath, into answer: inout ByteBuffer) throws {
        guard let name = path.name else { throw TreeError.isDirectory }
        let key = StateKey.entry(in: try parent(of: path), name)
        var found: Entry?
        try readRow(key) { row throws(StateError) in
            guard let row else { return }
            let entry = try Entry(row: row)
            found = entry
            guard entry.metadata.place == .inline else { return }
            // The row is the answer: metadata, then the content.
            answer.writeInteger(UInt16(0))
            row.withUnsafeBytes { _ = answer.writeBytes($0) }
        }
        guard let entry = found else { throw TreeError.notFound }
        guard entry.metadata.kind == .file else { throw TreeError.isDirectory }
        if entry.metadata.place == .inline { return }
        answer.writeInteger(UInt16(0))
        answer.writeMetadata(entry.metadata)
        for hash in entry.chunks {
            try readRow(StateKey.chunk(hash)) { chunk throws(StateError) in
                guard let chunk else { throw .corruptRow(table: StateKey.Table.chunks.rawValue) }
                chunk.withUnsafeBytes { _ = answer.writeBytes($0) }
            }
        }
    }

    private borrowing func list(
        _ path: TreePath, after: [UInt8], limit: UInt32, into answer: inout ByteBuffer
    ) throws {
        let directory = try find(path)?.entry.metadata ?? Self.rootMetadata
        guard directory.kind == .directory else { throw TreeError.notDirectory }
        let limit = min(max(limit, 1), FileTreeLimits.listEntriesMax)
        answer.writeInteger(UInt16(0))
        if after.isEmpty, let page = listings.page(of: directory.inode, limit: limit) {
            answer.writeImmutableBuffer(page)
            return
        }
        let head = answer.writerIndex
        answer.writeMultipleIntegers(UInt8(0), UInt32(0))
        var count: UInt32 = 0
        var hasMore = false
        let first = StateKey.entry(in: directory.inode, after[...])
        try store.scan(from: first) { key, row throws(StateError) in
            guard StateKey.isEntry(key, of: directory.inode) else { return false }
            if !after.isEmpty, key.withUnsafeBytes({ $0.elementsEqual(first) }) { return true }
            if count == limit || answer.writerIndex - head > FileTreeLimits.listBytesMax {
                hasMore = true
                return false
            }
            let value = try RowChecksum.verify(key: key, row: row)
            guard value.byteCount >= Metadata.byteCount else {
                throw .corruptRow(table: StateKey.Table.entries.rawValue)
            }
            let name = key.extracting(droppingFirst: 9)
            let size = 1 + name.byteCount + Metadata.byteCount
            answer.writeWithUnsafeMutableBytes(minimumWritableBytes: size) { bytes in
                bytes[0] = UInt8(name.byteCount)
                name.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: bytes[1...]).copyMemory(from: $0) }
                value.extracting(first: Metadata.byteCount).withUnsafeBytes {
                    UnsafeMutableRawBufferPointer(rebasing: bytes[(1 + name.byteCount)...]).copyMemory(from: $0)
                }
                return size
            }
            count += 1
            return true
        }
        answer.setInteger(UInt8(hasMore ? 1 : 0), at: head)
        answer.setInteger(count, at: head + 1)
        guard after.isEmpty, let page = answer.viewBytes(at: head, length: answer.writerIndex - head) else { return }
        listings.remember(page, of: directory.inode, limit: limit, whole: hasMore ? nil : count)
    }

    /// The root has no row: it is always there and never changes.
    private static var rootMetadata: Metadata {
        Metadata(
            kind: .directory, place: .none, mode: 0o755, inode: FileTreeLimits.rootInode, revision: 0, mtime: 0,
            size: 0)
    }
}
