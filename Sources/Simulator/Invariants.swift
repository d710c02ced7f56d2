import Crypto
import FileTree
import NIOCore
import Raft

/// What must hold at every moment of every run, checked after each step of a member.
///
/// The names are those of figure 3 of the paper.
struct Invariants {
    struct Violation: Error {
        let invariant: String
        let detail: String
    }

    /// What the checks remember of a member across its steps and its restarts.
    private struct Seen {
        var term: Term = 0
        var vote: PeerID?
        var commit: Index = 0
        var applied: Index = 0
        var lastIndex: Index = 0
        var role = Role.follower
    }

    private var seen: [Seen]
    private var leaders: [Term: PeerID] = [:]
    /// What stands at an index under a term, and the term before it: log matching says there is one of each.
    private struct Position: Hashable {
        var index: Index
        var term: Term
    }
    private struct Content: Equatable {
        var previousTerm: Term
        var payload: ByteBuffer
    }
    private var contents: [Position: Content] = [:]
    /// The terms of committed entries, from index 1 on: the first is every member's from the beginning.
    private(set) var committed: [Term] = [1]
    /// The terms in which they were committed: later ones than their own, where a new leader found them.
    private var committedIn: [Term] = [1]
    /// The digests after each applied index, from index 1 on.
    private var digests: [StateDigest] = []
    /// The revisions that other clusters gave out, which had begun with this one's tree.
    private var elsewhere: [ClosedRange<Index>] = []

    /// Nothing is checked: whoever forges what only a proof could stop breaks any promise.
    private let isIdle: Bool

    init(members: Int, isIdle: Bool = false) {
        seen = Array(repeating: Seen(), count: members)
        self.isIdle = isIdle
    }

    /// Makes room for one more member.
    mutating func add() { seen.append(Seen()) }

    private func check(_ holds: Bool, _ invariant: String, _ detail: @autoclosure () -> String) throws(Violation) {
        if !holds { throw Violation(invariant: invariant, detail: detail()) }
    }

    // MARK: a member's step

    mutating func stepped(_ core: RaftCore, member: Int) throws(Violation) {
        try check(
            core.holdsWhatIsConfirmed, "what is confirmed stands in the log",
            "member \(member + 1)'s log ends at \(core.log.lastIndex)")
        if isIdle { return }
        let before = seen[member]
        try check(core.term >= before.term, "terms never fall", "member \(member + 1): \(before.term) to \(core.term)")
        try check(
            core.term > before.term || before.vote == nil || core.vote == before.vote, "one vote a term",
            "member \(member + 1) voted twice in term \(core.term)")
        try check(
            core.commit >= before.commit, "the commit index never falls",
            "member \(member + 1): \(before.commit) to \(core.commit)")
        if core.role == .leader {
            if before.role != .leader || before.term != core.term { try becameLeader(core) }
            try check(
                before.role != .leader || before.term != core.term || core.log.lastIndex >= before.lastIndex,
                "leader append-only", "member \(member + 1) shortened its log")
        }
        try check(
            core.log.configurationIndex <= core.log.lastIndex, "the configuration in force stands in the log",
            "member \(member + 1) goes by that of \(core.log.configurationIndex), and its log ends at \(core.log.lastIndex)"
        )
        if core.commit > before.commit { try committed(core, from: before.commit + 1, member: member) }
        seen[member].term = core.term
        seen[member].vote = core.vote
        seen[member].commit = core.commit
        seen[member].lastIndex = core.log.lastIndex
        seen[member].role = core.role
    }

    private mutating func becameLeader(_ core: RaftCore) throws(Violation) {
        let other = leaders[core.term] ?? core.id
        try check(other == core.id, "election safety", "\(other) and \(core.id) lead in term \(core.term)")
        leaders[core.term] = core.id
        // What earlier terms committed. By log matching, the last of it stands for all before. (A leader of a term that is
        // over already, elected by votes that were long on their way, need not have what a later one committed.)
        guard let last = committedIn.lastIndex(where: { $0 < core.term }), core.log.compactedIndex <= UInt64(last)
        else {
            return
        }
        try check(
            core.log.term(at: UInt64(last) + 1) == committed[last], "leader completeness",
            "\(core.id) leads in term \(core.term) without the committed entry \(last + 1) of term \(committed[last])")
    }

    private mutating func committed(_ core: RaftCore, from first: Index, member: Int) throws(Violation) {
        for index in max(first, core.log.firstIndex)..<core.commit + 1 {
            guard let term = core.log.term(at: index) else { continue }
            if index <= UInt64(committed.count) {
                let other = committed[Int(index) - 1]
                try check(
                    other == term, "state machine safety",
                    "member \(member + 1) commits entry \(index) of term \(term); of term \(other) it was committed")
            } else {
                try check(
                    index == UInt64(committed.count) + 1, "committed without gaps",
                    "member \(member + 1) commits \(index) before anybody knew of \(committed.count + 1)")
                try check(
                    !elsewhere.contains { $0.contains(index) }, "no revision is given twice",
                    "\(index) was given by a cluster that was restored")
                committed.append(term)
                committedIn.append(core.term)
            }
        }
    }

    /// A cluster that began with this one's tree gave out revisions.
    mutating func gaveElsewhere(_ revisions: ClosedRange<Index>) throws(Violation) {
        try check(
            revisions.lowerBound > UInt64(committed.count) && !elsewhere.contains { $0.overlaps(revisions) },
            "no revision is given twice", "a restored cluster gave \(revisions)")
        elsewhere.append(revisions)
    }

    // MARK: a member's log, state and disk

    mutating func appended(
        _ entry: SimulatedEntry, after previousTerm: Term, replacing old: Configuration?
    ) throws(Violation) {
        if isIdle { return }
        if let new = entry.configuration, let old {
            try check(
                Self.majoritiesOverlap(old, new), "majorities overlap",
                "entry \(entry.header.index): voters \(old.voters) and \(old.outgoingVoters), then \(new.voters) and "
                    + "\(new.outgoingVoters)")
        }
        let position = Position(index: entry.header.index, term: entry.header.term)
        let content = Content(previousTerm: previousTerm, payload: entry.payload)
        guard let known = contents[position] else {
            contents[position] = content
            return
        }
        try check(
            known == content, "log matching", "two entries \(position.index) of term \(position.term), or before it")
    }

    /// Whether no majority of one can decide beside a majority of the other.
    private static func majoritiesOverlap(_ old: Configuration, _ new: Configuration) -> Bool {
        if new.isJoint { return !old.isJoint && new.outgoingVoters == old.voters }
        if old.isJoint { return new.voters == old.voters }
        let moved = old.voters.count { !new.voters.contains($0) } + new.voters.count { !old.voters.contains($0) }
        return moved <= 1
    }

    mutating func applied(_ index: Index, _ state: Applied, member: Int, now: Nanoseconds) throws(Violation) {
        if isIdle { return }
        let digest = state.digest
        // Every member's clock began at one second, and runs at most a tenth too fast.
        try check(
            state.logTime <= now / 1_000_000 / 4 * 5 + 1000, "log time is time of leadership",
            "member \(member + 1): \(state.logTime) ms of leadership")
        try check(
            index <= UInt64(committed.count), "only what is committed is executed", "member \(member + 1): \(index)")
        if index <= UInt64(digests.count) {
            try check(
                digests[Int(index) - 1] == digest, "equal states at equal indexes",
                "member \(member + 1) differs at \(index)")
        } else {
            digests.append(digest)
        }
        seen[member].applied = max(seen[member].applied, index)
    }

    /// A promise leaves a member: its disk must keep it.
    func promised(_ message: Message, disk: SimulatedDisk, core: RaftCore, member: Int) throws(Violation) {
        if isIdle { return }
        switch message.body {
        case .appendResponse(.accepted(let match)):
            let isKept =
                match <= disk.compactedIndex
                || (match <= disk.lastIndex
                    && (core.log.term(at: match) ?? disk.term(at: match)) == disk.term(at: match))
            try check(
                message.term < core.term || (disk.pendingTruncation ?? .max) > match, "acknowledged stays durable",
                "member \(member + 1) acknowledges \(match), and a write under way takes it away")
            try check(
                isKept || message.term < core.term, "acknowledged is durable",
                "member \(member + 1) acknowledges \(match), and its disk ends at \(disk.lastIndex)")
        case .voteResponse(true):
            try check(
                disk.hardState.term > message.term
                    || (disk.hardState.term == message.term && disk.hardState.vote == message.to),
                "a vote is durable", "member \(member + 1) votes for \(message.to) in term \(message.term)")
        default: break
        }
    }

    /// A client's write is answered: the disks of a majority must have it.
    ///
    /// - Parameter configurations: those in force at the entry, and where it was answered: a majority of either will do.
    func acknowledged(
        _ index: Index, term: Term, members: [SimulatedMember], _ configurations: [Configuration]
    ) throws(Violation) {
        if isIdle { return }
        let holders = members.filter { $0.disk.compactedIndex >= index || $0.disk.term(at: index) == term }.map(\.id)
        try check(
            configurations.contains { $0.isQuorum { holders.contains($0) } }, "acknowledged on a majority",
            "entry \(index) is on the disks of \(holders) alone")
    }

    /// What a member finds on its disk when it starts again.
    func found(state: Index, disk: SimulatedDisk, member: Int) throws(Violation) {
        if isIdle { return }
        try check(
            state <= disk.lastIndex, "the state never leads the log",
            "member \(member + 1): state at \(state), log to \(disk.lastIndex)")
        var last = (index: disk.compactedIndex, term: disk.compactedTerm)
        for entry in disk.entries {
            try check(
                entry.header.index == last.index + 1 && entry.header.term >= last.term, "the log has no gap",
                "member \(member + 1): entry \(entry.header.index) follows \(last.index)")
            last = (entry.header.index, entry.header.term)
        }
        try check(
            disk.hardState.commit >= disk.commitWhenSaved, "the commit index is kept",
            "member \(member + 1): \(disk.hardState.commit), and knew \(disk.commitWhenSaved)")
    }

    /// What was promised before was checked when it was; what was only in memory may be lost.
    mutating func restarted(_ core: RaftCore, state: Index, disk: SimulatedDisk, member: Int) {
        seen[member] = Seen(
            term: disk.hardState.term, vote: disk.hardState.vote, commit: core.commit, applied: state,
            lastIndex: disk.lastIndex, role: .follower)
    }
}
