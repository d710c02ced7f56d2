import NIOCore

/// Removes some rows of unlinked directories. The leader proposes it while there are any.
///
///     0  4  the most rows to remove
package struct Reclaim: TreeCommand, Equatable, Sendable {
    static let statement = OperationStatement(since: 1, proposer: .leader, session: .never, takesSpace: false)

    package var rowsMax: UInt32

    package init(rowsMax: UInt32 = FileTreeLimits.reclaimRowsMax) { self.rowsMax = rowsMax }

    init(from buffer: inout ByteBuffer, _: CommandHeader) throws(TreeError) {
        guard let rows = buffer.readInteger(as: UInt32.self) else { throw .malformed }
        rowsMax = rows
    }

    package func write(to buffer: inout ByteBuffer) {
        CommandHeader(.reclaim).write(to: &buffer)
        buffer.writeInteger(rowsMax)
    }

    func execute<Store: ~Copyable>(
        on tree: inout FileTree<Store>, _: CommandHeader
    ) throws(StateError) -> Outcome {
        guard let directory = try tree.firstOrphan() else { return .done(revision: tree.applied.index) }
        var rows: [(key: [UInt8], entry: Entry)] = []
        var isWhole = true
        try tree.store.scan(from: tree.reclaimed.end(of: directory)) { key, row throws(StateError) in
            guard StateKey.isEntry(key, of: directory) else { return false }
            if rows.count == Int(rowsMax) {
                isWhole = false
                return false
            }
            rows.append((key.withUnsafeBytes { Array($0) }, try Entry(row: RowChecksum.verify(key: key, row: row))))
            return true
        }
        for (key, entry) in rows {
            switch entry.metadata.kind {
            case .file: try tree.releaseContent(of: entry)
            case .directory: try tree.orphan(entry.metadata.inode)
            }
            try tree.deleteRow(key)
        }
        if let last = rows.last { tree.reclaimed.entries = (directory, last.key) }
        if isWhole { try tree.forgetOrphan(directory) }
        return .done(revision: tree.applied.index)
    }
}

/// Where the last reclaiming stopped: a store walks over what was deleted and is not written yet, step by step over more
/// of it. Derived, so that no member needs to agree with another about it: before it there is nothing left.
struct Reclaimed {
    /// No unlinked directory has a lower key.
    var orphans: [UInt8] = [StateKey.Table.orphans.rawValue]
    /// Of this directory no entry is left up to this key.
    var entries: (directory: UInt64, through: [UInt8])?

    func end(of directory: UInt64) -> [UInt8] {
        if let entries, entries.directory == directory { return entries.through }
        return StateKey.entry(in: directory, [])
    }
}

extension FileTree where Store: ~Copyable {
    /// Leaves the entries of an unlinked directory to be reclaimed.
    mutating func orphan(_ directory: UInt64) throws(StateError) {
        let revision = applied.index
        try setRow(StateKey.orphan(directory), byteCount: 8) { $0.storeBigEndian(revision, at: 0) }
        applied.orphans += 1
        let key = StateKey.orphan(directory)
        if key.precedes(reclaimed.orphans) { reclaimed.orphans = key }
    }

    fileprivate mutating func forgetOrphan(_ directory: UInt64) throws(StateError) {
        try deleteRow(StateKey.orphan(directory))
        applied.orphans -= 1
    }

    fileprivate mutating func firstOrphan() throws(StateError) -> UInt64? {
        var found: UInt64?
        try store.scan(from: reclaimed.orphans) { key, _ in
            if key.byteCount == 9, key.bigEndian(at: 0, as: UInt8.self) == StateKey.Table.orphans.rawValue {
                found = key.bigEndian(at: 1, as: UInt64.self)
            }
            return false
        }
        if let found { reclaimed.orphans = StateKey.orphan(found) }
        return found
    }
}
