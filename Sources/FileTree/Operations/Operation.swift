import NIOCore

/// What an operation says of itself, in its own file. Nothing else decides about it.
struct OperationStatement: Sendable {
    enum Proposer: Sendable {
        case client
        /// The leader, of its own.
        case leader
    }

    enum SessionUse: Sendable {
        /// It may belong to a session, and takes effect once then, however often it comes.
        case mayBelong
        case never
        /// It names the session that it is about.
        case names
    }

    /// The first cluster version that has it.
    let since: UInt16
    let proposer: Proposer
    let session: SessionUse
    /// Whether it asks for room that stays taken: what does not is executed when room is scarce.
    let takesSpace: Bool
}

/// What stands behind the head of a command.
protocol TreeCommand {
    static var statement: OperationStatement { get }

    /// Reads it; bytes that are left over are none of its.
    init(from buffer: inout ByteBuffer, _ header: CommandHeader) throws(TreeError)

    /// - Throws: a fault of the state, or of this program; what is wrong with the command is an outcome.
    func execute<Store: ~Copyable>(
        on tree: inout FileTree<Store>, _ header: CommandHeader
    ) throws(StateError) -> Outcome
}

extension CommandHeader {
    /// The list of all operations, by their codes: a new one gets a line in each of the two switches of this file.
    package enum Operation: UInt8, CaseIterable, Sendable {
        case makeDirectory = 1
        case put = 2
        case rename = 3
        case delete = 4
        case reclaim = 5
        case openSession = 6
        case closeSession = 7
        case raiseVersion = 8
        case setAttributes = 9

        var statement: OperationStatement {
            switch self {
            case .makeDirectory: MakeDirectory.statement
            case .put: Put.statement
            case .rename: Rename.statement
            case .delete: Delete.statement
            case .reclaim: Reclaim.statement
            case .openSession: OpenSession.statement
            case .closeSession: CloseSession.statement
            case .raiseVersion: RaiseVersion.statement
            case .setAttributes: SetAttributes.statement
            }
        }
    }
}

extension FileTree where Store: ~Copyable {
    mutating func execute(_ header: CommandHeader, _ payload: inout ByteBuffer) throws(StateError) -> Outcome {
        switch header.operation {
        case .makeDirectory: try execute(MakeDirectory.self, header, &payload)
        case .put: try execute(Put.self, header, &payload)
        case .rename: try execute(Rename.self, header, &payload)
        case .delete: try execute(Delete.self, header, &payload)
        case .reclaim: try execute(Reclaim.self, header, &payload)
        case .openSession: try execute(OpenSession.self, header, &payload)
        case .closeSession: try execute(CloseSession.self, header, &payload)
        case .raiseVersion: try execute(RaiseVersion.self, header, &payload)
        case .setAttributes: try execute(SetAttributes.self, header, &payload)
        }
    }

    /// A command that can't be read was wrong when its client sent it: every member refuses it alike.
    @inline(__always)
    private mutating func execute<Command: TreeCommand>(
        _: Command.Type, _ header: CommandHeader, _ payload: inout ByteBuffer
    ) throws(StateError) -> Outcome {
        let command: Command
        do { command = try Command(from: &payload, header) } catch { return .failed(error, revision: 0) }
        guard payload.readableBytes == 0 else { return .failed(.malformed, revision: 0) }
        return try command.execute(on: &self, header)
    }
}
