/// Why other members want nothing of this one, or it nothing of them: for the log, once for each change, and for `status`
/// while it lasts.
struct Refusals<Peer: Hashable & Comparable> {
    /// Whoever comes up with more names than a cluster has members is told of again.
    private static var peersMax: Int { 128 }

    private var reasons: [Peer: (reason: String, isCurrent: Bool)] = [:]

    /// Whether that is news.
    mutating func refused(_ peer: Peer, _ reason: String) -> Bool {
        if reasons.count >= Self.peersMax, reasons[peer] == nil { reasons.removeAll() }
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
