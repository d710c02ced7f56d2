import FileTree
import NIOCore
import Raft

/// What goes wrong in a run, and when.
extension Simulation {
    func scheduleFault(_ fault: Fault) {
        guard let mean = plan.meanTimes[fault] else { return }
        schedule(.fault(fault), in: random(mean / 4...mean * 2))
    }

    var leader: Int? { members.firstIndex { $0.role == .leader } }

    func begin(_ fault: Fault) throws {
        let member = Int.random(in: members.indices, using: &generator)
        let length = random(20_000_000...2_000_000_000)
        switch fault {
        case .crash: crash(member, for: length)
        case .powerCut: for member in members.indices { crash(member, for: random(0...500_000_000)) }
        case .unlinking: try unlink()
        case .failedSync:
            guard syncing[member] != nil else { return }
            crash(member, for: length)
        case .fullDisk:
            guard syncing[member] != nil else { return }
            crash(member, for: length * 2, isFull: true)
        case .alternatingLeaders:
            guard try alternate() else { return }
        case .pause:
            // A leader that stood still believes that it leads.
            let isLeader = Int.random(in: 0..<2, using: &generator) == 0
            let member = isLeader ? leader ?? member : member
            let length = isLeader ? length + 500_000_000 : length
            trace("\(member + 1) stands still")
            pausedUntil[member] = max(pausedUntil[member], time + length)
            schedule(.resume(member), at: pausedUntil[member])
        case .oneWayCut:
            let other = (member + 1 + Int.random(in: 0..<members.count - 1, using: &generator)) % members.count
            trace("\(member + 1) > \(other + 1) is cut")
            isCut[member][other] = true
            schedule(.heal(from: member, to: other), in: length)
        case .slowLink:
            let other = (member + 1 + Int.random(in: 0..<members.count - 1, using: &generator)) % members.count
            trace("\(member + 1) > \(other + 1) is slow")
            isLinkSlow[member][other] = true
            schedule(.heal(from: member, to: other), in: length)
        case .partition:
            let group = members.indices.filter { _ in Int.random(in: 0..<2, using: &generator) == 0 }
            trace("\(group.map { $0 + 1 }) are cut off from the others")
            for inside in group {
                for outside in members.indices where !group.contains(outside) {
                    for (from, to) in [(inside, outside), (outside, inside)] {
                        isCut[from][to] = true
                        schedule(.heal(from: from, to: to), in: length)
                    }
                }
            }
        case .isolation: isolate(member, for: length)
        case .isolatedLeader:
            guard let leader else { return }
            isolate(leader, for: length)
            // What it wrote on another may still be on its way to the disk when the next leader writes.
            if Int.random(in: 0..<3, using: &generator) == 0 {
                isDiskSlow[member] = true
                schedule(.quickenDisk(member), in: length * 2)
            }
        case .transfer:
            guard let leader, pausedUntil[leader] <= time else { return }
            trace("\(leader + 1) is asked to hand over")
            try perform(leader, members[leader].transferLeadership(now: clock(of: leader), &invariants))
        case .slowDisk:
            trace("\(member + 1)'s disk is slow")
            isDiskSlow[member] = true
            schedule(.quickenDisk(member), in: length)
        case .stalledDisk:
            // Often the leader's, which goes on leading for want of a write; or several that are one in truth.
            let isLeader = Int.random(in: 0..<2, using: &generator) == 0
            let count = [1, 1, 1, 2, members.count][Int.random(in: 0..<5, using: &generator)]
            for offset in 0..<min(count, members.count) {
                stallDisk(((isLeader ? leader ?? member : member) + offset) % members.count, for: length * 3)
            }
        case .membership: try changeMembership()
        case .restore: try restore()
        case .wipe:
            guard mayLose(member) else { return }
            trace("\(member + 1) loses its disk")
            wipe(member, for: length)
        case .flippedBit:
            guard mayLose(member), let entry = members[member].disk.entries.randomElement(using: &generator) else {
                return
            }
            trace("a bit flips in entry \(entry.header.index) of \(member + 1)")
            members[member].disk.damage(entry.header.index)
        case .loss, .duplication, .drift, .narrowLinks: return
        }
        note(fault)
    }

    func crash(_ member: Int, for length: Nanoseconds, isFull: Bool = false) {
        guard members[member].isRunning else { return }
        trace("\(member + 1) crashes")
        members[member].crash(isFull: isFull, using: &generator)
        diskStallsUntil[member] = time
        schedule(.restart(member), in: length)
    }

    func stallDisk(_ member: Int, for length: Nanoseconds) {
        trace("\(member + 1)'s disk stands still")
        diskStallsUntil[member] = max(diskStallsUntil[member], time + length)
    }

    func isolate(_ member: Int, for length: Nanoseconds) {
        trace("\(member + 1) is cut off")
        for other in members.indices where other != member {
            isCut[member][other] = true
            isCut[other][member] = true
            schedule(.heal(from: member, to: other), in: length)
            schedule(.heal(from: other, to: member), in: length)
        }
    }

    // MARK: alternating leaders

    /// How far it has come that a first leader is cut off, a second one leads without it, and the first leads again.
    struct Alternation {
        enum Stage { case waitForSecond, secondLeads(since: Nanoseconds), firstLeadsAgain }
        var first: Int
        /// The only one that hears the second leader, and with five voters the first one's too.
        var witness: Int
        var voters: [Int]
        var term: Term
        /// What the first leader had committed.
        var commit: Index
        /// Nobody hears the second leader, as in figure 8 of the paper.
        var isSecondUnheard: Bool
        var deadline: Nanoseconds
        var stage = Stage.waitForSecond
        var second = 0
    }

    private func alternate() throws -> Bool {
        guard let first = leader, let core = members[first].core, !core.configuration.isJoint else { return false }
        let voters = core.configuration.voters.map { position(of: $0) }
        guard (4...5).contains(voters.count), voters.allSatisfy({ members[$0].isRunning }),
            let witness = voters.filter({ $0 != first }).randomElement(using: &generator)
        else { return false }
        trace("\(first + 1) is to be overwritten, and to come back")
        isolate(first, for: 4_000_000_000)
        if voters.count == 5 {
            connect(first, witness)
            isDiskSlow[witness] = true
            schedule(.quickenDisk(witness), in: 4_000_000_000)
        }
        // Of four voters, each leader lets another one go: then their majorities need not meet.
        if voters.count == 4 { try change(first, [.remove(members[witness].id)]) }
        let alternation = Alternation(
            first: first, witness: witness, voters: voters, term: core.term, commit: core.commit,
            isSecondUnheard: voters.count == 5 && Int.random(in: 0..<2, using: &generator) == 0,
            deadline: time + 4_000_000_000)
        schedule(.alternate(alternation), in: 1_000_000)
        return true
    }

    func go(on alternation: Alternation) throws {
        guard !isCalm, time < alternation.deadline else { return }
        var next = alternation
        switch alternation.stage {
        case .waitForSecond:
            let isNew = { (member: Int) in
                self.members[member].core.map { $0.role == .leader && $0.term > alternation.term } ?? false
            }
            guard let second = alternation.voters.first(where: isNew) else { break }
            guard second != alternation.witness else { return }
            // Before anything of its term reaches another than the witness.
            isolate(second, for: 4_000_000_000)
            if !alternation.isSecondUnheard { connect(second, alternation.witness) }
            next.second = second
            next.stage = .secondLeads(since: time)
            if alternation.voters.count == 4 { try change(second, [.remove(members[alternation.first].id)]) }
        case .secondLeads(let since):
            let heard =
                members[alternation.witness].core?.log.lastTerm == members[alternation.second].core?.log.lastTerm
            guard heard || alternation.isSecondUnheard, alternation.voters.count == 5 || time - since > 300_000_000
            else { break }
            isolate(alternation.second, for: 3_000_000_000)
            for other in alternation.voters where other != alternation.second {
                if alternation.voters.count == 5 || other != alternation.witness { connect(alternation.first, other) }
            }
            if alternation.voters.count == 4 { isolate(alternation.witness, for: 3_000_000_000) }
            guard alternation.isSecondUnheard else { return }
            trace("\(alternation.second + 1) led, and is cut off with what it wrote")
            next.stage = .firstLeadsAgain
        case .firstLeadsAgain:
            // Were its old entry committed before one of its new term, this would be the moment to lose it.
            let others = alternation.voters.filter { $0 != alternation.second }
            let third = others.first { other in
                guard let core = members[other].core, core.role == .leader, core.term > alternation.term + 1 else {
                    return false
                }
                return core.commit > alternation.commit && core.log.term(at: core.commit) != core.term
            }
            guard let third else { break }
            trace("\(third + 1) committed an entry of an earlier term by counting")
            isolate(third, for: 2_000_000_000)
            crash(third, for: 2_000_000_000)
            for other in others where other != third { connect(alternation.second, other) }
            return
        }
        schedule(.alternate(next), in: 1_000_000)
    }

    private func connect(_ member: Int, _ other: Int) {
        isCut[member][other] = false
        isCut[other][member] = false
    }

    private func change(_ leader: Int, _ changes: [MembershipChange]) throws {
        let (refusal, requests) = try members[leader].change(changes, now: clock(of: leader), &invariants)
        trace("\(leader + 1) is asked for \(changes): \(refusal.map { "\($0)" } ?? "done")")
        try perform(leader, requests)
    }

    // MARK: lost disks

    /// Whether all that is committed is whole on a majority that can come back, without this voter: more than that nobody
    /// survives, and a violation would say nothing.
    private func mayLose(_ member: Int) -> Bool {
        let present = members.filter { !$0.isLost }
        let configurations = present.compactMap { $0.core?.configuration }
        guard configurations.count == present.count, let configuration = configurations.first,
            configurations.allSatisfy({ $0 == configuration }), !configuration.isJoint,
            configuration.voters.count >= 3, configuration.voters.contains(members[member].id)
        else { return false }
        return configuration.voters.allSatisfy { voter in
            !members[position(of: voter)].isLost && members[position(of: voter)].disk.damaged.isEmpty
        }
    }

    private func wipe(_ member: Int, for length: Nanoseconds) {
        guard mutant == .wipedVoter else { return members[member].lose() }
        members[member].crash(using: &generator)
        members[member].forget(SimulatedDisk(genesis: genesis, configuration))
        schedule(.restart(member), in: length / 10)
    }

    // MARK: membership

    private static let votersMax = 5

    /// Asks a member that believes to lead for some change.
    func changeMembership() throws {
        let leaders = members.indices.filter { members[$0].role == .leader && pausedUntil[$0] <= time }
        guard let leader = leaders.randomElement(using: &generator) else { return }
        try changeMembership(by: leader)
    }

    func changeMembership(by leader: Int) throws {
        guard let configuration = members[leader].core?.configuration else { return }
        let learners = configuration.members.filter(\.isLearner).map(\.peer)
        let voters = configuration.voters
        var changes: [MembershipChange] = []
        if let lost = configuration.members.map(\.peer).first(where: { members[position(of: $0)].isLost }) {
            changes.append(.remove(lost))
        }
        switch Int.random(in: 0..<5, using: &generator) {
        case 0, 1:
            if learners.count < 2, voters.count < Self.votersMax, members.count < founders + 8 {
                changes.append(.addLearner(newcomer(in: configuration)))
            } else if voters.count < Self.votersMax {
                changes += learners.map { .promote($0) }
            }
        case 2: changes += learners.prefix(Self.votersMax - min(Self.votersMax, voters.count)).map { .promote($0) }
        case 3:
            let able = voters.filter { $0 != members[leader].id }
            // With a voter whose disk is lost, or will be found to be, nobody else may go.
            let isSound = voters.allSatisfy {
                !members[position(of: $0)].isLost && members[position(of: $0)].disk.damaged.isEmpty
            }
            if isSound, voters.count > 2, let voter = able.randomElement(using: &generator), changes.isEmpty {
                changes.append(.remove(voter))
                if let learner = learners.first { changes.append(.promote(learner)) }
            }
        default:
            if let member = configuration.members.randomElement(using: &generator), changes.isEmpty {
                changes.append(.setAddress(member.peer, "\(member.id) at \(time)"))
            }
        }
        guard !changes.isEmpty else { return }
        let (refusal, requests) = try members[leader].change(changes, now: clock(of: leader), &invariants)
        trace("\(leader + 1) is asked for \(changes): \(refusal.map { "\($0)" } ?? "done")")
        switch refusal {
        case nil:
            // The worst moment: nobody else has heard of it.
            if plan.meanTimes[.isolatedLeader] != nil, Int.random(in: 0..<3, using: &generator) == 0 {
                isolate(leader, for: random(300_000_000...2_000_000_000))
            }
            for case .remove(let peer) in changes where members[position(of: peer)].isLost { note(.replaced) }
        case .notReady: note(.changeNotReady)
        case .underWay: note(.changeUnderWay)
        case .notCaughtUp: note(.notCaughtUp)
        case .unreachableMajority: note(.unreachableMajority)
        default: break
        }
        try perform(leader, requests)
    }

    /// A member with an empty disk that waits to be taken in.
    private func newcomer(in configuration: Configuration) -> Member {
        let position = members.count
        let member = Member(id: UInt64(position + 1), peer: PeerID(UInt64(position + 1)), address: "\(position + 1)")
        add(SimulatedDisk(joining: configuration))
        schedule(.restart(position), in: random(1_000_000...500_000_000))
        return member
    }
}
