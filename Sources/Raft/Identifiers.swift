/// The position of an entry in the replicated log. The first entry has index 1; 0 stands before it.
package typealias Index = UInt64

/// A leader's reign. Terms only grow.
package typealias Term = UInt64

/// Nanoseconds of a clock that runs on through a pause or a suspend (`CLOCK_BOOTTIME`), so that a process that was
/// stopped sees how long it was away. The core only compares and subtracts it.
package typealias Nanoseconds = UInt64

/// A peer, as the core knows it: the incarnation of a data directory, 64 random bits that are never used again.
///
/// A member whose directory was wiped forgot its votes and its log. If it came back under its old name, it could vote
/// twice in a term; under a new incarnation it is a stranger.
package struct PeerID: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
    package init(_ rawValue: UInt64) { self.rawValue = rawValue }
    package static func < (left: PeerID, right: PeerID) -> Bool { left.rawValue < right.rawValue }
    package var description: String { String(rawValue, radix: 16) }
}

/// What an entry is to Raft.
package enum EntryKind: UInt8, Sendable {
    /// The empty entry that a leader begins its term with (section 8 of the paper).
    case noOperation = 0
    /// A command of the state machine; the core never sees its bytes.
    case command = 1
    /// A cluster configuration (section 6 of the paper).
    case configuration = 2
}

/// An entry, as far as consensus needs to know it. Its payload stays with the driver.
package struct EntryHeader: Equatable, Sendable {
    package var index: Index
    package var term: Term
    package var kind: EntryKind
    /// Bytes that the entry takes in a message and in the log.
    package var size: UInt32

    package init(index: Index, term: Term, kind: EntryKind, size: UInt32) {
        self.index = index
        self.term = term
        self.kind = kind
        self.size = size
    }
}

/// What must be on disk before a member answers (figure 2 of the paper), and the commit index, so that a restarted
/// member knows what it may apply at once.
package struct HardState: Equatable, Sendable {
    package var term: Term
    package var vote: PeerID?
    package var commit: Index

    package init(term: Term = 0, vote: PeerID? = nil, commit: Index = 0) {
        self.term = term
        self.vote = vote
        self.commit = commit
    }
}

/// The last entry that a snapshot covers, and the configuration in force there.
package struct SnapshotMetadata: Equatable, Sendable {
    package var index: Index
    package var term: Term
    package var configuration: Configuration

    package init(index: Index, term: Term, configuration: Configuration) {
        self.index = index
        self.term = term
        self.configuration = configuration
    }
}
