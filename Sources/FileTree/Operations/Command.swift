import NIOCore

/// The head of every command, 48 bytes, big-endian. A client leaves the two times zero; the leader writes them.
///
///     0   2  the cluster version that the command needs: 1, 2 with a session, 4 to open one with an owner
///     2   1  operation
///     3   1  1: a write of no session that takes effect once, from version 5 on; else 0
///     4   4  zero
///     8   8  session (0: none)                                        of such a one-time write:
///     16  8  sequence within the session                              16 random bytes
///     24  8  the lowest sequence that the client has no answer to     the log time from which on it is refused
///     32  8  log time: milliseconds of leadership
///     40  8  wall time: nanoseconds since 1970, signed
package struct CommandHeader: Equatable, Sendable {
    package static let byteCount = 48

    package var version: UInt16 = 1
    package var operation: Operation
    /// What stands for a session is a one-time write's.
    var isOneTime = false
    package var session: UInt64 = 0
    package var sequence: UInt64 = 0
    package var lowestUnanswered: UInt64 = 0
    package var logTime: UInt64 = 0
    package var wallTime: Int64 = 0

    package init(_ operation: Operation) {
        self.operation = operation
        version = operation.statement.since
    }

    /// Nil when the bytes are too few or the operation is not one of this version.
    init?(from buffer: inout ByteBuffer) {
        guard let (version, code) = buffer.readMultipleIntegers(as: (UInt16, UInt8).self),
            let operation = Operation(rawValue: code),
            let (flag, _, session, sequence, lowest, logTime, wallTime) = buffer.readMultipleIntegers(
                as: (UInt8, UInt32, UInt64, UInt64, UInt64, UInt64, Int64).self)
        else { return nil }
        self.version = version
        self.operation = operation
        isOneTime = flag == 1
        self.session = session
        self.sequence = sequence
        lowestUnanswered = lowest
        self.logTime = logTime
        self.wallTime = wallTime
    }

    func write(to buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(version, operation.rawValue, UInt8(isOneTime ? 1 : 0), UInt32(0))
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
        let version = buffer.getInteger(at: start, as: UInt16.self) ?? 0
        buffer.setInteger(max(version, OpenSession.statement.since), at: start)
        buffer.setInteger(session, at: start + 8)
        buffer.setInteger(sequence, at: start + 16)
        buffer.setInteger(lowestUnanswered, at: start + 24)
    }

    /// The first version with writes of no session that take effect once.
    package static let oneTimeVersion: UInt16 = 5

    /// Makes the write at the start of `buffer` one that takes effect once, without a session.
    ///
    /// - Parameters:
    ///   - id: random, and of no other write.
    ///   - until: the log time in milliseconds from which on it is refused.
    package static func enrollOnce(_ buffer: inout ByteBuffer, id: UInt128, until: UInt64) {
        let start = buffer.readerIndex
        let version = buffer.getInteger(at: start, as: UInt16.self) ?? 0
        buffer.setInteger(max(version, oneTimeVersion), at: start)
        buffer.setInteger(UInt8(1), at: start + 3)
        buffer.setInteger(id, at: start + 8)
        buffer.setInteger(until, at: start + 24)
    }

    /// What names a one-time write; nil of any other.
    var oneTimeName: OneTimeWrites.Name? {
        guard isOneTime else { return nil }
        return OneTimeWrites.Name(until: lowestUnanswered, id: UInt128(session) << 64 | UInt128(sequence))
    }

    /// Whether a command of a session that the version in force does not support may be supported, and executed, elsewhere: a
    /// newer leader has opened the session, under a version that this member has yet to learn of. Nobody may be told then that
    /// it was refused.
    ///
    /// - Parameter knownVersion: what this program knows; no version beyond it can be in force.
    package static func mayBeExecuted(_ buffer: ByteBuffer, knownVersion: UInt16 = Applied.clusterVersionMax) -> Bool {
        var copy = buffer
        guard let header = CommandHeader(from: &copy) else { return false }
        // Of what a session's operation needs beyond sessions, the session proves nothing: its client has to know.
        let isProven = header.isOneTime || (header.session != 0 && header.version <= OpenSession.statement.since)
        return isProven && header.operation.statement.proposer == .client && header.version <= knownVersion
    }

    /// What is wrong with the command in `buffer` that a client sent, or nil: checked before it is proposed, since a
    /// member that meets a command it does not know must stop.
    ///
    /// - Parameter clusterVersion: the one in force.
    package static func refusal(of buffer: ByteBuffer, clusterVersion: UInt16) -> TreeError? {
        var copy = buffer
        guard let header = CommandHeader(from: &copy),
            let flag = buffer.getInteger(at: buffer.readerIndex + 3, as: UInt8.self),
            flag == 0 || (flag == 1 && header.version >= oneTimeVersion),
            buffer.getInteger(at: buffer.readerIndex + 4, as: UInt32.self) == 0,
            header.logTime == 0, header.wallTime == 0
        else { return .malformed }
        if header.operation.statement.proposer != .client || header.version > clusterVersion { return .unsupported }
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

    /// The operation of the command in `buffer`; nil when there is none of this program's.
    private static func operation(_ buffer: ByteBuffer) -> Operation? {
        buffer.getInteger(at: buffer.readerIndex + 2, as: UInt8.self).flatMap(Operation.init(rawValue:))
    }

    /// Whether the command in `buffer` asks for room that stays taken: those that do not are executed when it is scarce.
    package static func needsSpace(_ buffer: ByteBuffer) -> Bool { operation(buffer)?.statement.takesSpace ?? false }

    /// Whether the command in `buffer` opens a session.
    package static func opensSession(_ buffer: ByteBuffer) -> Bool { operation(buffer) == .openSession }

    /// Whether version, operation and session fit together.
    var isWellFormed: Bool {
        let statement = operation.statement
        guard version >= statement.since else { return false }
        if isOneTime {
            return version >= Self.oneTimeVersion && statement.session == .mayBelong
                && lowestUnanswered <= Self.logTimeMax
        }
        if session == 0 { return sequence == 0 && lowestUnanswered == 0 && statement.session != .names }
        switch statement.session {
        case .never: return false
        case .names: return sequence == 0 && lowestUnanswered == 0
        case .mayBelong:
            return version >= OpenSession.statement.since && lowestUnanswered >= 1 && lowestUnanswered <= sequence
        }
    }
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
