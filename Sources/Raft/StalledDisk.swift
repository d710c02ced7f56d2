/// A leader whose disk stands still while its network does not: its followers hear it and elect nobody, its clients wait.
/// So it hands over, as to a reboot, to a voter whose disk works. The paper knows processes that fail and not disks; to
/// clients it is the same.
struct DiskPace: Sendable {
    /// How often in a row this member gave way for its disk; each time it waits twice as long before.
    private(set) var handOvers = 0
    private(set) var gaveWayAt: Nanoseconds = 0
    /// It gave way, and no write of its own was quick since.
    private(set) var isDoubtful = false

    /// So long without giving way makes good for it.
    private static let forgottenAfter: Nanoseconds = 600_000_000_000
    private static let doublingsMax = 6

    mutating func completed(in time: Nanoseconds, _ limits: Limits) {
        if time < limits.writeQuickWithin { isDoubtful = false }
    }

    mutating func gaveWay(at now: Nanoseconds) {
        handOvers = now - gaveWayAt > Self.forgottenAfter ? 1 : handOvers + 1
        gaveWayAt = now
        isDoubtful = true
    }

    /// How long a write may be under way before this member gives way.
    func patience(at now: Nanoseconds, _ limits: Limits) -> Nanoseconds {
        let isForgotten = now - gaveWayAt > Self.forgottenAfter
        return limits.writeLateAfter << UInt64(isForgotten ? 0 : min(handOvers, Self.doublingsMax))
    }
}

extension RaftCore {
    /// When what this member's disk has worked on the longest began, or nil when everything is saved.
    package var oldestWriteBegan: Nanoseconds? { pendingWrites.first?.began }

    /// When this member last gave its lead away since its disk stood still; 0: never.
    package var gaveWayAt: Nanoseconds { disk.gaveWayAt }

    /// Until a write of its own was quick, a member that gave way, or whose disk stands still just now, is no target of a
    /// hand-over, and campaigns later than others would. Never not at all: its log may be the only one that can win.
    var isDiskDoubtful: Bool { disk.isDoubtful || isDiskSlow }

    /// Whether a write is under way that is not quick any more.
    var isDiskSlow: Bool {
        oldestWriteBegan.map { now - $0 >= limits.writeQuickWithin } ?? false
    }

    /// Whether the voter can lead in place of this member while that one's disk stands still: it holds all that is
    /// committed, and its disk has worked since. What it lacks beyond that was promised to nobody.
    func canStandIn(_ peer: Progress) -> Bool {
        guard isDiskSlow, let began = oldestWriteBegan else { return false }
        return configuration.isVoter(peer.peer) && peer.match >= commit && peer.acknowledgedSendAt >= began
    }

    /// Hands over when this leader's own write is late and others can do without it; else it stays.
    mutating func giveWayIfDiskStalls() {
        guard transfer == nil, let began = oldestWriteBegan, now - began >= disk.patience(at: now, limits) else {
            return
        }
        let able = peers.filter { canStandIn($0) && now - $0.lastContact < limits.electionTimeout }
        guard configuration.isQuorum({ peer in able.contains { $0.peer == peer } }),
            let target = able.max(by: { $0.match < $1.match })?.peer
        else { return }
        disk.gaveWay(at: now)
        transfer = Transfer(target: target, deadline: now + limits.electionTimeout)
    }
}
