/// Heartbeats: the leader's word that it leads (section 5.2 of the paper), and its question whether it still does. They carry
/// no entries, and are numbered in rounds: a round that a majority has answered proves that this leader led after the round
/// began (sections 6.2 and 6.4 of the thesis).
extension RaftCore {
    /// The number of the last round of heartbeats.
    package var lastRound: UInt64 { reads.lastRound }

    // MARK: a leader's side

    /// Heartbeats carry no more of the commit index than the peer is known to hold.
    mutating func broadcastHeartbeat() {
        heartbeatDeadline = now + limits.heartbeatInterval
        reads.lastRound += 1
        lease.sent(round: reads.lastRound, at: now)
        for progress in peers {
            let known = progress.state == .regressed ? 0 : progress.match
            send(.heartbeat(commit: min(commit, known), round: reads.lastRound), to: progress.peer)
        }
        // Of one voter, it is a majority.
        confirmReads()
    }

    mutating func handleHeartbeatResponse(round: UInt64, from peer: PeerID) {
        guard role == .leader, let position = position(of: peer) else { return }
        guard round <= reads.lastRound else { return offended(by: peer, .answersUnsent) }
        peers[position].lastContact = now
        peers[position].round = max(peers[position].round, round)
        if peers[position].isSilent(now: now, limits) {
            if mutant == .lateAcknowledgementTakenForLoss {
                peers[position].become(.probe, next: peers[position].match + 1)
            } else {
                ask(position)
            }
        }
        // The refusal that showed it may have been an old one: ask again, now and then.
        if peers[position].state == .regressed, now - peers[position].askedAt >= limits.electionTimeout {
            peers[position].become(.probe, next: peers[position].match + 1)
        }
        // A peer that came back has everything, perhaps, but takes nothing for committed before an append confirmed it.
        if peers[position].match < log.lastIndex || peers[position].state == .probe { sendAppends(to: position) }
        confirmReads()
    }

    // MARK: a follower's side

    /// What the leader knows to be committed counts as far as an append of this term has shown the two logs to agree.
    mutating func handleHeartbeat(commit: Index, round: UInt64, from peer: PeerID) {
        follow(peer)
        let confirmed = mutant == .confirmedIndexKept ? min(confirmedIndex, log.lastIndex) : confirmedIndex
        self.commit(through: min(commit, confirmed))
        send(.heartbeatResponse(round: round), to: peer)
    }
}
