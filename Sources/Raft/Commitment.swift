/// What is committed (sections 5.3 and 5.4.2 of the paper), and what of it may be executed.
extension RaftCore {
    /// The largest index that a majority holds durably is committed, if its entry is of this term (section 5.4.2 and
    /// figure 8): one of an earlier term could still be overwritten.
    mutating func advanceCommitIndex() {
        let durable = durableIndex
        let reached = configuration.quorumValue { peer in
            guard peer != id else { return durable }
            // What a peer that lost its log once acknowledged counts no more.
            return progress(of: peer).map { $0.state == .regressed ? 0 : $0.match } ?? 0
        }
        guard reached > commit, log.term(at: reached) == term || mutant == .oldTermCommitted else { return }
        uncommittedBytes = max(0, uncommittedBytes - log.bytes(in: commit + 1..<reached + 1))
        commit(through: reached)
        releaseReadsAfterFirstCommit()
        continueMembershipChange()
    }

    /// Everything through `index` is committed: a leader counted a majority, or a follower heard it from the leader.
    mutating func commit(through index: Index) {
        guard index > commit else { return }
        precondition(
            index <= log.lastIndex, "entry \(index) is committed and not here: another would be executed for it")
        commit = index
    }

    /// Hands out what is committed and durable here, within the limits of what may wait to be executed.
    mutating func advanceApply() {
        guard installing == nil else { return }
        let durable = mutant == .appliedBeforeSync ? log.lastIndex : durableIndex
        let end = min(commit, durable, applied + limits.unappliedEntriesMax)
        guard end > dispatched else { return }
        let waiting = log.bytes(in: applied + 1..<dispatched + 1)
        guard waiting < limits.unappliedBytesMax else { return }
        let first = output.apply?.lowerBound ?? dispatched + 1
        output.apply = first...end
        dispatched = end
    }
}
