/// One step of a change of membership; several may come together, and then take effect together.
package enum MembershipChange: Equatable, Sendable {
    /// A new member, which receives the log and does not vote yet.
    case addLearner(Member)
    /// The learner, which has caught up, votes from now on.
    case promote(PeerID)
    case remove(PeerID)
    case setAddress(PeerID, String)
}

/// Why a change of membership can't be made now. Each proves that nothing was changed.
package enum MembershipRefusal: Error, Equatable, Sendable {
    /// This member does not lead, or is about to hand over.
    case notLeader
    /// The leader has committed nothing in its term yet: it can't know whether an earlier change was committed (the flaw
    /// of the single-server algorithm that Ongaro reported in 2015).
    case notReady
    /// An earlier change is not committed yet, or the joint configuration is not left.
    case underWay
    /// The id, the directory or the address belongs to a member already.
    case alreadyMember
    case unknownMember
    /// A learner that lacks more than a message of the log can't vote: nothing could be committed until it has it.
    case notCaughtUp
    /// Without a voter there is no cluster.
    case lastVoter
    /// The leader can't remove itself: it hands over first.
    case removesLeader
    /// Of the new voters, no majority is heard now.
    case unreachableMajority
    /// A cluster has at most `Configuration.membersMax` members.
    case tooManyMembers
}

extension Configuration {
    /// The configuration with the changes, not joint.
    package func applying(_ changes: [MembershipChange]) throws(MembershipRefusal) -> Configuration {
        var members = members
        for change in changes {
            switch change {
            case .addLearner(var member):
                let isTaken = members.contains {
                    $0.id == member.id || $0.peer == member.peer || $0.address == member.address
                }
                if isTaken || outgoingVoters.contains(member.peer) { throw .alreadyMember }
                member.isLearner = true
                members.append(member)
            case .promote(let peer):
                guard let position = members.firstIndex(where: { $0.peer == peer }) else { throw .unknownMember }
                members[position].isLearner = false
            case .remove(let peer):
                guard let position = members.firstIndex(where: { $0.peer == peer }) else { throw .unknownMember }
                members.remove(at: position)
            case .setAddress(let peer, let address):
                guard let position = members.firstIndex(where: { $0.peer == peer }) else { throw .unknownMember }
                if members.contains(where: { $0.address == address && $0.peer != peer }) { throw .alreadyMember }
                members[position].address = address
            }
        }
        let changed = Configuration(clusterID: clusterID, members: members)
        if changed.voters.isEmpty { throw .lastVoter }
        if changed.members.count > Self.membersMax { throw .tooManyMembers }
        return changed
    }
}

/// Changes of membership: section 6 of the paper, chapter 4 of the thesis.
///
/// A configuration is in force as soon as it stands in the log, committed or not, and is undone with it. If more than one
/// voter comes or goes, the members first agree on a joint configuration, in which the majorities of both must agree; the
/// leader leaves it by itself once it is committed.
extension RaftCore {
    /// Why these changes can't be made now, or nil.
    ///
    /// - Parameter round: whoever is to count as heard must have answered a later round of heartbeats; whoever died since
    ///   then can't have.
    package func membershipRefusal(of changes: [MembershipChange], heardAfter round: UInt64 = 0) -> MembershipRefusal? {
        guard role == .leader, transfer == nil else { return .notLeader }
        if !hasCommittedInTerm, mutant != .changeBeforeNoOperation { return .notReady }
        if log.configurationIndex > commit || configuration.isJoint { return .underWay }
        let changed: Configuration
        do { changed = try configuration.applying(changes) } catch { return error }
        guard changed.voters.contains(id) else { return .removesLeader }
        for voter in changed.voters where !configuration.isVoter(voter) {
            guard let progress = progress(of: voter), isCaughtUp(progress) else { return .notCaughtUp }
        }
        let isReached = changed.isQuorum { peer in
            guard let progress = progress(of: peer) else { return peer == id }
            return now - progress.lastContact < limits.electionTimeout && progress.round >= round
        }
        return isReached ? nil : .unreachableMajority
    }

    /// Less than one message behind.
    private func isCaughtUp(_ peer: Progress) -> Bool {
        peer.state == .replicate && peer.match + 1 >= log.windowFirst
            && log.bytes(in: peer.match + 1..<log.lastIndex + 1) <= limits.messageBytesMax
    }

    mutating func changeMembership(_ changes: [MembershipChange]) {
        guard membershipRefusal(of: changes) == nil, let changed = try? configuration.applying(changes) else { return }
        let old = configuration.voters
        let moved = changed.voters.count { !old.contains($0) } + old.count { !changed.voters.contains($0) }
        // Any majority of the old voters meets any of the new ones when only one comes or goes.
        adopt(
            moved <= 1
                ? changed
                : Configuration(clusterID: changed.clusterID, members: changed.members, outgoingVoters: old))
    }

    /// Appends a configuration of this leader's own; it is in force at once.
    private mutating func adopt(_ configuration: Configuration) {
        lease.restart()
        appendOwn(kind: .configuration, size: ownEntrySize(configuration))
        log.append(IndexedConfiguration(index: log.lastIndex, configuration: configuration))
        // Those who go do not get the entry: a longer log with them alone could win no election, and let no other win.
        noteConfiguration()
        broadcastAppend()
    }

    /// Brings what depends on the configuration in line with the one that is in force now.
    mutating func noteConfiguration() {
        switch role {
        case .leader:
            let known = peers
            peers = configuration.peers.filter { $0 != id }.map { peer in
                known.first { $0.peer == peer } ?? Progress(peer: peer, next: log.lastIndex + 1, now: now)
            }
        case .follower, .learner: role = configuration.isVoter(id) ? .follower : .learner
        case .preCandidate, .candidate: break
        }
    }

    /// Once a joint configuration is committed, its leader leaves it; once one without this leader is, another leads.
    mutating func continueMembershipChange() {
        guard role == .leader, hasCommittedInTerm, log.configurationIndex <= commit else { return }
        if configuration.isJoint {
            adopt(Configuration(clusterID: configuration.clusterID, members: configuration.members))
        } else if !configuration.isVoter(id) {
            let able = peers.filter { configuration.isVoter($0.peer) && $0.match == log.lastIndex }
            if let next = able.first { send(.timeoutNow, to: next.peer) }
            becomeFollower(term: term, leader: nil)
        }
    }
}
