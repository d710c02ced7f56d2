import Driver
import FileTree
import NIOCore
import Raft
import Transport
import WireProtocol

/// Changes of membership, as people ask for them: who comes is looked at first, and who goes is let go in order.
extension Replica {
    /// How long whoever is to come may take to answer.
    private static let probeMax = TimeAmount.seconds(2)

    func listMembers(for waiter: Waiter) {
        guard core.role == .leader else { return refuse(waiter, core.leader == nil ? .noLeader : .notLeader) }
        answer(waiter) { body in
            body.writeInteger(MembershipAnswer.done.rawValue)
            core.configuration.write(to: &body)
        }
    }

    func changeMembership(_ frame: Frame, for waiter: Waiter) {
        guard let requests = MembershipRequest.readAll(from: frame.body), let request = requests.first else {
            return refuse(waiter, .malformed)
        }
        step(.tick)
        guard core.role == .leader else { return refuse(waiter, core.leader == nil ? .noLeader : .notLeader) }
        if requests.count > 1 { return changeTogether(requests, for: waiter) }
        let member = core.configuration.members.first { $0.id == request.id }
        switch request.kind {
        case .add:
            if member != nil { return settle(waiter, .alreadyMember) }
            probe(request.address, for: waiter) { [self] welcome in
                guard welcome.memberID == request.id else { return settle(waiter, .anotherAnswers) }
                guard isFree(welcome) else { return settle(waiter, .belongsElsewhere) }
                change([.addLearner(newcomer(welcome, request.address))], for: waiter)
            }
        case .replace:
            guard let member else { return settle(waiter, .unknownMember) }
            let address = request.address.isEmpty ? member.address : request.address
            probe(address, for: waiter) { [self] welcome in
                guard welcome.memberID == request.id, welcome.incarnation != member.peer.rawValue else {
                    return settle(waiter, .anotherAnswers)
                }
                guard isFree(welcome) else { return settle(waiter, .belongsElsewhere) }
                change([.remove(member.peer), .addLearner(newcomer(welcome, address))], for: waiter)
            }
        case .setAddress:
            guard let member else { return settle(waiter, .unknownMember) }
            probe(request.address, for: waiter) { [self] welcome in
                guard welcome.incarnation == member.peer.rawValue else { return settle(waiter, .anotherAnswers) }
                change([.setAddress(member.peer, request.address)], for: waiter)
            }
        case .promote:
            guard let member else { return settle(waiter, .unknownMember) }
            if !member.isLearner { return settle(waiter, .votesAlready) }
            change([.promote(member.peer)], for: waiter)
        case .remove:
            guard let member else { return settle(waiter, .unknownMember) }
            change([.remove(member.peer)], for: waiter)
        }
    }

    /// Several members vote, or go, in one change.
    private func changeTogether(_ requests: [MembershipRequest], for waiter: Waiter) {
        var changes: [MembershipChange] = []
        for request in requests {
            guard let member = core.configuration.members.first(where: { $0.id == request.id }) else {
                return settle(waiter, .unknownMember)
            }
            if request.kind == .promote, !member.isLearner { return settle(waiter, .votesAlready) }
            changes.append(request.kind == .promote ? .promote(member.peer) : .remove(member.peer))
        }
        change(changes, for: waiter)
    }

    private func newcomer(_ welcome: Welcome, _ address: String) -> Member {
        Member(id: welcome.memberID, peer: PeerID(welcome.incarnation), address: address, isLearner: true)
    }

    /// Whether whoever answered waits to be taken in, or was before and is not recorded any more.
    private func isFree(_ welcome: Welcome) -> Bool {
        welcome.isBootstrapping || welcome.clusterID == clusterID
    }

    /// Asks whoever answers at `address` who that is.
    private func probe(_ address: String, for waiter: Waiter, then use: @escaping (Welcome) -> Void) {
        guard let address = Address(address) else { return settle(waiter, .nobodyAnswers) }
        guard membership.beginProbe() else { return settle(waiter, .underWay) }
        let answer = Once()
        // Held by the end of the time that it has.
        let link = PeerLink(
            to: address, on: loop, hello: { [unowned self] in hello(.control) },
            onWelcome: { [weak self] link, _, welcome in
                guard let self, !isStopped, answer.take() else { return false }
                if UInt16(max(1, welcome.knownVersion)) < lastReport.applied.clusterVersion {
                    settle(waiter, .olderProgram)
                } else {
                    use(welcome)
                }
                scheduleTurn()
                return false
            }, onBreak: { _, _, _ in })
        link.start()
        let this = NIOLoopBound((self, link, answer), eventLoop: loop)
        loop.scheduleTask(in: Self.probeMax) {
            let (replica, link, answer) = this.value
            replica.membership.endProbe()
            link.stop()
            if answer.take(), !replica.isStopped { replica.settle(waiter, .nobodyAnswers) }
        }
    }

    /// Makes the changes once the new majority has answered a heartbeat from now on.
    private func change(_ changes: [MembershipChange], for waiter: Waiter) {
        step(.tick)
        tryChange(
            MembershipQueue.Change(changes: changes, waiter: waiter, round: core.lastRound + 1, since: core.now))
    }

    func retryChanges() {
        for change in membership.takeWaiting() { tryChange(change) }
    }

    private func tryChange(_ change: MembershipQueue.Change) {
        let (changes, waiter) = (change.changes, change.waiter)
        switch core.membershipRefusal(of: changes, heardAfter: change.round) {
        case .unreachableMajority where core.now - change.since < core.limits.electionTimeout:
            membership.wait(change)
        case nil:
            // At the time of the question: in between, this leader could find that it leads no more.
            step(.changeMembership(changes), now: core.now)
            membership.propose(waiter, at: core.log.configurationIndex)
            scheduleTurn()
        case .removesLeader where staying(after: changes) != nil:
            // One that stays leads first; the client asks it then.
            handOver(to: staying(after: changes)) { [weak self] outcome in
                guard let self else { return }
                switch outcome {
                case .done: refuse(waiter, core.leader == nil ? .noLeader : .notLeader)
                case .failed: refuse(waiter, .transferFailed)
                }
            }
        case .notLeader: refuse(waiter, core.leader == nil || core.role == .leader ? .noLeader : .notLeader)
        case let refusal?: settle(waiter, MembershipAnswer(refusal))
        }
    }

    /// The voter that stays and has the longest log.
    private func staying(after changes: [MembershipChange]) -> PeerID? {
        let voters = (try? core.configuration.applying(changes).voters) ?? []
        let able = core.peers.filter {
            voters.contains($0.peer) && core.configuration.isVoter($0.peer)
                && core.now - $0.lastContact < core.limits.electionTimeout
        }
        return able.max { $0.match < $1.match }?.peer
    }

    private func settle(_ waiter: Waiter, _ outcome: MembershipAnswer) {
        answer(waiter) { $0.writeInteger(outcome.rawValue) }
        scheduleTurn()
    }

    /// Answers changes that are committed, and whose joint configuration is left.
    func settleMembership() {
        guard core.role == .leader else { return }
        for waiter in membership.settle(core.log, commit: core.commit) { settle(waiter, .done) }
    }

    // MARK: what follows from a configuration

    /// Connects with who came, and lets go who left. To be called when another configuration is in force.
    func adoptConfiguration() {
        turns.configurationChanges = core.log.configurationChanges
        logger.info(
            "configuration",
            metadata: [
                "members": "\(core.configuration.text)", "index": "\(core.log.configurationIndex)",
                "joint": "\(core.configuration.isJoint)",
            ])
        for peer in peers.linked where !core.configuration.peers.contains(peer) { disconnect(peer) }
        for peer in core.configuration.peers where peer != core.id {
            // Another directory of this member's own id, the one that it lost or that takes its place: neither needs the other.
            guard let member = recorded(peer), member.id != identity.memberID else { continue }
            let old = peers.address(of: peer)
            if old == Address(member.address) { continue }
            if old != nil { stopLinks(to: peer) }
            connect(member)
        }
        server.configurationAdopted()
    }

    /// Whether this member leads, and it is settled that the peer belongs to the cluster no more.
    func hasRemoved(_ peer: PeerID) -> Bool {
        core.role == .leader && core.log.configurationIndex <= core.commit && !core.configuration.peers.contains(peer)
    }

    /// The peer as the configuration records it: of one that a joint configuration lets go, the one before.
    func recorded(_ peer: PeerID) -> Member? {
        let earlier = max(core.log.configurationIndex, 1) - 1
        var member = core.configuration.member(peer) ?? core.log.configuration(at: earlier).member(peer)
        if let known = member { member?.address = options.moved.address(of: known) }
        return member
    }

    /// A leader records where members are that have moved.
    func recordMoves() {
        guard !options.moved.isEmpty, core.role == .leader else { return }
        let change = options.moved.change(for: core.configuration) { [core] peer in
            peer == core.id
                || core.peers.contains {
                    $0.peer == peer && core.now - $0.lastContact < core.limits.electionTimeout
                }
        }
        guard let change, core.membershipRefusal(of: [change]) == nil else { return }
        step(.changeMembership([change]))
        scheduleTurn()
    }

    /// Tells, once, that this member was let go. A newcomer that reads the cluster's past was not in it either.
    func warnIfRemoved() {
        guard core.log.configurationIndex > 0, core.log.configurationIndex <= core.commit else { return }
        if belonging.settled(isMember: core.configuration.peers.contains(core.id)) {
            logger.warning("this member was removed from the cluster; it can be stopped, and its directory deleted")
        }
    }

    /// A member that was let go while it could not hear of it learns it from others.
    func isDisowned(by member: Member, _ reason: String) {
        guard core.leader == nil else { return }
        let reason = ForeignText.plain(reason)
        guard belonging.disowned(by: member.peer, reason, now: core.now) else { return }
        logger.warning(
            "this member seems to be removed from the cluster; if it was, stop it and delete its directory",
            metadata: ["peer": "\(member.id)", "address": "\(member.address)", "reason": "\(reason)"])
    }

    /// What clients are told by a member that nobody leads any more, since it belongs to no cluster; nil of any other.
    var removedGoodbye: Goodbye? {
        guard core.leader == nil, let verdict = belonging.verdict(now: core.now) else { return nil }
        let (how, word): (String, Belonging.Word?) =
            switch verdict {
            case .removed(let word): ("was", word)
            case .seemsRemoved(let word): ("seems to be", word)
            }
        let source = word.map { " (member \(memberID(of: $0.peer)) says: \($0.reason))" } ?? ""
        return Goodbye(
            .unknownIncarnation,
            "member \(identity.memberID) \(how) removed from the cluster; ask the others\(source)")
    }

    /// What the peer is to know last leaves with this turn.
    private func disconnect(_ peer: PeerID) {
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: .milliseconds(200)) {
            let replica = this.value
            if !replica.isStopped, !replica.core.configuration.peers.contains(peer) { replica.stopLinks(to: peer) }
        }
    }

    private func stopLinks(to peer: PeerID) {
        for link in peers.unlink(peer) { link.stop() }
        driver.knows(peer, clusterVersion: nil)
    }

    // MARK: the cluster version

    /// Brings the newest version into force that every member knows.
    func raiseVersionIfPossible() {
        let inForce = lastReport.applied.clusterVersion
        guard health.damage == nil, let version = driver.raiseVersionIfPossible() else { return }
        logger.info("cluster version", metadata: ["from": "\(inForce)", "to": "\(version)"])
        scheduleTurn()
    }
}
