/// InstallSnapshot: section 7 of the paper. The bytes travel beside the core; it decides whether they still count.
extension RaftCore {
    /// A whole snapshot arrived from the leader of this term.
    mutating func handleInstallSnapshot(_ snapshot: SnapshotMetadata, from peer: PeerID) {
        follow(peer)
        leaderEnd = max(leaderEnd, snapshot.index)
        guard snapshot.index > commit else {
            if let own = log.term(at: snapshot.index), own != snapshot.term {
                contradictedFrom = snapshot.index
                return offended(by: peer, .overwritesCommitted)
            }
            // What is committed is the leader's as well, as far as it has shown it.
            promise(.appendResponse(.accepted(match: max(snapshot.index, min(commit, confirmedIndex)))), to: peer)
            return
        }
        // The tail stays only if it continues what the snapshot ends with (figure 13, step 6).
        let keepsTail = log.term(at: snapshot.index) == snapshot.term
        log.reset(to: snapshot, keepsTail: keepsTail)
        noteConfiguration()
        commit = snapshot.index
        confirmedIndex = keepsTail ? max(confirmedIndex, snapshot.index) : snapshot.index
        applied = snapshot.index
        dispatched = snapshot.index
        // The disk's tail stays only if an earlier snapshot of this turn has not given it up already. Then what followed that
        // one in this turn is written anew.
        let isOnDisk = keepsTail && installing?.keepsTail ?? true
        if keepsTail, !isOnDisk {
            touched = log.lastIndex > snapshot.index ? snapshot.index + 1 : nil
        } else {
            // What this turn gathered for the disk stays only as part of that tail.
            touched = keepsTail ? touched.map { max($0, snapshot.index + 1) } : nil
        }
        truncates = truncates && touched != nil && isOnDisk
        installing = (snapshot, isOnDisk)
        promise(.appendResponse(.accepted(match: snapshot.index)), to: peer)
    }

    /// The state machine has gone back, or come forward, to another member's state. Log, vote and commit index stay as they
    /// are: what follows in the log is handed out to be executed, again or for the first time.
    mutating func replaceState(_ index: Index) {
        precondition(index >= log.compactedIndex && index <= min(commit, durableIndex), "the log lacks what follows")
        precondition(output.apply == nil && installing == nil, "what was handed out before must be taken first")
        applied = index
        dispatched = index
    }

    /// A transfer is over. The answer to the next probe shows where the peer stands; after a broken one it waits for a
    /// sign of life, a heartbeat's answer.
    mutating func snapshotEnded(_ peer: PeerID, installed: Index?) {
        guard role == .leader, let position = position(of: peer), peers[position].state == .snapshot else { return }
        let match = peers[position].match
        peers[position].become(.probe, next: min(max(match, installed ?? 0), log.lastIndex) + 1)
        if installed == nil { peers[position].waitForSign(now: now) }
        sendAppends(to: position)
    }
}
