import Raft

/// What follows for a member's state from what the others say that theirs was at the same index.
enum DigestVerdict: Equatable {
    case sound
    /// A majority's was another.
    case wrong(Index)
    /// All voters have said it, and no majority agrees.
    case disagreement(Index)
    /// Too few remember an index that this member remembers too.
    case unknown

    /// - Parameters:
    ///   - own: what this member remembers.
    ///   - told: by each other voter that answered.
    ///   - isVoter: whether this member's own counts.
    ///   - voters: how many others vote.
    init(
        of own: [(index: Index, digest: UInt64)], _ told: [(index: Index, digest: UInt64)], isVoter: Bool, voters: Int
    ) {
        let all = voters + (isVoter ? 1 : 0)
        self = .unknown
        for (index, digest) in own.reversed() {
            let votes = told.filter { $0.index == index }.map(\.digest) + (isVoter ? [digest] : [])
            if let agreed = votes.first(where: { vote in votes.count { $0 == vote } > all / 2 }) {
                self = agreed == digest ? .sound : .wrong(index)
                return
            }
            if votes.count == all, all > 1 { self = .disagreement(index) }
        }
    }
}
