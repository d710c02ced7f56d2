import NIOCore
import Raft

/// A leader whose log contradicts what was executed here.
///
/// No sound cluster comes to that. This member may have believed a forged leader, and has executed what the cluster never
/// decided; or the contradiction itself is forged. The other members tell, over connections that this one opens itself, by a
/// snapshot of theirs: it holds what a majority decided.
extension Replica {
    /// What is done about a contradiction.
    struct Doubt {
        /// A sound leader's next append ends a forged contradiction before the others are asked.
        static let lastsMin: Nanoseconds = 2_000_000_000
        private static let pauseMax: Nanoseconds = 600_000_000_000

        private var since: Nanoseconds?
        private var isAsking = false
        private var notBefore: Nanoseconds = 0
        private var pause: Nanoseconds = 1_000_000_000

        /// Whether the others are to be asked now.
        mutating func asks(isContradicted: Bool, now: Nanoseconds) -> Bool {
            guard isContradicted else {
                since = nil
                return false
            }
            since = since ?? now
            guard !isAsking, now - (since ?? now) >= Self.lastsMin, now >= notBefore else { return false }
            isAsking = true
            return true
        }

        /// The others could not tell yet.
        mutating func learnedNothing(now: Nanoseconds) {
            isAsking = false
            notBefore = now + 1_000_000_000
        }

        /// There is no contradiction: whoever forges them makes this member ask seldom.
        mutating func wasUnfounded(now: Nanoseconds) {
            isAsking = false
            notBefore = now + pause
            pause = min(2 * pause, Self.pauseMax)
        }
    }

    /// On every tick.
    func settleContradiction() {
        guard !isStopped, draining == nil, doubt.asks(isContradicted: core.contradictedFrom != nil, now: core.now)
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
        guard !isStopped, draining == nil else { return }
        guard let found, let from = core.contradictedFrom,
            found.index < commit || found.index >= max(from, core.log.compactedIndex)
        else {
            return doubt.learnedNothing(now: core.now)
        }
        guard found.index < commit || core.log.term(at: found.index) != found.term else {
            logger.notice(
                "the others hold what this member has executed: somebody contradicted it in the leader's name",
                metadata: ["index": "\(found.index)"])
            return doubt.wasUnfounded(now: core.now)
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
