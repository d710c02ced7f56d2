import NIOCore

/// Opens a session of a client's; the answer's revision is its id. A client sends no fields. From cluster version 4 on, the
/// leader says who the session's owner is, in a command of that version:
///
///     0  8  a number of the host that the client asked from
///     8  8  a number of its connection
package enum OpenSession {
    package static let ownedVersion: UInt16 = 4

    package static func write(to buffer: inout ByteBuffer) { CommandHeader(.openSession).write(to: &buffer) }

    /// Whether `command`, which a client sent, opens a session.
    package static func isOne(_ command: ByteBuffer) -> Bool {
        command.getInteger(at: command.readerIndex + 2, as: UInt8.self) == CommandHeader.Operation.openSession.rawValue
    }

    /// Writes the command of a session that `owner` opens.
    package static func write(to buffer: inout ByteBuffer, owner: SessionOwner) {
        var header = CommandHeader(.openSession)
        header.version = ownedVersion
        header.write(to: &buffer)
        buffer.writeMultipleIntegers(owner.host, owner.connection)
    }

    /// Nil when the fields are not those of the command's version.
    static func owner(_ header: CommandHeader, _ payload: ByteBuffer) -> SessionOwner? {
        guard header.version >= ownedVersion else { return .unknown }
        var payload = payload
        guard payload.readableBytes == 16,
            let (host, connection) = payload.readMultipleIntegers(as: (UInt64, UInt64).self)
        else { return nil }
        return SessionOwner(host: host, connection: connection)
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
package enum CloseSession {
    package static func write(to buffer: inout ByteBuffer, session: UInt64) {
        var header = CommandHeader(.closeSession)
        header.session = session
        header.write(to: &buffer)
    }
}

/// Brings the commands and the rules of a cluster version into force. The leader proposes it when every member knows them.
///
///     0  2  the version
package struct RaiseVersion: TreeCommand, Equatable, Sendable {
    package var version: UInt16

    package init(to version: UInt16) { self.version = version }

    init(from buffer: inout ByteBuffer) throws(TreeError) {
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
