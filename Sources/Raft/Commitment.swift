/// What is committed, and what of it may be executed.
extension RaftCore {
    mutating func advanceCommit(to index: Index) {
        guard index > commit else { return }
        precondition(index <= log.lastIndex, "entry \(index) is committed and not here")
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
