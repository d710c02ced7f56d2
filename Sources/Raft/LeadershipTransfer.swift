/// A leader hands over to another voter, without the gap of an election timeout: section 3.10 of the thesis.
///
/// It takes no more proposals, brings the other level, and tells it to campaign at once. Whoever is asked for its vote
/// then need not wait for its leader to be silent. If that takes longer than an election timeout, it goes on leading.
extension RaftCore {
    struct Transfer: Sendable {
        var target: PeerID
        var deadline: Nanoseconds
        var isTold = false
    }

    /// Hands over to `wanted`, or to the voter whose log is longest. Nothing happens when there is none that answers.
    mutating func transferLeadership(to wanted: PeerID?) {
        guard role == .leader, transfer == nil else { return }
        let able = peers.filter { peer in
            configuration.isVoter(peer.peer) && peer.state == .replicate
                && now - peer.lastContact < limits.electionTimeout && (wanted == nil || peer.peer == wanted)
        }
        guard let target = able.max(by: { $0.match < $1.match })?.peer else { return }
        transfer = Transfer(target: target, deadline: now + limits.electionTimeout)
    }

    /// Tells the target to campaign once it has the whole log, and all of it is committed and on its way to be executed here:
    /// then every client that waits gets its answer from this leader. One whose disk stands still can't wait for that.
    mutating func continueTransfer() {
        guard let target = transfer?.target, transfer?.isTold == false, let progress = progress(of: target) else {
            return
        }
        let isLevel = progress.match == log.lastIndex && dispatched == log.lastIndex
        guard isLevel || canStandIn(progress) else { return }
        transfer?.isTold = true
        lease.giveAway()
        send(.timeoutNow, to: target)
    }

    /// The leader of this term, which this member has heard, wants it to lead.
    mutating func handleTimeoutNow(from peer: PeerID) {
        guard leader == peer else { return }
        guard handOversTaken.take(now: now) else { return offended(by: peer, .tooOften) }
        follow(peer)
        if isPromotable, !isDiskDoubtful { becomeCandidate(isTransfer: true) }
    }

    mutating func expireTransfer() {
        if let deadline = transfer?.deadline, now >= deadline { transfer = nil }
    }
}
