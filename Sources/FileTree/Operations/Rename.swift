import NIOCore

/// Moves an entry, with all below it, by changing one row. As in POSIX, a file takes the place of a file, a directory
/// that of an empty directory. Missing parents are not made.
///
///     0  9  condition: "absent" is asked of the destination, "at revision" of the source
///     9  .  source path
///     .  .  destination path
package struct Rename: TreeCommand, Equatable, Sendable {
    static let statement = OperationStatement(since: 1, proposer: .client, session: .mayBelong, takesSpace: false)

    package var source: TreePath
    package var destination: TreePath
    package var condition: Condition

    package init(source: TreePath, destination: TreePath, condition: Condition = .always) {
        self.source = source
        self.destination = destination
        self.condition = condition
    }

    init(from buffer: inout ByteBuffer, _: CommandHeader) throws(TreeError) {
        condition = try buffer.readCondition()
        source = try buffer.readPath()
        destination = try buffer.readPath()
    }

    package func write(to buffer: inout ByteBuffer) {
        CommandHeader(.rename).write(to: &buffer)
        buffer.writeCondition(condition)
        buffer.writePath(source)
        buffer.writePath(destination)
    }

    func execute<Store: ~Copyable>(
        on tree: inout FileTree<Store>, _ header: CommandHeader
    ) throws(StateError) -> Outcome {
        guard source.name != nil, destination.name != nil else { return .failed(.invalidMove, revision: 0) }
        let (oldKey, moved): ([UInt8], Entry)
        switch try tree.resolve(source) {
        case .failure(let error): return .failed(error, revision: 0)
        case .success(.entry(_, let key, let entry)): (oldKey, moved) = (key, entry)
        case .success: return .failed(.notFound, revision: 0)
        }
        var replaced: Entry?
        let newKey: [UInt8]
        switch try tree.resolve(destination) {
        case .failure(let error): return .failed(error, revision: 0)
        case .success(.entry(_, let key, let entry)): (newKey, replaced) = (key, entry)
        case .success(.missing(_, let key)): newKey = key
        case .success: return .failed(.notFound, revision: 0)
        }
        let asked = condition == .absent ? replaced?.metadata.revision ?? 0 : moved.metadata.revision
        guard condition.holds(asked) else { return .failed(.conditionFailed, revision: asked) }
        if source == destination { return .done(revision: moved.metadata.revision) }
        if moved.metadata.kind == .directory, destination.isWithin(source) { return .failed(.invalidMove, revision: 0) }
        if let replaced {
            switch (moved.metadata.kind, replaced.metadata.kind) {
            case (.file, .directory): return .failed(.isDirectory, revision: 0)
            case (.directory, .file): return .failed(.notDirectory, revision: 0)
            case (.directory, .directory):
                guard try tree.isEmptyDirectory(replaced.metadata.inode) else {
                    return .failed(.directoryNotEmpty, revision: 0)
                }
            case (.file, .file): try tree.releaseContent(of: replaced)
            }
        }
        if moved.metadata.kind == .directory { tree.directories.forgetAll() }
        try tree.moveRow(from: oldKey, to: newKey, moved.metadata)
        return .done(revision: tree.applied.index)
    }
}

extension FileTree where Store: ~Copyable {
    fileprivate mutating func moveRow(
        from source: [UInt8], to destination: [UInt8], _ metadata: Metadata
    ) throws(StateError) {
        var metadata = metadata
        metadata.revision = applied.index
        let row = try readRow(source) { row in row?.withUnsafeBytes { Array($0) } ?? [] }
        try deleteRow(source)
        try setRow(destination, byteCount: row.count) { moved in
            moved.copyBytes(from: row)
            metadata.write(to: moved)
        }
    }
}
