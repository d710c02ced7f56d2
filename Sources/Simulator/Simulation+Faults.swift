import FileTree
import NIOCore
import Raft

/// What goes wrong in a run, and when.
extension Simulation {
    func scheduleFault(_ fault: Fault) {
        guard let mean = plan.meanTimes[fault] else { return }
        schedule(.fault(fault), in: random(mean / 4...mean * 2))
    }

    private var leader: Int? { members.firstIndex { $0.core?.role == .leader } }

    func begin(_ fault: Fault) throws {
        let member = Int.random(in: members.indices, using: &generator)
        let length = random(20_000_000...2_000_000_000)
        switch fault {
        case .crash: crash(member, for: length)
        case .powerCut: for member in members.indices { crash(member, for: random(0...500_000_000)) }
        case .failedSync:
            guard syncing[member] != nil else { return }
            crash(member, for: length)
        case .fullDisk:
            guard syncing[member] != nil else { return }
            crash(member, for: length * 2, isFull: true)
        case .pause:
            trace("\(member + 1) stands still")
            pausedUntil[member] = max(pausedUntil[member], time + length)
            schedule(.resume(member), at: pausedUntil[member])
        case .oneWayCut:
            let other = (member + 1 + Int.random(in: 0..<members.count - 1, using: &generator)) % members.count
            trace("\(member + 1) > \(other + 1) is cut")
            isCut[member][other] = true
            schedule(.heal(from: member, to: other), in: length)
        case .isolation: isolate(member, for: length)
        case .isolatedLeader:
            guard let leader else { return }
            isolate(leader, for: length)
        case .transfer:
            guard let leader, pausedUntil[leader] <= time else { return }
            trace("\(leader + 1) is asked to hand over")
            try perform(leader, members[leader].transferLeadership(now: clock(of: leader), &invariants))
        case .slowDisk:
            trace("\(member + 1)'s disk is slow")
            isDiskSlow[member] = true
            schedule(.quickenDisk(member), in: length)
        case .membership: try changeMembership()
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
        case .loss, .duplication, .drift: return
        }
        note(fault)
    }

    private func crash(_ member: Int, for length: Nanoseconds, isFull: Bool = false) {
        guard members[member].isRunning else { return }
        trace("\(member + 1) crashes")
        members[member].crash(isFull: isFull, using: &generator)
        schedule(.restart(member), in: length)
    }

    private func isolate(_ member: Int, for length: Nanoseconds) {
        trace("\(member + 1) is cut off")
        for other in members.indices where other != member {
            isCut[member][other] = true
            isCut[other][member] = true
            schedule(.heal(from: member, to: other), in: length)
            schedule(.heal(from: other, to: member), in: length)
        }
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
        let leaders = members.indices.filter { members[$0].core?.role == .leader && pausedUntil[$0] <= time }
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
