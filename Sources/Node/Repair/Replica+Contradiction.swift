import NIOCore
import Raft

/// A leader whose log contradicts what was executed here.
///
/// No sound cluster comes to that. This member may have believed a forged leader, and has executed what the cluster never
/// decided; or the contradiction itself is forged. The other members tell, over connections that this one opens itself, by a
/// snapshot of theirs: it holds what a majority decided.
extension Replica {
    /// On every tick.
    func settleContradiction() {
        guard !isStopped, !isDraining, health.doubt.asks(isContradicted: core.contradictedFrom != nil, now: core.now)
        else {
            return
        }
        let this = NIOLoopBound(self, eventLoop: loop)
        let loop = loop
        let fetch = snapshotFetch()
        let commit = core.commit
        Task {
            let found = await fetch.look()
            loop.execute { this.value.othersAnswered(found, commit: commit) }
        }
    }

    /// - Parameter commit: what was committed here before they were asked. Their answer holds everything that was committed
    ///   anywhere by then: one that ends before it says that this was never decided.
    private func othersAnswered(_ found: SnapshotMetadata?, commit: Index) {
        guard !isStopped, !isDraining else { return }
        guard let found, let from = core.contradictedFrom,
            found.index < commit || found.index >= max(from, core.log.compactedIndex)
        else {
            return health.doubt.learnedNothing(now: core.now)
        }
        guard found.index < commit || core.log.term(at: found.index) != found.term else {
            logger.notice(
                "the others hold what this member has executed: somebody contradicted it in the leader's name",
                metadata: ["index": "\(found.index)"])
            return health.doubt.wasUnfounded(now: core.now)
        }
        let reason = "the log holds what the cluster never decided, from entry \(from) on"
        logger.error("damaged: a sound copy will be taken from the others", metadata: ["damage": "\(reason)"])
        do { try StateDamage(kind: .contradicted, reason: reason).mark(directory) } catch {
            return server.unwritable(error)
        }
        // It takes no part in its cluster before that.
        drain { [server] in server.restart(reason) }
    }
}
