import Raft

/// The end of a member that was asked to end: it takes no more writes, answers those that it took, hands leadership over,
/// and goes on refusing for a moment.
struct Draining {
    /// What is to be done now.
    enum Step: Equatable {
        case wait
        case handOver
        case end
    }

    /// How the member stands.
    struct Standing {
        var term: Term
        var isLeader: Bool
        /// Whether another voter could lead, and how many vote.
        var otherVoters: Int
        var isHandingOver: Bool
        /// Whether something that it took up is not answered yet.
        var hasWork: Bool
        var hasConnections: Bool
    }

    /// How long a member may take to find a successor and to answer what it took up.
    static let timeMax: Nanoseconds = 1_000_000_000

    /// Clients learn by a refusal that they must ask another; a request on its way to a connection that closes would have no
    /// answer, and a write without one is unknown.
    static let farewell: Nanoseconds = 100_000_000

    private let deadline: Nanoseconds
    private let term: Term
    /// When it is over, once nothing is left to be done.
    private var farewellEnd: Nanoseconds?

    init(term: Term, now: Nanoseconds) {
        self.term = term
        deadline = now + Self.timeMax
    }

    /// To be asked whenever something has changed, and now and then.
    mutating func next(_ member: Standing, now: Nanoseconds) -> Step {
        if let end = farewellEnd, now >= end { return .end }
        if now >= deadline { return .end }
        // When all are told to end, the lead goes round once, and not on and on.
        let hasSuccessor = member.otherVoters > 0 && member.term - min(term, member.term) <= member.otherVoters
        if member.isLeader, hasSuccessor { return member.isHandingOver ? .wait : .handOver }
        guard !member.hasWork else { return .wait }
        farewellEnd = farewellEnd ?? min(deadline, now + (member.hasConnections ? Self.farewell : 0))
        return now >= farewellEnd ?? deadline ? .end : .wait
    }
}
