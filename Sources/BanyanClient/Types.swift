import FileTree

/// What the tree says of an entry.
public struct FileInfo: Equatable, Sendable {
    public enum Kind: String, Sendable { case file, directory }

    public let kind: Kind
    /// Bytes; 0 for a directory.
    public let size: UInt64
    /// POSIX permission bits.
    public let mode: UInt16
    /// Nanoseconds since 1970.
    public let modificationTime: Int64
    /// The number of the command that last changed the entry: one number orders everything in the tree.
    public let revision: UInt64

    package init(kind: Kind, size: UInt64, mode: UInt16, modificationTime: Int64, revision: UInt64) {
        self.kind = kind
        self.size = size
        self.mode = mode
        self.modificationTime = modificationTime
        self.revision = revision
    }
}

/// An entry of a directory.
public struct DirectoryEntry: Equatable, Sendable {
    /// UTF-8, 255 bytes at most. Names are these bytes: `String` takes canonically equivalent ones for the same.
    public let nameBytes: [UInt8]
    public let info: FileInfo

    package init(nameBytes: [UInt8], info: FileInfo) {
        self.nameBytes = nameBytes
        self.info = info
    }

    /// The name as people read it; never for comparing.
    public var name: String { String(decoding: nameBytes, as: UTF8.self) }
}

/// A path in the tree, or a name in it: its bytes, or a text that is meant by its UTF-8. `String` splits and compares by what
/// people see, and so takes different names for one: who walks a tree keeps to bytes.
public protocol PathBytes: Sendable {
    var pathBytes: [UInt8] { get }
}

extension String: PathBytes {
    public var pathBytes: [UInt8] { Array(utf8) }
}

extension TreePath: PathBytes {
    package var pathBytes: [UInt8] { bytes }
}

extension [UInt8]: PathBytes {
    public var pathBytes: [UInt8] { self }
}

/// What must hold for a write to happen.
public enum WriteCondition: Equatable, Sendable {
    case always
    /// Nothing is at the path. (Of a move: nothing is at the destination.)
    case absent
    /// The path is at this revision. (Of a move: the source is.)
    case revision(UInt64)
}

/// What a read may miss.
public enum Consistency: Equatable, Sendable {
    /// Nothing that was acknowledged before the read began.
    case linearizable
    /// The same, as long as the members' clocks run at about the same rate: the leader answers without asking the others.
    case lease
    /// What was acknowledged within `maximumAge` before the read began; without one, anything. Any member answers from
    /// what it has.
    case stale(maximumAge: Duration?)
}

/// A member, as the cluster records it.
public struct MemberRecord: Equatable, Sendable {
    public let id: UInt64
    public let address: String
    /// A learner receives everything and does not vote.
    public let isLearner: Bool
    /// What tells its data directory from every other one.
    public let incarnation: UInt64
}

/// Why an operation did not do what it was asked.
public enum BanyanError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The tree refused it; nothing was changed.
    case invalidPath, nameTooLong, notFound, notDirectory, isDirectory, alreadyExists, directoryNotEmpty
    case contentTooLarge, invalidMove, unsupported
    /// The condition did not hold; nothing was changed. The path is at this revision (0: absent).
    case conditionFailed(currentRevision: UInt64)
    /// A write was sent and no answer came: it may have happened, and may still happen.
    case unknownOutcome
    /// Nothing was changed: no member could be reached, for the reason that is given of each address.
    case unreachable(String)
    /// Nothing was changed: the one member that was meant can't be reached, or does not answer, as the text says.
    case memberUnreachable(String)
    /// Nothing was changed: no member that leads could be reached, or it is too busy. The text says what each address answered.
    case noQuorum(String)
    /// Nothing was done: the addresses that were given belong to different clusters, as the text says.
    case differentClusters(String)
    /// Nothing was done: none of the hosts that were given exists, as the text says.
    case noSuchHost(String)
    /// The leader could not hand over in its time, and goes on leading.
    case transferFailed
    /// Nothing was changed: too little of the members' disks is free.
    case diskFull
    /// Nothing was changed: a member refuses to talk with this client, for the reason given.
    case refused(String)
    /// The membership was not changed, for the reason given.
    case membershipRefused(String)
    /// There is no member with this id.
    case noSuchMember
    /// The learner lacks too much of the log to vote yet.
    case notCaughtUp
    /// A member answered what it must not.
    case protocolViolation(String)

    public var description: String {
        switch self {
        case .invalidPath:
            "not a valid path: paths are absolute UTF-8 without empty, '.' or '..' parts, 4,096 bytes at most"
        case .nameTooLong: "a name is longer than 255 bytes"
        case .notFound: "no such file or directory"
        case .notDirectory: "a part of the path is a file, and a directory is needed"
        case .isDirectory: "it is a directory, and a file is needed"
        case .alreadyExists: "it is there already"
        case .directoryNotEmpty: "the directory is not empty; rm -r removes it with all below it"
        case .contentTooLarge: "the file is larger than 1 MiB, the most that this version stores"
        case .invalidMove: "a directory can't move into itself, and the root can't move or go"
        case .unsupported: "the cluster does not do that yet: it takes members of a newer program, all of them"
        case .conditionFailed(let revision):
            revision == 0
                ? "the condition does not hold: the path is absent"
                : "the condition does not hold: the path is at revision \(revision)"
        case .unknownOutcome:
            "the outcome is unknown: what was asked for may have happened; look with 'banyan stat', or 'banyan status', before "
                + "you repeat it"
        case .unreachable(let reasons):
            "no member can be reached: \(reasons): see that they run, and check the addresses (--nodes or BANYAN_NODES)"
        case .memberUnreachable(let trouble): "\(trouble): see that it runs"
        case .noQuorum(let answers):
            "no leader served this in time (\(answers)): nothing was done; a majority of the members must run: see "
                + "'banyan status', and try again"
        case .differentClusters(let addresses):
            "\(addresses): name the members of one cluster with --nodes or BANYAN_NODES"
        case .noSuchHost(let reasons): "\(reasons): check the addresses (--nodes or BANYAN_NODES)"
        case .transferFailed:
            "the leader could not hand over in its time, and goes on; see 'banyan status' and try again"
        case .diskFull:
            "nothing was written: the members' disks are nearly full; remove files (rm still works) or free space on them"
        case .refused(let reason): "refused by \(reason)"
        case .membershipRefused(let reason): reason
        case .noSuchMember: "no such member; see 'banyan member list'"
        case .notCaughtUp: "the learner has not caught up yet; try 'banyan member promote' again a little later"
        case .protocolViolation(let reason): "a member broke the protocol: \(reason)"
        }
    }
}

extension BanyanError {
    /// Whether it would be the same for whoever tries again.
    var isFinal: Bool {
        switch self {
        case .unknownOutcome, .unreachable, .memberUnreachable, .noQuorum: false
        default: true
        }
    }
}

/// What one member says of itself.
public struct MemberReport: Equatable, Sendable {
    public let id: UInt64
    public let address: String
    /// leader, follower, candidate, learner; unreachable, or starting (its figures are 0 then, and the work under way says
    /// what it waits for); or removed: it runs, and the leader knows it no more.
    public let role: String
    public let term: UInt64
    public let commitIndex: UInt64
    public let appliedIndex: UInt64
    /// 32 hexadecimal digits; members at the same applied index have the same digest.
    public let digest: String
    /// Figures of the member's own, by their names; empty of a member that is unreachable, or whose program is older.
    ///
    /// `files` and `content_bytes` of the tree; `log_first_index`, `log_last_index` and `log_bytes`; `log_commits` since the
    /// member was started; `state_bytes` of its file, of which `state_unused_bytes` hold nothing;
    /// `state_oldest_reader_commits`, since the oldest view of it that is still open; `state_wait_p999_us`, what 999 of 1,000
    /// requests waited at most for the thread that executes them, in the last ten seconds in which there were any;
    /// `free_bytes`, that may still be written; `snapshot_bytes` of the one that is kept for members that need one;
    /// `durable_index`; `cluster_version`; `connections` of clients and peers, and `clients_bytes`, what clients make it hold
    /// in memory; `disk_waiting_ms`, how long its oldest write has been under way; `digest_index` and `digest_low` of the
    /// digest that members last compared; `offences_` and a kind, how many messages of it were refused; `process_id`. Of a
    /// member that has not begun, `starting` is 1; of one whom the others know no more, as far as it knows, `removed` is.
    public let statistics: [String: UInt64]
    /// Long work that the member is doing.
    public let workUnderWay: [WorkReport]

    /// Whether it answers, and has begun: else its figures say nothing.
    public var isRunning: Bool { role != "unreachable" && role != "starting" }
}

/// How far a member's work has come.
public struct WorkReport: Equatable, Sendable {
    public let description: String
    public let bytesDone: UInt64
    /// Nil while that is not known.
    public let bytes: UInt64?
}
