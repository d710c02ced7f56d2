import DequeModule
import Raft

/// The vote on what the state's digest was, at indexes that all members remember: a leader that has heard a majority knows
/// whose state is wrong.
///
/// Digests come in over connections that anybody may have opened. Before anything follows from one, the others are asked
/// over connections of this member's own: `askNow` says when, and `answered` what follows.
struct DigestVote {
    typealias Digest = (index: Index, digest: UInt128)

    /// Who decides: the leader and the voters of its configuration.
    struct Electorate {
        let leader: PeerID
        let voters: [PeerID]
    }

    /// What the others' own answers lead to.
    enum Outcome: Equatable {
        case nothing
        /// This member's state is not the majority's.
        case wrong(Index)
        /// All voters differ, and this member leads: nobody can tell who is right.
        case alarm(Index)
    }

    /// So many indexes are remembered.
    static let digestsMax = 16
    /// The others are asked no more often.
    static let askingPause: Nanoseconds = 1_000_000_000

    private var own: Deque<Digest> = []
    private var told: [PeerID: Digest] = [:]
    /// What a majority's state was, as far as a leader has heard.
    private(set) var agreed: Digest?
    /// No majority agrees on the state: puts are refused.
    private(set) var isAlarmed = false
    private var isDoubtful = false
    private var isAsking = false
    private var askedAt: Nanoseconds = 0

    /// The last that this member remembers.
    var last: Digest? { own.last }

    /// Remembers what this member's state was.
    ///
    /// - Parameter electorate: of a leader; else nil.
    /// - Returns: the index at which a majority agrees again, after an alarm.
    mutating func remember(_ digests: [Digest], _ electorate: Electorate?) -> Index? {
        for digest in digests { own.append(digest) }
        while own.count > Self.digestsMax { own.removeFirst() }
        return digests.map { compare($0.index, electorate) }.compactMap(\.self).first
    }

    /// What a follower says that its state was; what it said of an earlier index, or says of the same, counts no more.
    ///
    /// - Returns: as `remember`.
    mutating func heard(_ digest: Digest, from peer: PeerID, _ electorate: Electorate?) -> Index? {
        guard told[peer]?.index ?? 0 < digest.index else { return nil }
        told[peer] = digest
        return compare(digest.index, electorate)
    }

    private mutating func compare(_ index: Index, _ electorate: Electorate?) -> Index? {
        guard let electorate, let own = own.first(where: { $0.index == index }) else { return nil }
        let voters = electorate.voters
        let heard = voters.compactMap {
            $0 == electorate.leader ? own.digest : told[$0].flatMap { $0.index == index ? $0.digest : nil }
        }
        guard let agreed = heard.first(where: { digest in heard.count { $0 == digest } > voters.count / 2 }) else {
            // All have been heard, and no majority agrees.
            if heard.count == voters.count, heard.count > 1 { isDoubtful = true }
            return nil
        }
        self.agreed = (index, agreed)
        judge((index, agreed))
        guard isAlarmed else { return nil }
        isAlarmed = false
        return index
    }

    /// Compares what a majority had at an index, as a leader says, with what this member had there.
    mutating func judge(_ agreed: Digest) {
        if let own = own.first(where: { $0.index == agreed.index }), own.digest != agreed.digest { isDoubtful = true }
    }

    /// Whether the others are to be asked now.
    mutating func askNow(now: Nanoseconds) -> Bool {
        guard isDoubtful else { return false }
        // Who differs says so again and again: a doubt that comes too soon is forgotten.
        isDoubtful = false
        guard !isAsking, now >= askedAt + Self.askingPause else { return false }
        (isAsking, askedAt) = (true, now)
        return true
    }

    /// Takes in what the others say.
    ///
    /// - Parameters:
    ///   - told: by each other voter that answered.
    ///   - isVoter: whether this member's own counts.
    ///   - others: how many others vote.
    mutating func answered(
        _ told: [(index: Index, digest: UInt64)], isVoter: Bool, others: Int, isLeader: Bool
    ) -> Outcome {
        isAsking = false
        let verdict = DigestVerdict(
            of: own.map { ($0.index, UInt64(truncatingIfNeeded: $0.digest)) }, told, isVoter: isVoter, voters: others)
        switch verdict {
        case .sound, .unknown: return .nothing
        case .wrong(let index): return .wrong(index)
        case .disagreement(let index):
            guard isLeader, !isAlarmed else { return .nothing }
            isAlarmed = true
            return .alarm(index)
        }
    }

    /// Another state has taken the place of this one: what that was says nothing of it.
    mutating func stateReplaced() { own = [] }
}
