import NIOCore

/// Finds out who leads, whatever stands at the addresses: a value, with events in and actions out.
///
/// The leader is who says so of itself. What others say of it, or a refusal, is a hint whom to ask next: the address that the
/// members have of it may be another than the one by which it is found from here. Addresses are asked side by side, each
/// once at a time: the next one after a moment's silence, or at once when one fails or knows nothing. When all have had
/// their time the round is over, and the next one begins after a pause that grows.
struct LeaderSearch {
    enum Action: Equatable {
        /// Ask the member at the address for its status; report with `heard` or `failed`.
        case ask(String)
        /// Call `wake` then.
        case wake(at: NIODeadline)
        /// Everybody was asked, and nobody leads.
        case concluded
    }

    /// What a member says of the cluster.
    struct Statement: Equatable {
        var leads = false
        var term: UInt64 = 0
        /// Whom it takes for the leader, under the address that it has of it; empty if it knows none.
        var leader = ""
        /// The addresses of all members, as it has them.
        var members: [String] = []
        /// It does not stand in that list.
        var isRemoved = false
        /// What it waits for before it begins.
        var startingReason: String?
    }

    /// What is known of an address.
    enum Finding: Equatable {
        case unreachable(String)
        /// It will not get better by waiting: no member of Banyan, a goodbye.
        case hopeless(String)
        /// Nor will this.
        case noSuchHost(String)

        var reason: String? {
            switch self {
            case .unreachable(let reason), .hopeless(let reason): reason
            case .noSuchHost(let host): "no such host: \(host)"
            case .silent, .stated: nil
            }
        }
        /// It accepts connections, or nothing at all was heard of it yet, and says nothing.
        case silent
        case stated(Statement)
    }

    /// Silence after which the next address is asked too.
    static let stagger = TimeAmount.milliseconds(150)
    /// Whoever is silent for so long holds no round up; a late answer counts all the same.
    static let silence = TimeAmount.milliseconds(300)
    /// How long those may take of which it is unknown whether they belong to the same cluster.
    static let checkMax = TimeAmount.milliseconds(250)
    static let pauseMin = TimeAmount.milliseconds(20)
    static let pauseMax = TimeAmount.milliseconds(500)
    private static let learnedMax = 16
    /// The most asked at once.
    private static let pendingMax = 16

    private let nodes: [String]
    private(set) var leader: String?
    /// A member that follows a leader which can't be reached from here: reads it can answer.
    private(set) var follower: String?
    /// Who answered last, and does not lead, unless there is none: what may be stale is asked there.
    private(set) var reader: String?
    private(set) var findings: [String: Finding] = [:]
    /// Asks that are under way, and since when.
    private var pending: [String: NIODeadline] = [:]
    /// Addresses of members that were not given, but heard of.
    private var learned: [String] = []
    /// Those that said they lead, and did not act so.
    private var suspects: Set<String> = []
    private var state = State.idle
    private var since = NIODeadline.uptimeNanoseconds(0)
    /// Given addresses of which it is known that they are of the same cluster, or that this can't be known now.
    private var isChecked = false

    private enum State {
        case idle
        case asking(Round)
        /// Until the next round.
        case resting(until: NIODeadline)
        /// Somebody leads; those that are given and not of its list have a moment to say that they are of the same cluster.
        case checking(leader: String, others: [String], until: NIODeadline)
    }

    private struct Round {
        var left: [String]
        var asked: [String] = []
        var nextAt: NIODeadline
    }

    init(nodes: [String]) { self.nodes = nodes }

    // MARK: events

    /// Somebody needs the leader.
    mutating func begin(at now: NIODeadline) -> [Action] {
        guard leader == nil, case .idle = state else { return [] }
        since = now
        return beginRound(at: now)
    }

    mutating func heard(_ statement: Statement, from address: String, at now: NIODeadline) -> [Action] {
        pending[address] = nil
        findings[address] = .stated(statement)
        let isReader = statement.startingReason == nil
        if isReader, reader == nil || reader == leader || !statement.leads { reader = address }
        if statement.leads {
            learned = Array(statement.members.filter { !nodes.contains($0) }.prefix(Self.learnedMax))
        }
        switch state {
        case .asking, .resting:
            if statement.leads, !suspects.contains(address) { return check(address, at: now) }
            if case .resting = state { return follow(statement.leader, at: now) }
        case .idle, .checking: break
        }
        return step(hint: statement.leads ? nil : statement.leader, at: now)
    }

    /// A late answer names somebody who was not asked.
    private mutating func follow(_ hint: String, at now: NIODeadline) -> [Action] {
        guard !hint.isEmpty, findings[hint] == nil, pending[hint] == nil else { return [] }
        state = .asking(Round(left: [hint], nextAt: now))
        return step(at: now)
    }

    mutating func failed(_ address: String, _ finding: Finding, at now: NIODeadline) -> [Action] {
        pending[address] = nil
        findings[address] = finding
        gone(address)
        return step(at: now)
    }

    /// The time came that `wake(at:)` named.
    /// - Parameter isWanted: whether somebody still waits for the leader.
    mutating func wake(at now: NIODeadline, isWanted: Bool) -> [Action] {
        if case .resting(let until) = state, now >= until {
            state = .idle
            return isWanted ? beginRound(at: now) : []
        }
        return step(at: now)
    }

    /// The leader refused to act as one, or its connection ended, or it says nothing any more.
    /// - Parameter isSuspect: whether it may still say that it leads.
    mutating func lost(_ address: String, isSuspect: Bool) {
        gone(address)
        guard leader == address else { return }
        leader = nil
        if isSuspect { suspects.insert(address) }
    }

    /// The member at `address` says that another leads.
    mutating func redirected(by address: String, to other: String, at now: NIODeadline) -> [Action] {
        findings[address] = .stated(Statement(leader: other))
        guard leader == nil || leader == address else { return [] }
        leader = nil
        guard case .idle = state else { return step(hint: other, at: now) }
        since = now
        return beginRound(at: now, hint: other)
    }

    // MARK: rounds

    private mutating func gone(_ address: String) {
        if follower == address { follower = nil }
        if reader == address { reader = nil }
    }

    /// Those that answered when they were last asked come first, those that led and failed last.
    private mutating func beginRound(at now: NIODeadline, hint: String? = nil) -> [Action] {
        let all = nodes + learned
        let rank = { [findings, suspects] (address: String) -> Int in
            if suspects.contains(address) { return 2 }
            if case .stated = findings[address] { return 0 }
            return findings[address] == nil ? 0 : 1
        }
        let ordered = all.indices.sorted { (rank(all[$0]), $0) < (rank(all[$1]), $1) }.map { all[$0] }
        state = .asking(Round(left: ordered, nextAt: now))
        return step(hint: hint, at: now)
    }

    private func isWaitedFor(_ address: String, at now: NIODeadline) -> Bool {
        pending[address].map { now - $0 < Self.silence } ?? false
    }

    private mutating func step(hint: String? = nil, at now: NIODeadline) -> [Action] {
        switch state {
        case .idle, .resting: return []
        case .checking(let address, let others, let until):
            guard now < until, others.contains(where: { pending[$0] != nil }) else { return found(address) }
            return []
        case .asking(var round):
            var actions: [Action] = []
            for (address, since) in pending where now - since >= Self.silence { findings[address] = .silent }
            if let hint, !hint.isEmpty, !round.asked.contains(hint) {
                round.left.removeAll { $0 == hint }
                round.left.insert(hint, at: 0)
                round.nextAt = now
            }
            // Silence is the one reason to wait before the next is asked.
            while !round.left.isEmpty, pending.count < Self.pendingMax,
                now >= round.nextAt || !round.asked.contains(where: { isWaitedFor($0, at: now) })
            {
                let address = round.left.removeFirst()
                round.asked.append(address)
                round.nextAt = now + Self.stagger
                guard pending[address] == nil else { continue }
                pending[address] = now
                // What was found before holds until the time for another answer has passed.
                if findings[address] == nil { findings[address] = .silent }
                actions.append(.ask(address))
            }
            let waited = round.asked.filter { isWaitedFor($0, at: now) }
            if round.left.isEmpty, waited.isEmpty { return actions + conclude(round, at: now) }
            state = .asking(round)
            let ends = waited.compactMap { pending[$0].map { $0 + Self.silence } }
            let next = round.left.isEmpty ? nil : round.nextAt > now ? round.nextAt : now + Self.stagger
            return actions + [.wake(at: (ends + [next].compactMap { $0 }).min() ?? now + Self.stagger)]
        }
    }

    /// The first time somebody leads: the other addresses that were given must be of the same cluster.
    private mutating func check(_ address: String, at now: NIODeadline) -> [Action] {
        guard !isChecked, case .stated(let statement) = findings[address] else { return found(address) }
        isChecked = true
        let others = nodes.filter { node in
            guard node != address, !statement.members.contains(node) else { return false }
            return findings[node] == nil || pending[node] != nil
        }
        let unasked = others.filter { pending[$0] == nil }
        for node in unasked { (pending[node], findings[node]) = (now, .silent) }
        guard !others.isEmpty else { return found(address) }
        let until = now + Self.checkMax
        state = .checking(leader: address, others: others, until: until)
        return unasked.map(Action.ask) + [.wake(at: until)]
    }

    private mutating func found(_ address: String) -> [Action] {
        state = .idle
        suspects = []
        leader = address
        follower = nil
        return []
    }

    private mutating func conclude(_ round: Round, at now: NIODeadline) -> [Action] {
        // One that failed as the leader is believed when nobody else is left.
        let claims = round.asked.compactMap { address -> (address: String, term: UInt64)? in
            guard pending[address] == nil, case .stated(let statement) = findings[address], statement.leads
            else { return nil }
            return (address, statement.term)
        }
        if let address = claims.max(by: { $0.term < $1.term })?.address { return check(address, at: now) }
        suspects = []
        follower = round.asked.first { address in
            if case .stated(let statement) = findings[address] { return !statement.leader.isEmpty }
            return false
        }
        let pause = Self.pause(after: now - since)
        state = .resting(until: now + pause)
        return [.concluded, .wake(at: now + pause)]
    }

    /// An eighth of the time that somebody has waited already.
    static func pause(after waited: TimeAmount) -> TimeAmount {
        min(pauseMax, max(pauseMin, .nanoseconds(waited.nanoseconds / 8)))
    }

    // MARK: words

    /// Whether none of the addresses will be better for waiting.
    var isHopeless: Bool {
        nodes.allSatisfy { node in
            switch findings[node] {
            case .hopeless, .noSuchHost: true
            default: false
            }
        }
    }

    /// Why there is no leader to ask, member by member.
    var obstacle: BanyanError {
        var said: [String] = []
        var isAnswered = false
        var unknownHosts = 0
        for node in nodes {
            switch findings[node] {
            case nil: said.append("\(node) was not asked yet")
            case .silent: said.append("\(node) does not answer")
            case .unreachable(let reason), .hopeless(let reason): said.append("\(node): \(reason)")
            case .noSuchHost(let host):
                said.append("\(node): no such host: \(host)")
                unknownHosts += 1
            case .stated(let statement):
                isAnswered = true
                if let reason = statement.startingReason {
                    said.append("\(node) has not begun: \(reason)")
                } else if statement.isRemoved {
                    said.append("\(node) was removed from its cluster")
                } else if statement.leads {
                    said.append("\(node) leads, and does not answer requests in time")
                } else if statement.leader.isEmpty {
                    said.append("\(node) knows no leader")
                } else {
                    said.append("\(node) says that \(statement.leader) leads" + reach(statement.leader))
                }
            }
        }
        let text = said.joined(separator: "; ")
        if unknownHosts == nodes.count { return .noSuchHost(text) }
        return isAnswered ? .noQuorum(text) : .unreachable(text)
    }

    /// What became of the address that somebody gave for the leader's.
    private func reach(_ address: String) -> String {
        switch findings[address] {
        case .unreachable, .hopeless, .noSuchHost:
            ", which can't be reached from here (\(findings[address]?.reason ?? "")): add the address at which it is found from here to --nodes"
        case .silent: ", which does not answer"
        case .stated(let statement) where statement.leads: ""
        case .stated, nil: ", which does not say so itself"
        }
    }
}
