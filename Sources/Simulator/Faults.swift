import Raft

/// What may go wrong in a run, and how often: drawn from the seed, so that some runs are calm in one way and wild in
/// another.
struct FaultPlan {
    /// Of a message between members or with a client, in thousandths.
    var lossPermille: Int
    var duplicationPermille: Int
    /// Nanoseconds; a wide range reorders.
    var delay: ClosedRange<Nanoseconds>
    var diskDelay: ClosedRange<Nanoseconds>
    /// Mean times between faults of a kind, in nanoseconds; nil where the run has none of the kind.
    var meanTimes: [Fault: Nanoseconds]
    /// Parts in a thousand by which a member's clock may run fast or slow.
    var driftPermille: Int
    /// Small ones, in some runs: then messages hold one entry, and entries leave the memory at once.
    var limits = Limits()
    /// How often a new leader is asked for a change of membership at once.
    var changesWithLeaderPermille: Int

    init(using generator: inout SeededGenerator) {
        lossPermille = [0, 0, 10, 50, 200][Int.random(in: 0..<5, using: &generator)]
        duplicationPermille = [0, 0, 20, 100][Int.random(in: 0..<4, using: &generator)]
        let slow = [1, 5, 40, 150][Int.random(in: 0..<4, using: &generator)] as Nanoseconds
        delay = 100_000...slow * 1_000_000
        let sync = [1, 10, 60, 300][Int.random(in: 0..<4, using: &generator)] as Nanoseconds
        diskDelay = 50_000...sync * 1_000_000
        driftPermille = [0, 10, 100][Int.random(in: 0..<3, using: &generator)]
        meanTimes = [:]
        // When too much happens at once nobody leads for long, and little can go wrong.
        let pace = [1, 3, 10][Int.random(in: 0..<3, using: &generator)] as Nanoseconds
        for fault in Fault.allCases where fault.isTimed && Int.random(in: 0..<3, using: &generator) > 0 {
            meanTimes[fault] = Nanoseconds(Int.random(in: 300...3000, using: &generator)) * pace * 1_000_000
        }
        limits.messageBytesMax = [1 << 20, 300, 50][Int.random(in: 0..<3, using: &generator)]
        limits.messagesInFlightMax = [128, 4, 1][Int.random(in: 0..<3, using: &generator)]
        limits.windowBytesMax = [8 << 20, 2000, 200][Int.random(in: 0..<3, using: &generator)]
        changesWithLeaderPermille = [0, 100, 500][Int.random(in: 0..<3, using: &generator)]
    }

    /// Leaves out kinds of faults, as the shrinking of a failing run tries.
    mutating func leaveOut(_ kinds: Set<Fault>) {
        for kind in kinds { meanTimes[kind] = nil }
        if kinds.contains(.loss) { lossPermille = 0 }
        if kinds.contains(.duplication) { duplicationPermille = 0 }
        if kinds.contains(.drift) { driftPermille = 0 }
        if kinds.contains(.membership) { changesWithLeaderPermille = 0 }
    }
}

/// A kind of fault that begins at some moment.
package enum Fault: String, CaseIterable, Sendable {
    /// One member's process ends, and loses what its disk had not finished.
    case crash
    /// All of them at once.
    case powerCut = "power-cut"
    /// The process stands still, and its clock goes on.
    case pause
    /// One direction between two members is cut.
    case oneWayCut = "one-way-cut"
    /// The members fall into two groups that don't hear each other.
    case partition
    /// What one member sends another takes twenty times as long.
    case slowLink = "slow-link"
    /// A member is cut off from all others.
    case isolation
    /// Whoever leads is cut off.
    case isolatedLeader = "isolated-leader"
    /// Two members lead in turn, each heard by others than the one before: what the first wrote is overwritten, and comes back.
    case alternatingLeaders = "alternating-leaders"
    /// A member's disk takes twenty times as long.
    case slowDisk = "slow-disk"
    /// A member's disk has no room: its process ends, and nothing of what was under way is there.
    case fullDisk = "full-disk"
    /// A sync fails: nobody knows what reached the disk, and the process ends.
    case failedSync = "failed-sync"
    /// A bit of the log flips on a disk, or one of a snapshot on its way.
    case flippedBit = "flipped-bit"
    /// A voter's disk is lost for good, and the member is replaced by one with another directory.
    case wipe
    /// No faults, but changes at a bad moment: the leader is asked to hand over, or members come, go, and vote.
    case transfer
    case membership
    /// Kinds that do not begin at a moment: messages are lost or come twice, clocks run fast or slow.
    case loss, duplication, drift

    /// Whether it begins at a moment.
    var isTimed: Bool { ![.loss, .duplication, .drift].contains(self) }
}
