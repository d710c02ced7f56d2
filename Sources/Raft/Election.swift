/// Leader election: section 5.2 and 5.4.1 of the paper, with pre-vote (section 9.6 of the thesis) and check-quorum
/// (section 6.2), both always on.
extension RaftCore {
    /// Whether this member may stand for election.
    ///
    /// One that an uncommitted configuration lets go may have to: its log could be the only one that can win (section 4.2.2
    /// of the thesis).
    var isPromotable: Bool {
        guard installing == nil else { return false }
        return configuration.isVoter(id)
            || (log.configurationIndex > commit && log.configuration(at: commit).isVoter(id))
    }

    mutating func tick() {
        expireForwardedReads()
        if role == .leader {
            expireTransfer()
            giveWayIfDiskStalls()
            if now >= heartbeatDeadline { broadcastHeartbeat() }
        } else if now >= electionDeadline {
            if isPromotable { becomePreCandidate() } else { resetElectionTimer() }
        }
    }

    /// A timeout drawn anew each time, between one and two election timeouts, splits votes rarely (section 5.2).
    ///
    /// The timer is set anew when this member hears its term's leader (`heardLeader`), gives its vote away (`handleVote`), asks
    /// for votes itself (`becomePreCandidate`, `becomeCandidate`), or falls back to being a follower (`becomeFollower`, which a
    /// newer term leads to); and when it was due, and this member may not stand. A vote that it refuses changes nothing: else
    /// one that can't win could keep those who can from trying.
    mutating func resetElectionTimer() {
        let timeout = limits.electionTimeout
        let patience = isDiskDoubtful ? 2 * timeout : 0
        electionDeadline = now + timeout + patience + UInt64.random(in: 0..<timeout, using: &generator)
    }

    // MARK: roles

    mutating func becomeFollower(term newTerm: Term, leader newLeader: PeerID?) {
        precondition(newTerm >= term, "terms never fall")
        if newTerm > term {
            if newTerm - term > Limits.termStepMax, term > 0 { steppedAt = now }
            term = newTerm
            vote = nil
            confirmedIndex = 0
            leaderEnd = 0
            contradictedFrom = nil
        }
        refuseReads()
        role = configuration.isVoter(id) ? .follower : .learner
        leader = newLeader
        peers = []
        transfer = nil
        uncommittedBytes = 0
        resetElectionTimer()
    }

    /// Asks whether an election could be won, without disturbing anybody's term: a member that was cut off comes back
    /// without forcing a new election.
    private mutating func becomePreCandidate() {
        refuseReads()
        role = .preCandidate
        leader = nil
        granted = []
        refused = []
        resetElectionTimer()
        countVote(of: id, isGranted: true)
        guard role == .preCandidate else { return }
        for peer in configuration.peers where peer != id && configuration.isVoter(peer) {
            send(.preVote(lastIndex: log.lastIndex, lastTerm: log.lastTerm), to: peer, term: term + 1)
        }
    }

    mutating func becomeCandidate(isTransfer: Bool = false) {
        refuseReads()
        role = .candidate
        leader = nil
        confirmedIndex = 0
        leaderEnd = 0
        contradictedFrom = nil
        term += 1
        vote = id
        granted = []
        refused = []
        // Its own vote counts, and its requests leave, once the vote is on the disk: else it could forget the vote and
        // give it to another in the same term.
        voteWrite = nextWrite
        resetElectionTimer()
        for peer in configuration.peers where peer != id && configuration.isVoter(peer) {
            promise(.vote(lastIndex: log.lastIndex, lastTerm: log.lastTerm, isTransfer: isTransfer), to: peer)
        }
    }

    private mutating func becomeLeader() {
        precondition(role == .candidate, "only a candidate can win: a term would have two leaders")
        role = .leader
        ledTerm = term
        leader = id
        leaderContact = now
        heartbeatDeadline = now
        peers = configuration.peers.filter { $0 != id }.map { Progress(peer: $0, next: log.lastIndex + 1, now: now) }
        lease = Lease()
        uncommittedBytes = log.bytes(in: commit + 1..<log.lastIndex + 1)
        // Entries of earlier terms commit only through one of this term (section 5.4.2), and no read is served before.
        if mutant != .noNoOperation { appendOwn(kind: .noOperation, size: ownEntrySize(nil)) }
        broadcastAppend()
        broadcastHeartbeat()
    }

    mutating func countVote(of peer: PeerID, isGranted: Bool) {
        if isGranted {
            if !granted.contains(peer) { granted.append(peer) }
        } else if !refused.contains(peer) {
            refused.append(peer)
        }
        if configuration.isQuorum({ granted.contains($0) }) {
            if role == .preCandidate { becomeCandidate() } else { becomeLeader() }
        } else if configuration.isQuorum({ refused.contains($0) }) {
            becomeFollower(term: term, leader: nil)
        }
    }

    /// A leader that did not hear from a majority for an election timeout leads no more (check-quorum): its clients
    /// learn at once that they should look elsewhere.
    mutating func stepDownWithoutQuorum() {
        let isHeard = configuration.isQuorum { peer in
            peer == id || progress(of: peer).map { now - $0.lastContact < limits.electionTimeout } ?? false
        }
        if !isHeard { becomeFollower(term: term, leader: nil) }
    }

    // MARK: votes

    /// Whether a leader was heard so recently that nobody should be helped to replace it. A leader that still hears
    /// its majority counts for itself. A member that just started can't know what it heard before.
    private var isLedNow: Bool {
        role == .leader || now - leaderContact < limits.electionTimeout
    }

    /// Handles the newer term of a message. False when the message must be dropped.
    mutating func admitNewTerm(of message: Message) -> Bool {
        switch message.body {
        case .preVote:
            return true
        case .preVoteResponse(let isGranted) where isGranted:
            return message.term == term + 1
        case .vote(_, _, let isTransfer) where isLedNow && !isTransfer:
            return false
        default:
            becomeFollower(term: message.term, leader: message.body.isFromLeader ? message.from : nil)
            return true
        }
    }

    /// Answers what an old term's member must know.
    mutating func answerOldTerm(of message: Message) {
        switch message.body {
        case .append, .heartbeat, .installSnapshot:
            // An old leader must step down, or it would never let this member (whose term grew while it was cut off)
            // follow anybody: with pre-vote on, this member will not raise the others' term itself.
            promise(.appendResponse(.accepted(match: 0)), to: message.from)
        case .preVote:
            promise(.preVoteResponse(granted: false), to: message.from)
        default:
            break
        }
    }

    /// - Parameter wanted: the term that the peer would stand in.
    mutating func handlePreVote(lastIndex: Index, lastTerm: Term, for wanted: Term, from peer: PeerID) {
        let isGranted = wanted > term && !isLedNow && isUpToDate(lastIndex: lastIndex, lastTerm: lastTerm)
        send(.preVoteResponse(granted: isGranted), to: peer, term: isGranted ? wanted : term)
        // Who misses a leader although there is one may doubt its log: the next append shows where the two differ, if at all.
        if role == .leader, let position = position(of: peer), peers[position].state == .replicate {
            ask(position)
        }
    }

    /// - Parameter wanted: the term that is granted, or the peer's own: a grant of an earlier round names an earlier term.
    mutating func handlePreVoteResponse(isGranted: Bool, for wanted: Term, from peer: PeerID) {
        guard role == .preCandidate, wanted == (isGranted ? term + 1 : term) else { return }
        countVote(of: peer, isGranted: isGranted)
    }

    mutating func handleVoteResponse(isGranted: Bool, from peer: PeerID) {
        if role == .candidate { countVote(of: peer, isGranted: isGranted) }
    }

    mutating func handleVote(lastIndex: Index, lastTerm: Term, isTransfer: Bool, from peer: PeerID) {
        let isFree = vote == peer || (vote == nil && leader == nil)
        guard isFree, isTransfer || !isLedNow, isUpToDate(lastIndex: lastIndex, lastTerm: lastTerm) else {
            promise(.voteResponse(granted: false), to: peer)
            return
        }
        vote = peer
        resetElectionTimer()
        promise(.voteResponse(granted: true), to: peer)
    }

    /// The vote restriction (section 5.4.1): no vote for a log that lacks what this one has.
    private func isUpToDate(lastIndex: Index, lastTerm: Term) -> Bool {
        (lastTerm, lastIndex) >= (log.lastTerm, log.lastIndex) || mutant == .staleLogElected
    }
}
