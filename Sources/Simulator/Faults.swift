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
    /// Links are like connections: what a member sends another arrives in order, and entries take turns at so many bytes a
    /// second. Nil where each message goes its own way, at any pace.
    var bandwidth: UInt64?

    /// - Parameter later: a source for the kinds that came later, so that older seeds keep their course without them.
    init(using generator: inout SeededGenerator, later: inout SeededGenerator) {
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
        for fault in Fault.allCases where fault.isTimed && fault != .unlinking {
            var source = fault.cameLater ? later : generator
            if Int.random(in: 0..<3, using: &source) > 0 {
                meanTimes[fault] = Nanoseconds(Int.random(in: 300...3000, using: &source)) * pace * 1_000_000
            }
            if fault.cameLater { later = source } else { generator = source }
        }
        limits.messageBytesMax = [1 << 20, 300, 50][Int.random(in: 0..<3, using: &generator)]
        limits.messagesInFlightMax = [128, 4, 1][Int.random(in: 0..<3, using: &generator)]
        limits.windowBytesMax = [8 << 20, 2000, 200][Int.random(in: 0..<3, using: &generator)]
        changesWithLeaderPermille = [0, 100, 500][Int.random(in: 0..<3, using: &generator)]
        bandwidth = [nil, nil, 5_000, 20_000, 1_000_000][Int.random(in: 0..<5, using: &later)]
        if Int.random(in: 0..<3, using: &later) > 0 {
            meanTimes[.unlinking] = Nanoseconds(Int.random(in: 100...3000, using: &later)) * 1_000_000
        }
    }

    /// Without chance: nothing is lost, and nothing happens but what the scenario says.
    init(_ scenario: Scenario) {
        (lossPermille, duplicationPermille, driftPermille, changesWithLeaderPermille) = (0, 0, 0, 0)
        meanTimes = [:]
        (delay, diskDelay, bandwidth) = (scenario.delay, scenario.diskDelay, scenario.bandwidth)
        limits = scenario.limits
    }

    /// Leaves out kinds of faults, as the shrinking of a failing run tries.
    mutating func leaveOut(_ kinds: Set<Fault>) {
        for kind in kinds { meanTimes[kind] = nil }
        if kinds.contains(.loss) { lossPermille = 0 }
        if kinds.contains(.duplication) { duplicationPermille = 0 }
        if kinds.contains(.drift) { driftPermille = 0 }
        if kinds.contains(.membership) { changesWithLeaderPermille = 0 }
        if kinds.contains(.narrowLinks) { bandwidth = nil }
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
    /// A member's disk completes nothing for a while, or two members' disks, or all; the processes and their network go on.
    case stalledDisk = "stalled-disk"
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
    /// Somebody begins a new cluster with a backup of this one, while this one goes on.
    case restore
    /// A directory goes with all that is in it, and its rows are left for the leader to reclaim.
    case unlinking
    /// Kinds that do not begin at a moment: messages are lost or come twice, clocks run fast or slow, links carry few bytes
    /// a second.
    case loss, duplication, drift
    case narrowLinks = "narrow-links"

    /// Whether it begins at a moment.
    var isTimed: Bool { ![.loss, .duplication, .drift, .narrowLinks].contains(self) }

    /// Whether it was added when there were seeds to keep.
    fileprivate var cameLater: Bool { self == .stalledDisk || self == .restore }
}
