/// What a core holds on behalf of others. Whatever they say, each has a bound.
extension RaftCore {
    /// Whether what the leader of this term confirmed, and what is committed, stands in the log. (Without it the core ends
    /// the process when it should commit.)
    package var holdsWhatIsConfirmed: Bool { max(commit, confirmedIndex) <= log.lastIndex }

    /// Which of them is larger than it may be, in words; nil while all is well. For those who test it.
    package var exceededBound: String? {
        let held: [(name: String, count: Int, max: Int)] = [
            ("reads", reads.waiting.count + reads.rounds.reduce(0) { $0 + $1.reads.count }, 2 * limits.pendingReadsMax),
            ("forwarded reads", forwardedReads.count, limits.pendingReadsMax),
            ("votes", granted.count + refused.count, 2 * configuration.peers.count),
            ("peers", peers.count, configuration.peers.count),
            ("messages in flight", peers.map(\.inFlight.count).max() ?? 0, limits.messagesInFlightMax),
            (
                "bytes in flight", peers.map(\.bytesInFlight).max() ?? 0,
                limits.bytesInFlightMax + max(limits.messageBytesMax, 2 << 20)
            ),
        ]
        return held.first { $0.count > $0.max }.map { "\($0.count) \($0.name), and \($0.max) are the most" }
    }
}
