import FileTree
import Raft
import RaftLog

/// Whether there is room for more.
///
/// A copy-on-write tree needs room even to delete, and so does the log. So puts are refused, before they are proposed,
/// while less than a reserve is free where they would have to be kept; deletes go on in that reserve.
struct DiskSpace {
    /// Puts are refused below so many free bytes, and taken again when so many more are free.
    let reserve: UInt64
    static let resumeBytes: UInt64 = 256 << 20

    /// As this member measured, and as the others last said.
    private(set) var usage = DiskUsage()
    private(set) var peers: [PeerID: UInt64] = [:]
    private(set) var isLow = false

    init(reserve: UInt64) { self.reserve = reserve }

    var own: UInt64 { usage.freeBytes }

    mutating func measured(_ usage: DiskUsage) { self.usage = usage }

    /// A sound member says so with each answer; more often than that, the last word has to do.
    mutating func told(_ bytes: UInt64, by peer: PeerID, now: Nanoseconds) {
        if allowances[peer, default: Self.allowance].take(now: now) { peers[peer] = bytes }
    }

    private static let allowance = Allowance(every: 10_000_000, burst: 100)
    private var allowances: [PeerID: Allowance] = [:]

    /// Decides anew. True when the decision changed.
    ///
    /// - Parameter present: the voters that the leader hears. Room is needed on the leader and on enough of them for a
    ///   majority; one that can be spared may be full, and lags until it has room.
    mutating func decide(leader: PeerID, voters: [PeerID], present: [PeerID]) -> Bool {
        let limit = reserve + (isLow ? Self.resumeBytes : 0)
        let hasRoom = { [own, peers] (peer: PeerID) in (peer == leader ? own : peers[peer] ?? .max) >= limit }
        let majority = voters.count / 2 + 1
        let isFull = !hasRoom(leader) || (present.count >= majority && present.count(where: hasRoom) < majority)
        defer { isLow = isFull }
        return isLow != isFull
    }
}

/// What a member's files take of its disk.
struct DiskUsage: Sendable {
    /// Bytes that may still be written, to the log and to the state: free on the disk, or free for reuse within the file of
    /// either, and within the addresses that it may fill.
    var freeBytes = UInt64.max
    /// The state's file, and how much of it holds nothing.
    var stateBytes: UInt64 = 0
    var unusedBytes: UInt64 = 0
    var logBytes: UInt64 = 0
    /// Commits of the state since the oldest view of it that is still open.
    var oldestReaderCommits: UInt64 = 0

    /// Whether the files that are written are those that stand in the member's directory.
    var isInPlace = true

    /// With less free on the disk, room within the files counts for nothing: a large row needs pages side by side, which
    /// they may not have.
    private static let diskBytesMin: UInt64 = 16 << 20

    init() {}

    init(of state: StateEnvironment, _ log: LogStore) {
        stateBytes = UInt64(state.usedBytes)
        unusedBytes = UInt64(state.reusableBytes)
        logBytes = UInt64(log.usedBytes)
        oldestReaderCommits = UInt64(state.oldestReaderCommits)
        isInPlace = state.isInPlace && log.isInPlace
        freeBytes = Self.freeBytes(
            disk: state.freeDiskBytes, state: (UInt64(state.unmappedBytes), unusedBytes),
            log: (UInt64(log.unmappedBytes), UInt64(log.reusableBytes)))
    }

    /// - Parameters:
    ///   - state, log: the addresses that each may still fill, and what its file has free for reuse.
    static func freeBytes(
        disk: UInt64, state: (unmapped: UInt64, reusable: UInt64), log: (unmapped: UInt64, reusable: UInt64)
    ) -> UInt64 {
        guard disk >= diskBytesMin else { return disk }
        return min(min(disk, state.unmapped) + state.reusable, min(disk, log.unmapped) + log.reusable)
    }
}
