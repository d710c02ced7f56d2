import Driver
import Raft

/// Changes of membership on their way: addresses that are asked who is there, changes whose new majority is asked whether it
/// is there, and those that wait to be committed.
struct MembershipQueue {
    struct Change {
        var changes: [MembershipChange]
        var waiter: Waiter
        /// The round of heartbeats that the new majority must have answered: one that died a moment ago must not count as
        /// there.
        var round: UInt64
        var since: Nanoseconds
    }

    /// So many addresses are asked at once at most: nobody makes a leader connect everywhere.
    static let probesMax = 4

    private var probes = 0
    private var asking: [Change] = []
    private var proposed: [(index: Index, waiter: Waiter)] = []

    /// False: too many are being asked already.
    mutating func beginProbe() -> Bool {
        guard probes < Self.probesMax else { return false }
        probes += 1
        return true
    }

    mutating func endProbe() {
        precondition(probes > 0, "an address is no longer asked that never was: the bound would not hold")
        probes -= 1
    }

    /// The new majority did not answer yet: it is looked at again.
    mutating func wait(_ change: Change) { asking.append(change) }

    /// Those that are to be tried again now.
    mutating func takeWaiting() -> [Change] {
        defer { asking = [] }
        return asking
    }

    /// The entry of this index makes the change.
    mutating func propose(_ waiter: Waiter, at index: Index) { proposed.append((index, waiter)) }

    /// Those whose change is committed, its joint configuration left.
    mutating func settle(_ log: LogView, commit: Index) -> [Waiter] {
        guard !proposed.isEmpty, !log.configuration.isJoint, log.configurationIndex <= commit else { return [] }
        let settled = proposed.filter { $0.index <= commit }.map(\.waiter)
        proposed.removeAll { $0.index <= commit }
        return settled
    }

    /// Those of which nobody knows: this member leads no more, or ends.
    mutating func abandon() -> [Waiter] {
        defer { proposed = [] }
        return proposed.map(\.waiter)
    }
}

/// Something that happens once, whoever comes first.
final class Once {
    private var isTaken = false

    func take() -> Bool {
        defer { isTaken = true }
        return !isTaken
    }
}
