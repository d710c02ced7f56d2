@testable import Driver
@testable import Raft

/// A whole cluster of cores in memory, moved by the commands of a script:
///
///     cluster N            N empty members, 1 to N
///     spare N              N more members that the configuration does not name yet
///     log ID TERM...       before anything ran: the member's log holds entries of these terms
///     term ID TERM         before anything ran: the member has seen this term
///     elect ID             time passes until the member wants to be elected, and nobody else does
///     tick MS              time passes for all, in steps of 10 ms
///     stop MS              time passes, and nobody gets a turn in it
///     propose ID COUNT     a client gives the member commands
///     transfer ID TO       the member, which leads, is asked to hand over
///     add ID WHOM...       the member, which leads, is asked to take in learners
///     promote ID WHOM...   ... to let learners vote
///     remove ID WHOM...    ... to let members go
///     exchange ID OLD NEW  ... to let one go and another vote, in one change
///     read ID              a client asks the member for a read index
///     cut A B, isolate A   messages between A and B (all others) are lost;  heal ends it
///     delay A B            messages from A to B are on their way;  deliver A B lets them arrive
///     gather ID, act ID    events come to the member, and nothing of what they lead to is done before it acts
///     append A B I J       the entries I to J of A, which leads, come to B, and that those before them are committed
///     snapshot A B I       a snapshot of A, which leads, that ends with I, comes to B
///     hold ID, release ID  the member's disk is slow: writes wait;  save ID COUNT finishes the first of them
///     crash ID, restart ID the process ends; what its disk had not finished is lost
///     compact ID INDEX     the member's log forgets entries up to INDEX
///     show                 prints all members
///     sent                 prints how many entries were sent to each peer since the last time, doubled ones too
///     progress ID          prints what the member, which leads, believes of its peers
struct ScriptedCluster {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private struct Node {
        var core: RaftCore?
        var isHolding = false
        var isGathering = false
        var pendingWrites: [Write] = []
        var promises = Promises()
        // What is on the disk:
        var hardState = HardState()
        var entries: [EntryHeader] = []
        var compacted: (index: Index, term: Term) = (0, 0)
        var configurations: [IndexedConfiguration] = []
    }

    /// A fault to plant: what one write makes certain is taken for what all of them do.
    var releasesAllPromises = false

    /// The members of the first configuration.
    private var founders = 0

    private var nodes: [Node] = []
    private var now: Nanoseconds = 1_000_000_000
    private var cuts: Set<[UInt64]> = []
    private var network: [Message] = []
    /// By sender and receiver, what is on its way between two whose messages are delayed.
    private var delayed: [[UInt64]: [Message]] = [:]
    private var lastContext: UInt64 = 0
    private var answers: [String] = []
    /// By peer, entries that were sent to it.
    private var sentEntries: [UInt64: Int] = [:]

    /// Runs one command and answers with the lines that it prints.
    mutating func run(_ line: String) throws -> [String] {
        let words = line.split(separator: " ").map(String.init)
        let numbers = words.dropFirst().compactMap(UInt64.init)
        guard let verb = words.first, numbers.count == words.count - 1 else {
            throw Failure(description: "can't read '\(line)'")
        }
        answers = []
        switch (verb, numbers.count) {
        case ("cluster", 1):
            nodes = Array(repeating: Node(), count: Int(numbers[0]))
            founders = nodes.count
        case ("spare", 1): nodes += Array(repeating: Node(), count: Int(numbers[0]))
        case ("add", 2...): change(numbers) { .addLearner(Member(id: $0, peer: PeerID($0), address: "\($0)")) }
        case ("promote", 2...): change(numbers) { .promote(PeerID($0)) }
        case ("remove", 2...): change(numbers) { .remove(PeerID($0)) }
        case ("exchange", 3):
            change([numbers[0]] + numbers.dropFirst()) {
                $0 == numbers[1] ? .remove(PeerID($0)) : .promote(PeerID($0))
            }
        case ("log", 1...): writeLog(position(numbers[0]), terms: numbers.dropFirst())
        case ("term", 2): nodes[position(numbers[0])].hardState.term = numbers[1]
        case ("elect", 1): elect(position(numbers[0]))
        case ("tick", 1): tick(milliseconds: numbers[0])
        case ("stop", 1): now += numbers[0] * 1_000_000
        case ("delay", 2): delayed[numbers] = []
        case ("deliver", 2): network += delayed.removeValue(forKey: numbers) ?? []
        case ("gather", 1): nodes[position(numbers[0])].isGathering = true
        case ("act", 1):
            nodes[position(numbers[0])].isGathering = false
            step(position(numbers[0]), .tick)
        case ("append", 4): append(position(numbers[0]), to: PeerID(numbers[1]), numbers[2]...numbers[3])
        case ("snapshot", 3): sendSnapshot(from: position(numbers[0]), to: PeerID(numbers[1]), through: numbers[2])
        case ("propose", 2): propose(position(numbers[0]), count: Int(numbers[1]))
        case ("transfer", 2): step(position(numbers[0]), .transferLeadership(to: PeerID(numbers[1])))
        case ("read", 1): read(position(numbers[0]))
        case ("cut", 2): cuts.formUnion([[numbers[0], numbers[1]], [numbers[1], numbers[0]]])
        case ("isolate", 1):
            for other in nodes.indices.map({ UInt64($0 + 1) }) {
                cuts.formUnion([[numbers[0], other], [other, numbers[0]]])
            }
        case ("heal", 0): cuts = []
        case ("hold", 1): nodes[position(numbers[0])].isHolding = true
        case ("release", 1): release(position(numbers[0]))
        case ("save", 2): save(position(numbers[0]), atMost: Int(numbers[1]))
        case ("crash", 1): crash(position(numbers[0]))
        case ("restart", 1): restart(position(numbers[0]))
        case ("compact", 2): compact(position(numbers[0]), through: numbers[1])
        case ("show", 0): show()
        case ("sent", 0):
            answers += nodes.indices.map { "\($0 + 1) was sent \(sentEntries[UInt64($0 + 1)] ?? 0)" }
            sentEntries = [:]
        case ("progress", 1):
            for peer in nodes[position(numbers[0])].core?.peers ?? [] {
                answers.append("\(peer.peer) \(peer.state) match \(peer.match) next \(peer.next)")
            }
        default: throw Failure(description: "no such command: '\(line)'")
        }
        settle()
        return answers
    }

    private func position(_ id: UInt64) -> Int { Int(id) - 1 }

    private var configuration: Configuration {
        Configuration(
            clusterID: 1,
            members: (1...UInt64(founders)).map { Member(id: $0, peer: PeerID($0), address: "\($0)") })
    }

    // MARK: commands

    private mutating func writeLog(_ node: Int, terms: ArraySlice<Term>) {
        nodes[node].entries = terms.enumerated().map {
            EntryHeader(index: UInt64($0 + 1), term: $1, kind: .command, size: 100)
        }
        nodes[node].hardState.term = terms.last ?? 0
    }

    private mutating func startAll() {
        for node in nodes.indices where nodes[node].core == nil && !crashed.contains(node) { restart(node) }
    }

    private var crashed: Set<Int> = []

    private mutating func restart(_ node: Int) {
        crashed.remove(node)
        let disk = nodes[node]
        let log = LogView(
            compactedIndex: disk.compacted.index, compactedTerm: disk.compacted.term, entries: disk.entries,
            configurations: [IndexedConfiguration(index: 0, configuration: configuration)] + disk.configurations)
        nodes[node].core = RaftCore(
            id: PeerID(UInt64(node + 1)), hardState: disk.hardState, log: log, applied: disk.compacted.index,
            seed: UInt64(node), now: now)
        nodes[node].isHolding = false
    }

    private mutating func crash(_ node: Int) {
        nodes[node].core = nil
        nodes[node].pendingWrites = []
        nodes[node].promises = Promises()
        crashed.insert(node)
        network.removeAll { $0.from.rawValue == UInt64(node + 1) }
    }

    private mutating func elect(_ node: Int) {
        startAll()
        now += 600_000_000
        step(node, .tick)
    }

    private mutating func tick(milliseconds: UInt64) {
        startAll()
        for _ in 0..<milliseconds / 10 {
            now += 10_000_000
            for node in nodes.indices { step(node, .tick) }
            settle()
        }
    }

    private mutating func append(_ node: Int, to peer: PeerID, _ range: ClosedRange<Index>) {
        guard let core = nodes[node].core, let previous = core.log.term(at: range.lowerBound - 1) else { return }
        let entries = nodes[node].entries.filter { range.contains($0.index) }
        let append = Message.Append(
            previousIndex: range.lowerBound - 1, previousTerm: previous, commit: range.lowerBound - 1, entries: entries)
        network.append(Message(from: core.id, to: peer, term: core.term, body: .append(append)))
    }

    private mutating func propose(_ node: Int, count: Int) {
        // The time passes first: the answer to the question below holds for it, and no longer.
        step(node, .tick)
        if let refusal = nodes[node].core?.proposalRefusal() {
            switch refusal {
            case .busy: answers.append("busy")
            case .notLeader(let leader): answers.append("not the leader; it is \(leader?.description ?? "unknown")")
            }
            return
        }
        step(node, .propose(sizes: Array(repeating: 100, count: count)))
    }

    private mutating func change(_ numbers: [UInt64], _ change: (UInt64) -> MembershipChange) {
        let (node, changes) = (position(numbers[0]), numbers.dropFirst().map(change))
        if let refusal = nodes[node].core?.membershipRefusal(of: changes) {
            answers.append("refused: \(refusal)")
        } else {
            step(node, .changeMembership(changes))
        }
    }

    private mutating func read(_ node: Int) {
        lastContext += 1
        step(node, .readIndex(context: lastContext))
    }

    private mutating func release(_ node: Int) {
        nodes[node].isHolding = false
        save(node)
    }

    private mutating func compact(_ node: Int, through index: Index) {
        step(node, .applied(index))
        step(node, .compact(through: index))
        guard let core = nodes[node].core else { return }
        nodes[node].compacted = (core.log.compactedIndex, core.log.compactedTerm)
        nodes[node].entries.removeAll { $0.index <= core.log.compactedIndex }
    }

    private mutating func show() {
        startAll()
        for (position, node) in nodes.enumerated() {
            guard let core = node.core else {
                answers.append("\(position + 1) down")
                continue
            }
            let terms = stride(from: core.log.firstIndex, through: core.log.lastIndex, by: 1).map { index in
                core.log.term(at: index).map { "\($0)" } ?? "?"
            }
            let log = terms.isEmpty ? "-" : terms.joined(separator: " ")
            let start = core.log.compactedIndex > 0 ? " from \(core.log.firstIndex)" : ""
            answers.append(
                "\(position + 1) \(core.role.rawValue) term \(core.term) commit \(core.commit) applied \(core.applied) log\(start) \(log)"
                    + (core.configuration == configuration ? "" : " members \(text(core.configuration))")
            )
        }
    }

    private func text(_ configuration: Configuration) -> String {
        let members = configuration.members.map { $0.isLearner ? "(\($0.id))" : "\($0.id)" }
        let outgoing = configuration.outgoingVoters.map(\.description)
        return (members + (outgoing.isEmpty ? [] : ["and"]) + outgoing).joined(separator: " ")
    }

    // MARK: the machine

    private mutating func step(_ node: Int, _ event: Event) {
        guard nodes[node].core != nil else { return }
        nodes[node].core?.step(event, now: now)
        guard !nodes[node].isGathering, let output = nodes[node].core?.takeOutput() else { return }
        if let write = output.write { nodes[node].pendingWrites.append(write) }
        network += output.messages
        for message in output.messages {
            if case .append(let append) = message.body {
                sentEntries[message.to.rawValue, default: 0] += append.entries.count
            }
        }
        nodes[node].promises.hold(output.messagesAfterWrite)
        network += nodes[node].promises.release()
        for state in output.readStates {
            answers.append("read at \(node + 1): \(state.index.map { "index \($0)" } ?? "refused")")
        }
        if let range = output.apply { step(node, .applied(range.upperBound)) }
        for request in output.entriesToRead {
            let entries = nodes[node].entries.filter { $0.index >= request.first && $0.index <= request.last }
            step(node, .entriesRead(peer: request.peer, entries: entries))
        }
        for peer in output.snapshotsToSend {
            answers.append("\(node + 1) sends \(peer) a snapshot")
            if let applied = nodes[node].core?.applied { sendSnapshot(from: node, to: peer, through: applied) }
        }
        if !nodes[node].isHolding { save(node) }
    }

    /// The whole state travels at once: what matters here is what the cores make of it.
    private mutating func sendSnapshot(from node: Int, to peer: PeerID, through index: Index) {
        guard let core = nodes[node].core, let term = core.log.term(at: index) else { return }
        let snapshot = SnapshotMetadata(
            index: index, term: term, configuration: core.log.configuration(at: index))
        network.append(
            Message(from: core.id, to: peer, term: core.term, body: .installSnapshot(snapshot)))
    }

    /// Finishes writes of the node's disk, in their order; with each the promises go that waited for it.
    private mutating func save(_ node: Int, atMost count: Int = .max) {
        var left = count
        while left > 0, !nodes[node].pendingWrites.isEmpty {
            left -= 1
            let write = nodes[node].pendingWrites.removeFirst()
            if let snapshot = write.snapshot {
                nodes[node].compacted = (snapshot.index, snapshot.term)
                nodes[node].entries.removeAll { !write.keepsTail || $0.index <= snapshot.index }
                nodes[node].configurations = [
                    IndexedConfiguration(index: snapshot.index, configuration: snapshot.configuration)
                ]
            }
            if write.truncates { nodes[node].entries.removeAll { $0.index >= write.entries.lowerBound } }
            nodes[node].configurations.removeAll { $0.index >= write.entries.lowerBound }
            nodes[node].configurations += nodes[node].core?.log.configurations(in: write.entries) ?? []
            for index in write.entries {
                let term = nodes[node].core?.log.term(at: index) ?? 0
                nodes[node].entries.append(EntryHeader(index: index, term: term, kind: .command, size: 100))
            }
            nodes[node].hardState = write.hardState
            nodes[node].promises.completed(write.number)
            network += nodes[node].promises.release()
            if releasesAllPromises { network += nodes[node].promises.release { _ in true } }
            step(node, .saved(write: write.number))
        }
    }

    /// Delivers messages until there are none.
    private mutating func settle() {
        while !network.isEmpty {
            let message = network.removeFirst()
            let link = [message.from.rawValue, message.to.rawValue]
            guard !cuts.contains(link) else { continue }
            if delayed[link] != nil {
                delayed[link]?.append(message)
                continue
            }
            step(position(message.to.rawValue), .message(message))
        }
    }
}
