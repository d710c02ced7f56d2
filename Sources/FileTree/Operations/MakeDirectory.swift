import NIOCore

/// Makes a directory.
///
///     0  2  mode; from cluster version 4 on, its twelve lowest bits alone count
///     2  1  flags: 1 = make missing parents, and do nothing if the directory is there (`mkdir -p`)
///     3  .  path
package struct MakeDirectory: TreeCommand, Equatable, Sendable {
    static let statement = OperationStatement(since: 1, proposer: .client, session: .mayBelong, takesSpace: true)

    /// A directory's own bits say who may remove what, and which group a new file is of.
    static let modeMask: UInt16 = 0o7777

    package var path: TreePath
    package var mode: UInt16
    package var makesParents: Bool

    package init(path: TreePath, mode: UInt16, makesParents: Bool) {
        self.path = path
        self.mode = mode
        self.makesParents = makesParents
    }

    init(from buffer: inout ByteBuffer, _: CommandHeader) throws(TreeError) {
        guard let (mode, flags) = buffer.readMultipleIntegers(as: (UInt16, UInt8).self), flags <= 1 else {
            throw .malformed
        }
        self.init(path: try buffer.readPath(), mode: mode, makesParents: flags & 1 != 0)
    }

    package func write(to buffer: inout ByteBuffer) {
        CommandHeader(.makeDirectory).write(to: &buffer)
        buffer.writeMultipleIntegers(mode, UInt8(makesParents ? 1 : 0))
        buffer.writePath(path)
    }

    func execute<Store: ~Copyable>(
        on tree: inout FileTree<Store>, _ header: CommandHeader
    ) throws(StateError) -> Outcome {
        let (parent, depth): (UInt64, Int)
        switch try tree.resolve(path) {
        case .failure(let error): return .failed(error, revision: 0)
        case .success(.root): return makesParents ? .done(revision: 0) : .failed(.alreadyExists, revision: 0)
        case .success(.entry(_, _, let entry)):
            let isThere = makesParents && entry.metadata.kind == .directory
            return isThere ? .done(revision: entry.metadata.revision) : .failed(.alreadyExists, revision: 0)
        case .success(.missing(let inode, _)): (parent, depth) = (inode, path.components.count - 1)
        case .success(.missingParents(let inode, let first)):
            guard makesParents else { return .failed(.notFound, revision: 0) }
            (parent, depth) = (inode, first)
        }
        _ = try tree.makeDirectories(
            path, from: depth, to: path.components.count, below: parent,
            mode: tree.applied.clusterVersion >= 4 ? mode & Self.modeMask : mode, mtime: header.wallTime)
        return .done(revision: tree.applied.index)
    }
}
