import NIOCore

/// The head of every command, 48 bytes, big-endian. A client leaves the two times zero; the leader writes them.
///
///     0   2  the cluster version that the command needs: 1, 2 with a session, 4 to open one with an owner
///     2   1  operation
///     3   5  zero
///     8   8  session (0: none)
///     16  8  sequence within the session
///     24  8  the lowest sequence that the client has no answer to
///     32  8  log time: milliseconds of leadership
///     40  8  wall time: nanoseconds since 1970, signed
package struct CommandHeader: Equatable, Sendable {
    package enum Operation: UInt8, Sendable {
        case makeDirectory = 1
        case put = 2
        case rename = 3
        case delete = 4
        case reclaim = 5
        case openSession = 6
        case closeSession = 7
        case raiseVersion = 8

        /// The first cluster version that has it.
        var version: UInt16 {
            switch self {
            case .makeDirectory, .put, .rename, .delete, .reclaim, .raiseVersion: 1
            case .openSession, .closeSession: 2
            }
        }

        /// Whether clients may send it.
        var isClients: Bool { self != .reclaim && self != .raiseVersion }
    }

    package static let byteCount = 48

    package var version: UInt16 = 1
    package var operation: Operation
    package var session: UInt64 = 0
    package var sequence: UInt64 = 0
    package var lowestUnanswered: UInt64 = 0
    package var logTime: UInt64 = 0
    package var wallTime: Int64 = 0

    package init(_ operation: Operation) {
        self.operation = operation
        version = operation.version
    }

    /// Nil when the bytes are too few or the operation is not one of this version.
    init?(from buffer: inout ByteBuffer) {
        guard let (version, code) = buffer.readMultipleIntegers(as: (UInt16, UInt8).self),
            let operation = Operation(rawValue: code),
            let (_, _, session, sequence, lowest, logTime, wallTime) = buffer.readMultipleIntegers(
                as: (UInt8, UInt32, UInt64, UInt64, UInt64, UInt64, Int64).self)
        else { return nil }
        self.version = version
        self.operation = operation
        self.session = session
        self.sequence = sequence
        lowestUnanswered = lowest
        self.logTime = logTime
        self.wallTime = wallTime
    }

    func write(to buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(version, operation.rawValue, UInt8(0), UInt32(0))
        buffer.writeMultipleIntegers(session, sequence, lowestUnanswered, logTime, wallTime)
    }

    /// The latest time of a log, in milliseconds: no cluster lives to see it, and whatever is reckoned with it stays a number.
    package static let logTimeMax: UInt64 = 1 << 52

    /// Writes the leader's times into the command that starts at `offset`.
    package static func stamp(_ buffer: inout ByteBuffer, at offset: Int, logTime: UInt64, wallTime: Int64) {
        buffer.setInteger(logTime, at: offset + 32)
        buffer.setInteger(wallTime, at: offset + 40)
    }

    /// Makes the write at the start of `buffer` one of a session's.
    package static func enroll(_ buffer: inout ByteBuffer, session: UInt64, sequence: UInt64, lowestUnanswered: UInt64)
    {
        let start = buffer.readerIndex
        buffer.setInteger(Operation.openSession.version, at: start)
        buffer.setInteger(session, at: start + 8)
        buffer.setInteger(sequence, at: start + 16)
        buffer.setInteger(lowestUnanswered, at: start + 24)
    }

    /// Whether a command of a session that the version in force does not support may be supported, and executed, elsewhere: a
    /// newer leader has opened the session, under a version that this member has yet to learn of. Nobody may be told then that
    /// it was refused.
    ///
    /// - Parameter knownVersion: what this program knows; no version beyond it can be in force.
    package static func mayBeExecuted(_ buffer: ByteBuffer, knownVersion: UInt16 = Applied.clusterVersionMax) -> Bool {
        var copy = buffer
        guard let header = CommandHeader(from: &copy) else { return false }
        return header.session != 0 && header.operation.isClients && header.version <= knownVersion
    }

    /// What is wrong with the command in `buffer` that a client sent, or nil: checked before it is proposed, since a
    /// member that meets a command it does not know must stop.
    ///
    /// - Parameter clusterVersion: the one in force.
    package static func refusal(of buffer: ByteBuffer, clusterVersion: UInt16) -> TreeError? {
        var copy = buffer
        guard let header = CommandHeader(from: &copy),
            buffer.getInteger(at: buffer.readerIndex + 3, as: UInt8.self) == 0,
            buffer.getInteger(at: buffer.readerIndex + 4, as: UInt32.self) == 0,
            header.logTime == 0, header.wallTime == 0
        else { return .malformed }
        if !header.operation.isClients || header.version > clusterVersion { return .unsupported }
        // Whose a session is, the member says and not the client.
        if header.operation == .openSession, copy.readableBytes > 0 { return .malformed }
        return header.isWellFormed ? nil : .malformed
    }

    /// Whether a program that knows the cluster versions up to `knownVersion` executes the command that stands from `offset`
    /// on, `count` bytes long. What else may be wrong with it is an answer, which all members give alike; a member that met
    /// one that is not executable would have to stop, so it is refused where it comes in.
    package static func isExecutable(
        _ buffer: ByteBuffer, at offset: Int, count: Int, knownVersion: UInt16 = Applied.clusterVersionMax
    ) -> Bool {
        guard (byteCount...FileTreeLimits.commandBytesMax).contains(count),
            var command = buffer.getSlice(at: offset, length: count), let header = CommandHeader(from: &command),
            (1...knownVersion).contains(header.version), header.logTime <= logTimeMax
        else { return false }
        // A version that this program does not know must not come into force here.
        guard header.operation == .raiseVersion, let raised = command.readInteger(as: UInt16.self) else { return true }
        return raised <= knownVersion
    }

    /// Whether the command in `buffer` asks for room that stays taken: those that do not are executed when it is scarce.
    package static func needsSpace(_ buffer: ByteBuffer) -> Bool {
        switch buffer.getInteger(at: buffer.readerIndex + 2, as: UInt8.self).flatMap(Operation.init(rawValue:)) {
        case .put, .makeDirectory: true
        default: false
        }
    }

    /// Whether the command in `buffer` opens a session.
    package static func opensSession(_ buffer: ByteBuffer) -> Bool {
        buffer.getInteger(at: buffer.readerIndex + 2, as: UInt8.self) == Operation.openSession.rawValue
    }

    /// Whether version, operation and session fit together.
    var isWellFormed: Bool {
        guard version >= operation.version else { return false }
        if session == 0 { return sequence == 0 && lowestUnanswered == 0 && operation != .closeSession }
        switch operation {
        case .openSession, .reclaim, .raiseVersion: return false
        case .closeSession: return sequence == 0 && lowestUnanswered == 0
        case .makeDirectory, .put, .rename, .delete:
            return version >= 2 && lowestUnanswered >= 1 && lowestUnanswered <= sequence
        }
    }
}

/// What stands behind the head of a command that changes the tree.
protocol TreeCommand {
    init(from buffer: inout ByteBuffer) throws(TreeError)

    /// - Throws: a fault of the state, or of this program; what is wrong with the command is an outcome.
    func execute<Store: ~Copyable>(
        on tree: inout FileTree<Store>, _ header: CommandHeader
    ) throws(StateError) -> Outcome
}

/// What must hold for a put, a rename or a delete to happen.
///
/// Encoded as a tag (1) and a revision (8): 0 always, 1 the path is absent, 2 the path is at that revision.
package enum Condition: Equatable, Sendable {
    case always
    case absent
    case revision(UInt64)

    /// `revision` is that of the thing at the path, 0 when there is none.
    func holds(_ revision: UInt64) -> Bool {
        switch self {
        case .always: true
        case .absent: revision == 0
        case .revision(let wanted): revision == wanted && wanted != 0
        }
    }
}

extension ByteBuffer {
    mutating func writeCondition(_ condition: Condition) {
        switch condition {
        case .always: writeMultipleIntegers(UInt8(0), UInt64(0))
        case .absent: writeMultipleIntegers(UInt8(1), UInt64(0))
        case .revision(let revision): writeMultipleIntegers(UInt8(2), revision)
        }
    }

    mutating func readCondition() throws(TreeError) -> Condition {
        guard let (tag, revision) = readMultipleIntegers(as: (UInt8, UInt64).self) else { throw .malformed }
        switch tag {
        case 0: return .always
        case 1: return .absent
        case 2: return .revision(revision)
        default: throw .malformed
        }
    }
}

/// What a command did. Encoded as a result code (2; 0 is success) and a revision (8).
package enum Outcome: Equatable, Sendable {
    /// Done; for a put, a rename or a new directory the thing's revision from now on.
    case done(revision: UInt64)
    /// Nothing was changed. `revision` is the current one when a condition did not hold (0: absent), else 0.
    case failed(TreeError, revision: UInt64)

    package func write(to buffer: inout ByteBuffer) {
        let (code, revision) = numbers
        buffer.writeMultipleIntegers(code, revision)
    }

    package init?(from buffer: inout ByteBuffer) {
        guard let (code, revision) = buffer.readMultipleIntegers(as: (UInt16, UInt64).self) else { return nil }
        self.init(code: code, revision: revision)
    }

    /// The result code and the revision.
    var numbers: (code: UInt16, revision: UInt64) {
        switch self {
        case .done(let revision): (0, revision)
        case .failed(let error, let revision): (error.rawValue, revision)
        }
    }

    init?(code: UInt16, revision: UInt64) {
        if code == 0 {
            self = .done(revision: revision)
        } else {
            guard let error = TreeError(rawValue: code) else { return nil }
            self = .failed(error, revision: revision)
        }
    }
}
