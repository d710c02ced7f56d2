import NIOCore

/// Removes a file, or a directory: an empty one, or (recursive) one with all below it. The whole subtree is out of
/// sight at once; its rows are reclaimed afterwards, in bounded steps.
///
///     0  9  condition on the path
///     9  1  flags: 1 = recursive
///     10 .  path
package struct Delete: TreeCommand, Equatable, Sendable {
    static let statement = OperationStatement(since: 1, proposer: .client, session: .mayBelong, takesSpace: false)

    package var path: TreePath
    package var isRecursive: Bool
    package var condition: Condition

    package init(path: TreePath, isRecursive: Bool = false, condition: Condition = .always) {
        self.path = path
        self.isRecursive = isRecursive
        self.condition = condition
    }

    init(from buffer: inout ByteBuffer, _: CommandHeader) throws(TreeError) {
        condition = try buffer.readCondition()
        guard let flags = buffer.readInteger(as: UInt8.self), flags <= 1 else { throw .malformed }
        isRecursive = flags & 1 != 0
        path = try buffer.readPath()
    }

    package func write(to buffer: inout ByteBuffer) {
        CommandHeader(.delete).write(to: &buffer)
        buffer.writeCondition(condition)
        buffer.writeInteger(UInt8(isRecursive ? 1 : 0))
        buffer.writePath(path)
    }

    func execute<Store: ~Copyable>(
        on tree: inout FileTree<Store>, _ header: CommandHeader
    ) throws(StateError) -> Outcome {
        let (key, entry): ([UInt8], Entry)
        switch try tree.find(path, if: condition, orOfRoot: .invalidMove) {
        case .success(let found): (key, entry) = (found.key, found.entry)
        case .failure(let obstacle): return obstacle.outcome
        }
        switch entry.metadata.kind {
        case .file: try tree.releaseContent(of: entry)
        case .directory:
            tree.directories.forgetAll()
            if try !tree.isEmptyDirectory(entry.metadata.inode) {
                guard isRecursive else { return .failed(.directoryNotEmpty, revision: 0) }
                try tree.orphan(entry.metadata.inode)
            }
        }
        try tree.deleteRow(key)
        return .done(revision: tree.applied.index)
    }
}
