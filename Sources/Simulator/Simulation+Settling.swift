import FileTree
import HeapModule
import Histories
import NIOCore
import Raft
import WireProtocol

/// The second phase: the faults stop, and the cluster must serve, and agree.
extension Simulation {
    /// Faults stop around a majority, which must serve writes; then they stop for all, who must agree. Each within
    /// simulated time.
    func settle() throws {
        endFaults()
        // Those that stay away are a minority of each configuration that a log holds, and no disk of theirs is needed.
        var away =
            Int.random(in: 0..<2, using: &generator) == 0 ? members.firstIndex { !$0.isRunning && !$0.isLost } : nil
        if let absent = away, !canDoWithout(absent) { away = nil }
        for member in members.indices { try recover(member, starts: member != away) }
        // Instead of a process the disk of one may fail them, the leader's for choice: it stands still till the others serve.
        if away == nil, plan.meanTimes[.stalledDisk] != nil, let stalled = stallOneDisk() {
            trace("but \(stalled + 1)'s disk stands still")
        }
        let acknowledged = history.count { $0.outcome == .done }
        try run(for: 30_000_000_000, "progress after the faults", "no write was acknowledged within 30 s") {
            history.count { $0.outcome == .done } > acknowledged + 3
        }
        for member in members.indices { endStall(of: member) }
        isOver = true
        if let away, !members[away].isRunning { try start(away) }
        try run(for: 30_000_000_000, "agreement after the faults", "the members did not reach the same state in 30 s") {
            let present = self.present
            guard !present.isEmpty, let index = present.first?.executed else { return false }
            return clients.allSatisfy { $0.request == nil }
                && present.allSatisfy { $0.executed == index && $0.core?.log.lastIndex == index && $0.orphans == 0 }
        }
        guard Set(present.map { $0.digest?.description ?? "" }).count == 1 else {
            throw Invariants.Violation(invariant: "agreement after the faults", detail: "digests differ at the end")
        }
    }

    /// Stalls the disk of a member that the others can do without.
    private func stallOneDisk() -> Int? {
        let candidates = [leader, 0].compactMap { $0 }
        let dispensable = candidates.first { !members[$0].isLost && canDoWithout($0) }
        if let dispensable { stallDisk(dispensable, for: 60_000_000_000) }
        return dispensable
    }

    /// Whether the others are a majority of each configuration that a log holds, on a disk or on the way there. Whose disk
    /// is damaged does not count, be it that nobody has met the damage yet.
    ///
    /// While a change of membership is under way, somebody may have to vote who does not know yet that it does, and holds more
    /// than those who know: then nobody could win before the member is back.
    private func canDoWithout(_ member: Int) -> Bool {
        let committed = members.compactMap { $0.core?.commit }.max() ?? 0
        guard members.allSatisfy({ $0.core.map { $0.log.configurationIndex <= committed } ?? true }) else {
            return false
        }
        let known = members.flatMap { each in
            each.disk.configurations.map(\.configuration) + [each.core?.configuration].compactMap { $0 }
        }
        return known.allSatisfy { configuration in
            configuration.isQuorum { peer in
                guard peer != members[member].id else { return false }
                return members.first { $0.id == peer }.map { !$0.isLost && $0.disk.damaged.isEmpty } ?? false
            }
        }
    }

    private func endStall(of member: Int) {
        diskStallsUntil[member] = time
        schedule(.resumeDisk(member), in: 0)
    }

    func endFaults() {
        isCalm = true
        trace("all faults end")
        plan.delay = 100_000...2_000_000
        plan.diskDelay = 50_000...2_000_000
        if plan.bandwidth != nil { plan.bandwidth = 1 << 40 }
    }

    /// Ends what one member suffers from.
    func recover(_ member: Int, starts: Bool) throws {
        pausedUntil[member] = time
        try resume(member)
        isDiskSlow[member] = false
        endStall(of: member)
        for other in members.indices {
            (isCut[member][other], isLinkSlow[member][other]) = (false, false)
            turnsUntil[member][other] = time
        }
        if members[member].canStart, starts { try start(member) }
    }

    /// The members of the newest leader's configuration that can take part.
    var present: [SimulatedMember] {
        let leaders = members.filter { $0.role == .leader }
        guard let configuration = leaders.max(by: { $0.term ?? 0 < $1.term ?? 0 })?.core?.configuration
        else {
            return []
        }
        return members.filter { !$0.isLost && configuration.peers.contains($0.id) }
    }
}
