import NIOCore

/// Opens a session of a client's; the answer's revision is its id. A client sends no fields. From cluster version 4 on, the
/// leader says who the session's owner is, in a command of that version:
///
///     0  8  a number of the host that the client asked from
///     8  8  a number of its connection
package struct OpenSession: TreeCommand, Equatable, Sendable {
    static let statement = OperationStatement(since: 2, proposer: .client, session: .never, takesSpace: false)
    package static let ownedVersion: UInt16 = 4

    /// Nil: as a client sends it.
    package var owner: SessionOwner?

    package init(owner: SessionOwner? = nil) { self.owner = owner }

    init(from buffer: inout ByteBuffer, _ header: CommandHeader) throws(TreeError) {
        guard header.version >= Self.ownedVersion else {
            // Whatever stands there, members of all programs have taken it for nothing.
            buffer.moveReaderIndex(to: buffer.writerIndex)
            return
        }
        guard let (host, connection) = buffer.readMultipleIntegers(as: (UInt64, UInt64).self) else {
            throw .malformed
        }
        owner = SessionOwner(host: host, connection: connection)
    }

    package func write(to buffer: inout ByteBuffer) {
        var header = CommandHeader(.openSession)
        if owner != nil { header.version = Self.ownedVersion }
        header.write(to: &buffer)
        if let owner { buffer.writeMultipleIntegers(owner.host, owner.connection) }
    }

    func execute<Store: ~Copyable>(
        on tree: inout FileTree<Store>, _: CommandHeader
    ) throws(StateError) -> Outcome {
        let applied = tree.applied
        tree.sessions.open(
            applied.index, owner: owner ?? .unknown, logTime: applied.logTime,
            clusterVersion: applied.clusterVersion, digest: &tree.applied.digest)
        return .done(revision: applied.index)
    }
}

/// Whose a session is, as far as a member can see: where the connection came from that opened it.
package struct SessionOwner: Equatable, Comparable, Sendable {
    package var host: UInt64
    package var connection: UInt64

    package init(host: UInt64, connection: UInt64) {
        self.host = host
        self.connection = connection
    }

    /// Of sessions from before cluster version 4.
    package static let unknown = SessionOwner(host: 0, connection: 0)

    package static func < (one: SessionOwner, other: SessionOwner) -> Bool {
        (one.host, one.connection) < (other.host, other.connection)
    }
}

/// Ends the session that the head names, and forgets its answers. No fields.
package struct CloseSession: TreeCommand, Equatable, Sendable {
    static let statement = OperationStatement(since: 2, proposer: .client, session: .names, takesSpace: false)

    package var session: UInt64

    package init(_ session: UInt64) { self.session = session }

    init(from buffer: inout ByteBuffer, _ header: CommandHeader) throws(TreeError) {
        session = header.session
        // Whatever stands there, members of all programs have taken it for nothing.
        buffer.moveReaderIndex(to: buffer.writerIndex)
    }

    package func write(to buffer: inout ByteBuffer) {
        var header = CommandHeader(.closeSession)
        header.session = session
        header.write(to: &buffer)
    }

    func execute<Store: ~Copyable>(
        on tree: inout FileTree<Store>, _: CommandHeader
    ) throws(StateError) -> Outcome {
        tree.sessions.close(session, digest: &tree.applied.digest)
        return .done(revision: tree.applied.index)
    }
}
