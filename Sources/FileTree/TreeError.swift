import LMDB

/// Why the tree did not do what it was asked. Nothing was changed. The raw value is the result code on the wire.
package enum TreeError: UInt16, Error, Equatable, Sendable, CaseIterable {
    /// The bytes are not a command or a query of this version.
    case malformed = 1
    /// Not an absolute path of valid UTF-8 within 4,096 bytes, or with an empty, `.` or `..` component, or with NUL.
    case invalidPath = 2
    /// A name is longer than 255 bytes.
    case nameTooLong = 3
    case notFound = 4
    /// A component of the path, or the thing asked for, is a file where a directory is needed.
    case notDirectory = 5
    /// The thing is a directory where a file is needed.
    case isDirectory = 6
    case alreadyExists = 7
    case directoryNotEmpty = 8
    /// The content is larger than one command may carry (1 MiB).
    case contentTooLarge = 9
    /// A directory can't move into itself, and the root can't move or go.
    case invalidMove = 10
    /// The condition did not hold; the answer carries the current revision (0: absent).
    case conditionFailed = 11
    /// Valid, but not served by this version.
    case unsupported = 12
    /// The session was idle for too long, or never was; its write was not executed now. What was sent before may have been.
    case sessionEnded = 13
    /// The client said before that it has the answer to this sequence.
    case alreadyAnswered = 14
    /// Another command of the session had this sequence: two clients use one session.
    case sequenceReused = 15
    /// The sequence is too far beyond the lowest one that is unanswered.
    case tooManyUnanswered = 16
}

/// What must never happen to a member's state. It stops executing; its log is still sound.
package enum StateError: Error, Equatable, Sendable, CustomStringConvertible {
    /// LMDB or the disk failed; the number is LMDB's or the system's.
    case store(Int32)
    /// A row's CRC32 does not match: bits rotted.
    case corruptRow(table: UInt8)
    /// A command, a key or a row that this version does not know. It must not be guessed at.
    case unknownFormat
    /// The rows' digest is not the one that the state carries: a row is missing, too many or out of date.
    case wrongDigest
    /// An entry came out of order.
    case wrongIndex(expected: UInt64, got: UInt64)
    /// An entry that is to be executed is damaged in the log.
    case damagedEntry(UInt64)

    /// Whether there is no room on the disk: that passes.
    package var isFull: Bool {
        if case .store(let code) = self { return LMDBError(code: code).isFull }
        return false
    }

    package var description: String {
        switch self {
        case .store(let code): LMDBError(code: code).description
        case .corruptRow(let table): "a row of table \(table) is damaged"
        case .unknownFormat:
            "it holds a command or a row that this program does not know: the cluster's version is newer; start a newer program"
        case .wrongDigest: "its rows do not add up to its digest: one is missing, too many or out of date"
        case .wrongIndex(let expected, let got): "entry \(got) came where \(expected) was to come"
        case .damagedEntry(let index): "log entry \(index) is damaged"
        }
    }
}
