import FileTree
import NIOCore
import Raft

/// A member under simulation: the real core and the real tree, and what stands around them in a server, without threads.
final class SimulatedMember {
    /// Who waits for a request's answer.
    struct Waiter {
        var client: Int
        var request: Int
    }

    /// What a member wants from the world after a step.
    struct Requests {
        var messages: [Envelope] = []
        /// A write that is on its way to the disk.
        var writes: [UInt64] = []
        var executions: [ClosedRange<Index>] = []
        var entriesToRead: [EntriesRequest] = []
        var snapshots: [PeerID] = []
        var answers: [(waiter: Waiter, answer: Answer)] = []
    }

    /// A message with what travels beside the core.
    struct Envelope {
        var message: Message
        var entries: [SimulatedEntry] = []
        var snapshot: MemoryStore?
    }

    enum Answer {
        case result(ByteBuffer, index: Index, term: Term)
        case notLeader(PeerID?)
        /// Nothing was proposed.
        case refused
        case unknown
    }

    private final class State {
        var tree: FileTree<MemoryStore>
        init(_ store: MemoryStore) throws(StateError) { tree = try FileTree(store: store) }
    }

    let position: Int
    let id: PeerID
    let mutant: Mutant?
    var disk: SimulatedDisk
    private(set) var core: RaftCore?
    private var state: State?
    /// As the core sees the log: from behind its compacted index.
    private var log: [SimulatedEntry] = []
    private var held: [HeldMessage] = []
    private var completedWrite: UInt64 = 0
    private var waiters: [Index: Waiter] = [:]
    private var reads: [UInt64: (waiter: Waiter, query: ByteBuffer)] = [:]
    private var waitingReads: [(index: Index, waiter: Waiter, query: ByteBuffer)] = []
    private var lastContext: UInt64
    private var receivedState: MemoryStore?
    /// Grows with each life of the process: what was meant for an earlier one is lost.
    private(set) var life = 0
    private(set) var executed: Index = 0

    init(position: Int, disk: SimulatedDisk, mutant: Mutant?) {
        self.position = position
        id = PeerID(UInt64(position + 1))
        self.disk = disk
        self.mutant = mutant
        lastContext = UInt64(position + 1) << 40
    }

    var isRunning: Bool { core != nil }
    var durableIndex: Index { (try? State(disk.state))?.tree.applied.index ?? 0 }
    var digest: StateDigest? { state?.tree.applied.digest }

    // MARK: life and death

    func start(
        _ configuration: Configuration, seed: UInt64, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        let state = try State(disk.state)
        let applied = state.tree.applied.index
        try invariants.found(state: applied, disk: disk, member: position)
        let view = LogView(
            compactedIndex: disk.compactedIndex, compactedTerm: disk.compactedTerm, entries: disk.entries.map(\.header),
            configurations: [IndexedConfiguration(index: disk.compactedIndex, configuration: configuration)])
        var core = RaftCore(
            id: id, hardState: disk.hardState, log: view, applied: applied, seed: seed, now: now, mutant: mutant)
        invariants.restarted(core, state: applied, disk: disk, member: position)
        self.state = state
        executed = applied
        log = disk.entries
        life += 1
        (held, completedWrite, isSwitching) = ([], 0, false)
        let output = core.takeOutput()
        self.core = core
        var requests = Requests()
        try perform(output, &requests, &invariants)
        return requests
    }

    func crash(using generator: inout SeededGenerator) {
        disk.crash(mutant: mutant, using: &generator)
        core = nil
        state = nil
        log = []
        waiters = [:]
        reads = [:]
        waitingReads = []
        receivedState = nil
        life += 1
    }

    // MARK: what happens to it

    func tick(now: Nanoseconds, _ invariants: inout Invariants) throws -> Requests {
        try step(.tick, now: now, &invariants)
    }

    func receive(_ envelope: Envelope, now: Nanoseconds, _ invariants: inout Invariants) throws -> Requests {
        receivedState = envelope.snapshot
        defer { receivedState = nil }
        return try step(.message(envelope.message), now: now, &invariants) { [self] invariants in
            guard let first = core?.takeAppended() else { return }
            try keep(envelope.entries.filter { $0.header.index >= first }, &invariants)
        }
    }

    func saved(_ write: UInt64, now: Nanoseconds, _ invariants: inout Invariants) throws -> Requests {
        disk.complete(through: write, mutant: mutant)
        completedWrite = write
        return try step(.saved(write: write), now: now, &invariants)
    }

    func execute(_ range: ClosedRange<Index>, now: Nanoseconds, _ invariants: inout Invariants) throws -> Requests {
        var requests = Requests()
        guard let state else { return requests }
        // A snapshot may have taken the place of what was to be executed.
        for index in max(range.lowerBound, executed + 1)..<max(range.upperBound, executed) + 1 {
            guard let entry = entry(index) else { break }
            var answer = ByteBuffer()
            try state.tree.apply(
                index: index, term: entry.header.term, kind: entry.header.kind, payload: entry.payload, answer: &answer)
            executed = index
            try invariants.applied(index, state.tree.applied.digest, member: position)
            if let waiter = waiters.removeValue(forKey: index) {
                requests.answers.append((waiter, .result(answer, index: index, term: entry.header.term)))
            }
        }
        let more = try step(.applied(executed), now: now, &invariants)
        requests.answers += more.answers
        requests.messages = more.messages
        requests.writes = more.writes
        requests.executions = more.executions
        requests.entriesToRead = more.entriesToRead
        requests.snapshots = more.snapshots
        try answerReads(&requests)
        return requests
    }

    func entriesRead(
        _ request: EntriesRequest, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        let found = log.filter { $0.header.index >= request.first && $0.header.index <= request.last }
        return try step(
            .entriesRead(peer: request.peer, entries: found.map(\.header)), now: now, &invariants)
    }

    func snapshotEnded(_ peer: PeerID, installed: Index?, now: Nanoseconds, _ invariants: inout Invariants) throws
        -> Requests
    {
        try step(.snapshotEnded(peer: peer, installed: installed), now: now, &invariants)
    }

    func transferLeadership(now: Nanoseconds, _ invariants: inout Invariants) throws -> Requests {
        try step(.transferLeadership(to: nil), now: now, &invariants)
    }

    /// The state's last commit, as a snapshot for a peer.
    func snapshot(for peer: PeerID, _ configuration: Configuration) throws -> Envelope? {
        guard let core, core.role == .leader else { return nil }
        let applied = try State(disk.state).tree.applied
        let metadata = SnapshotMetadata(index: applied.index, term: applied.term, configuration: configuration)
        return Envelope(
            message: Message(from: id, to: peer, term: core.term, body: .installSnapshot(metadata)),
            snapshot: disk.state)
    }

    /// The state's environment commits, and the log is compacted behind it, but for a tail.
    func commitState(
        keeping tail: UInt64, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        guard let state, let core, receivedState == nil, !isSwitching else { return Requests() }
        try state.tree.commit()
        disk.state = state.tree.committed
        let point = min(executed, core.applied)
        guard point > tail, point - tail > core.log.compactedIndex else { return Requests() }
        let requests = try step(.compact(through: point - tail), now: now, &invariants)
        if let log = self.core?.log {
            disk.enqueueCompaction(index: log.compactedIndex, term: log.compactedTerm)
            self.log.removeAll { $0.header.index <= log.compactedIndex }
        }
        return requests
    }

    /// Between a snapshot's installation and its switch on the disk, the old state's commits would be worth nothing.
    private var isSwitching = false
    private var switchWrite: UInt64 = 0

    func write(
        _ command: ByteBuffer, for waiter: Waiter, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        var requests = try step(.tick, now: now, &invariants)
        guard var core else { return requests }
        if let refusal = core.proposalRefusal() {
            switch refusal {
            case .busy: requests.answers.append((waiter, .refused))
            case .notLeader(let leader): requests.answers.append((waiter, .notLeader(leader)))
            }
            return requests
        }
        let index = core.log.lastIndex + 1
        waiters[index] = waiter
        core.step(.propose(sizes: [UInt32(command.readableBytes + 28)]), now: now)
        let header = EntryHeader(
            index: index, term: core.term, kind: .command, size: UInt32(command.readableBytes + 28))
        self.core = core
        try keep([SimulatedEntry(header: header, payload: command)], &invariants)
        try finishStep(&requests, &invariants)
        return requests
    }

    func read(
        _ query: ByteBuffer, for waiter: Waiter, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        lastContext += 1
        reads[lastContext] = (waiter, query)
        return try step(.readIndex(context: lastContext), now: now, &invariants)
    }

    // MARK: a step

    private func step(
        _ event: Event, now: Nanoseconds, _ invariants: inout Invariants,
        then: (inout Invariants) throws -> Void = { _ in }
    ) throws -> Requests {
        var requests = Requests()
        guard core != nil else { return requests }
        let (role, term) = (core?.role, core?.term)
        core?.step(event, now: now)
        try then(&invariants)
        try keepNoOperation(&invariants)
        if role == .leader, core?.role != .leader || core?.term != term {
            for index in waiters.keys.sorted() {
                if let waiter = waiters[index] { requests.answers.append((waiter, .unknown)) }
            }
            waiters = [:]
        }
        try finishStep(&requests, &invariants)
        return requests
    }

    private func finishStep(_ requests: inout Requests, _ invariants: inout Invariants) throws {
        if let core { try invariants.stepped(core, member: position) }
        if let output = core?.takeOutput() { try perform(output, &requests, &invariants) }
    }

    private func keepNoOperation(_ invariants: inout Invariants) throws {
        guard let core, core.role == .leader else { return }
        while (log.last?.header.index ?? core.log.compactedIndex) < core.log.lastIndex {
            let index = (log.last?.header.index ?? core.log.compactedIndex) + 1
            let header = EntryHeader(index: index, term: core.term, kind: .noOperation, size: 0)
            try keep([SimulatedEntry(header: header, payload: ByteBuffer())], &invariants)
        }
    }

    private func keep(_ entries: [SimulatedEntry], _ invariants: inout Invariants) throws {
        guard let first = entries.first?.header.index, let core else { return }
        while let last = log.last, last.header.index >= first { log.removeLast() }
        for entry in entries {
            let previous = log.last?.header.term ?? core.log.term(at: entry.header.index - 1) ?? 0
            log.append(entry)
            try invariants.appended(entry, after: previous)
        }
    }

    private func entry(_ index: Index) -> SimulatedEntry? {
        guard let first = log.first?.header.index, index >= first, index - first < UInt64(log.count) else { return nil }
        return log[Int(index - first)]
    }

    private func perform(_ output: Output, _ requests: inout Requests, _ invariants: inout Invariants) throws {
        if let write = output.write { try hand(write, &requests) }
        for message in output.messages { send(message, &requests) }
        held += output.messagesAfterWrite
        try releaseHeld(&requests, &invariants)
        if let range = output.apply { requests.executions.append(range) }
        for state in output.readStates {
            guard let (waiter, query) = reads.removeValue(forKey: state.context) else { continue }
            if let index = state.index {
                waitingReads.append((index, waiter, query))
            } else {
                requests.answers.append((waiter, .refused))
            }
        }
        try answerReads(&requests)
        requests.entriesToRead += output.entriesToRead
        requests.snapshots += output.snapshotsToSend
    }

    private func hand(_ write: Write, _ requests: inout Requests) throws {
        var write = write
        if mutant == .commitNotSaved { write.hardState.commit = disk.hardState.commit }
        if let snapshot = write.snapshot, let received = receivedState {
            log = write.keepsTail ? log.filter { $0.header.index > snapshot.index } : []
            state = try State(received)
            executed = snapshot.index
            (isSwitching, switchWrite) = (true, write.number)
        }
        let entries = write.entries.compactMap { entry($0) }
        precondition(entries.count == write.entries.count, "a write came without its entries")
        disk.enqueue(
            write, entries: entries, state: write.snapshot == nil ? nil : receivedState,
            commit: core?.commit ?? 0)
        requests.writes.append(write.number)
    }

    private func send(_ message: Message, _ requests: inout Requests) {
        var envelope = Envelope(message: message)
        if case .append(let append) = message.body { envelope.entries = append.entries.compactMap { entry($0.index) } }
        requests.messages.append(envelope)
    }

    private func releaseHeld(_ requests: inout Requests, _ invariants: inout Invariants) throws {
        if isSwitching, completedWrite >= switchWrite { isSwitching = false }
        var rest: [HeldMessage] = []
        for promise in held {
            guard promise.write <= completedWrite || isReleasedEarly(promise.message) else {
                rest.append(promise)
                continue
            }
            if let core { try invariants.promised(promise.message, disk: disk, core: core, member: position) }
            send(promise.message, &requests)
        }
        held = rest
    }

    private func isReleasedEarly(_ message: Message) -> Bool {
        switch message.body {
        case .appendResponse: mutant == .acknowledgedBeforeSync
        case .vote, .voteResponse: mutant == .voteNotSaved
        default: false
        }
    }

    private func answerReads(_ requests: inout Requests) throws {
        guard let state else { return }
        var rest: [(index: Index, waiter: Waiter, query: ByteBuffer)] = []
        for read in waitingReads {
            guard read.index <= executed else {
                rest.append(read)
                continue
            }
            var answer = ByteBuffer()
            try state.tree.answer(read.query, into: &answer)
            requests.answers.append((read.waiter, .result(answer, index: 0, term: 0)))
        }
        waitingReads = rest
    }
}
