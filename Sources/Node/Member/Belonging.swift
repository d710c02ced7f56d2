import Raft

/// Whether this member belongs to its cluster (still): by its own log, and by what others say. It goes on whatever they say,
/// since anybody may say such a thing.
struct Belonging {
    /// The cluster does not know this member's directory, or not any more.
    struct Word: Equatable {
        let peer: PeerID
        let reason: String
        let since: Nanoseconds
    }

    /// What clients are told.
    enum Verdict: Equatable {
        case removed(Word?)
        case seemsRemoved(Word)
    }

    /// An election is over sooner: a word that lasts no longer was said by somebody who knows nothing.
    static let disownedMin: Nanoseconds = 3_000_000_000

    private var wasMember = false
    /// By its own log, the cluster has let this member go.
    private var isRemoved = false
    private var word: Word?

    /// A configuration is committed. True once, when it lets this member go; a newcomer that reads the cluster's past was not
    /// in it either.
    mutating func settled(isMember: Bool) -> Bool {
        defer { wasMember = isMember }
        if isMember { isRemoved = false } else if wasMember { isRemoved = true }
        return wasMember && !isMember
    }

    /// Somebody says that the cluster does not know this member. True when that is news.
    mutating func disowned(by peer: PeerID, _ reason: String, now: Nanoseconds) -> Bool {
        let isNews = word == nil
        word = Word(peer: peer, reason: reason, since: word?.since ?? now)
        return isNews
    }

    /// Whoever said so greets it.
    mutating func welcomed(by peer: PeerID) { if word?.peer == peer { word = nil } }

    /// A leader is heard.
    mutating func led() { word = nil }

    /// Of a member that nobody leads; nil: nothing says that it belongs to no cluster.
    func verdict(now: Nanoseconds) -> Verdict? {
        if isRemoved { return .removed(word) }
        guard let word, now - word.since >= Self.disownedMin else { return nil }
        return .seemsRemoved(word)
    }
}
