import NIOCore

/// Brings the commands and the rules of a cluster version into force. The leader proposes it when every member knows them.
///
///     0  2  the version
package struct RaiseVersion: TreeCommand, Equatable, Sendable {
    static let statement = OperationStatement(since: 1, proposer: .leader, session: .never, takesSpace: false)

    package var version: UInt16

    package init(to version: UInt16) { self.version = version }

    init(from buffer: inout ByteBuffer, _: CommandHeader) throws(TreeError) {
        guard let version = buffer.readInteger(as: UInt16.self) else { throw .malformed }
        self.version = version
    }

    package func write(to buffer: inout ByteBuffer) {
        CommandHeader(.raiseVersion).write(to: &buffer)
        buffer.writeInteger(version)
    }

    /// - Throws: `unknownFormat` when this program does not know the version: it must stop, and not guess.
    func execute<Store: ~Copyable>(
        on tree: inout FileTree<Store>, _: CommandHeader
    ) throws(StateError) -> Outcome {
        guard version <= tree.knownVersion else { throw .unknownFormat }
        // It takes a while in a large tree, once: a write beside it waited 1.5 s with a million files.
        if version >= 3, tree.applied.clusterVersion < 3 { tree.applied.digest = try tree.digest(at: version) }
        tree.applied.clusterVersion = max(tree.applied.clusterVersion, version)
        return .done(revision: tree.applied.index)
    }
}
