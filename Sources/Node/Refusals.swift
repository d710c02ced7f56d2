/// Why other members want nothing of this one, or it nothing of them: for the log, once for each change, and for `status`
/// while it lasts.
struct Refusals<Peer: Hashable & Comparable> {
    private var reasons: [Peer: (reason: String, isCurrent: Bool)] = [:]

    /// Whether that is news.
    mutating func refused(_ peer: Peer, _ reason: String) -> Bool {
        let old = reasons.updateValue((reason, true), forKey: peer)
        return old?.reason != reason
    }

    /// The reason is remembered: who welcomes and refuses in turn is told of once.
    mutating func welcomed(_ peer: Peer) { reasons[peer]?.isCurrent = false }

    mutating func forget(_ peer: Peer) { reasons[peer] = nil }

    var current: [(peer: Peer, reason: String)] {
        reasons.filter { $0.value.isCurrent }.map { ($0.key, $0.value.reason) }.sorted { $0.peer < $1.peer }
    }
}
