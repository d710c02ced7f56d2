import FileTree
import NIOCore
import Raft
import WireProtocol

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
        var offences: [Offence] = []
        /// Rare branches that were taken.
        var branches: [Branch] = []
    }

    /// A message with what travels beside the core.
    struct Envelope {
        var message: Message
        var entries: [SimulatedEntry] = []
        var snapshot: MemoryStore?
    }

    private struct WaitingRead {
        var index: Index
        var waiter: Waiter
        var query: ByteBuffer
        var since: Nanoseconds
    }

    enum Answer {
        case result(ByteBuffer, index: Index, term: Term)
        case notLeader(PeerID?)
        /// Nothing was proposed.
        case refused
        case unknown
        /// A read by lease found none.
        case noLease
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
    private var reads: [UInt64: (waiter: Waiter, query: ByteBuffer, isLease: Bool)] = [:]
    private var waitingReads: [WaitingRead] = []
    private var lastContext: UInt64
    private var receivedState: MemoryStore?
    /// Grows with each life of the process: what was meant for an earlier one is lost.
    private(set) var life = 0
    private(set) var executed: Index = 0
    /// When this leadership began, and the state's log time then.
    private var leadership: (since: Nanoseconds, logTime: UInt64) = (0, 0)
    /// By how much this member's wall clock is ahead of its other one.
    private let wallClockOffset: UInt64
    /// The index of this leader's command that brings sessions into force.
    private var raising: Index?

    private let limits: Limits

    init(position: Int, disk: SimulatedDisk, limits: Limits, wallClockOffset: UInt64, mutant: Mutant?) {
        self.limits = limits
        self.wallClockOffset = wallClockOffset
        self.position = position
        id = PeerID(UInt64(position + 1))
        self.disk = disk
        self.mutant = mutant
        lastContext = UInt64(position + 1) << 40
    }

    var isRunning: Bool { core != nil }
    /// What it holds more of than it may, in words.
    var exceededBound: String? {
        if let exceeded = core?.exceededBound { return exceeded }
        let held = [("promises", held.count), ("reads", reads.count + waitingReads.count), ("writes", waiters.count)]
        return held.first { $0.1 > 10_000 }.map { "\($0.1) \($0.0)" }
    }
    var durableIndex: Index { (try? State(disk.state))?.tree.applied.index ?? 0 }
    var digest: StateDigest? { state?.tree.applied.digest }
    var logTime: UInt64 { state?.tree.applied.logTime ?? 0 }

    /// A member whose disk lost what it had acknowledged can't take part any more: it has to be replaced.
    private(set) var isLost = false
    /// It ended at somebody's word, and will not start again.
    private(set) var hasEnded = false
    var canStart: Bool { !isRunning && !isLost && !hasEnded }

    /// A peer closed the connection and said why. Whatever it said, this member goes on.
    func hear(_ goodbye: Goodbye) {
        guard mutant == .goodbyeBelieved, goodbye.code == .recovered else { return }
        hasEnded = true
        core = nil
        state = nil
        life += 1
    }

    /// The disk is wiped, or rotten where it can't be read any more.
    func lose() {
        isLost = true
        core = nil
        state = nil
        life += 1
    }

    /// The fault of a wiped voter that goes on under its old name.
    func forget(_ disk: SimulatedDisk) { self.disk = disk }

    // MARK: life and death

    func start(
        seed: UInt64, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        // A record with a wrong checksum may have been acknowledged: this member says so, and votes no more.
        if !disk.damaged.isEmpty {
            isLost = true
            return Requests()
        }
        let state = try State(disk.state)
        let applied = state.tree.applied.index
        try invariants.found(state: applied, disk: disk, member: position)
        let view = LogView(
            compactedIndex: disk.compactedIndex, compactedTerm: disk.compactedTerm, entries: disk.entries.map(\.header),
            configurations: disk.configurations)
        var core = RaftCore(
            id: id, hardState: disk.hardState, log: view, applied: applied, limits: limits, seed: seed, now: now,
            mutant: mutant)
        invariants.restarted(core, state: applied, disk: disk, member: position)
        self.state = state
        executed = applied
        log = disk.entries
        life += 1
        (held, completedWrite, isSwitching) = ([], 0, false)
        raising = nil
        lastContext = seed >> 2
        let output = core.takeOutput()
        self.core = core
        var requests = Requests()
        try perform(output, &requests, &invariants)
        return requests
    }

    /// - Parameter isFull: the disk had no room for what was under way.
    func crash(isFull: Bool = false, using generator: inout SeededGenerator) {
        if mutant == .appliedOutsideTransaction, let state, !isSwitching { disk.state = state.tree.tornCommit }
        disk.crash(mutant: mutant, isFull: isFull, using: &generator)
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
            try invariants.applied(index, state.tree.applied, member: position, now: now)
            if let waiter = waiters.removeValue(forKey: index) {
                requests.answers.append((waiter, .result(answer, index: index, term: entry.header.term)))
            }
        }
        let more = try step(.applied(executed), now: now, &invariants)
        requests.merge(more)
        try answerReads(&requests)
        // Sessions at once; the digest's other hash when there is something for it.
        let version = state.tree.applied.clusterVersion
        if let core, core.role == .leader, version < Applied.clusterVersionMax, core.applied >= raising ?? 0,
            version < 2 || core.applied >= 64
        {
            var command = ByteBuffer()
            RaiseVersion(to: version + 1).write(to: &command)
            try propose(command, for: nil, now: now, &requests, &invariants)
            raising = self.core?.log.lastIndex
        }
        return requests
    }

    func entriesRead(
        _ request: EntriesRequest, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        // What can't be read may have been acknowledged: this member may not lead or vote as if it had it.
        if disk.damaged.contains(where: { $0 >= request.first && $0 <= request.last }) {
            lose()
            return Requests()
        }
        let found = log.filter { $0.header.index >= request.first && $0.header.index <= request.last }
            .prefix(bytesMax: request.bytesMax)
        return try step(
            .entriesRead(peer: request.peer, entries: found.map(\.header)), now: now, &invariants)
    }

    func snapshotEnded(_ peer: PeerID, installed: Index?, now: Nanoseconds, _ invariants: inout Invariants) throws
        -> Requests
    {
        try step(.snapshotEnded(peer: peer, installed: installed), now: now, &invariants)
    }

    /// Changes the membership, if it can be changed now.
    func change(
        _ changes: [MembershipChange], now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> (refusal: MembershipRefusal?, requests: Requests) {
        let requests = try step(.tick, now: now, &invariants)
        guard let core else { return (.notLeader, requests) }
        if let refusal = core.membershipRefusal(of: changes) { return (refusal, requests) }
        var all = try step(.changeMembership(changes), now: now, &invariants)
        all.merge(requests)
        return (nil, all)
    }

    func transferLeadership(now: Nanoseconds, _ invariants: inout Invariants) throws -> Requests {
        try step(.transferLeadership(to: nil), now: now, &invariants)
    }

    /// The state's last commit, as a snapshot for a peer.
    func snapshot(for peer: PeerID) throws -> Envelope? {
        guard let core, core.role == .leader else { return nil }
        let applied = try State(disk.state).tree.applied
        let metadata = SnapshotMetadata(
            index: applied.index, term: applied.term, configuration: core.log.configuration(at: applied.index))
        return Envelope(
            message: Message(from: id, to: peer, term: core.term, body: .installSnapshot(metadata)),
            snapshot: mutant == .sessionsNotInSnapshot ? disk.state.withoutSessions : disk.state)
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
            disk.enqueueCompaction(
                SnapshotMetadata(
                    index: log.compactedIndex, term: log.compactedTerm,
                    configuration: log.configuration(at: log.compactedIndex)))
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
        guard let core, let state else { return requests }
        if let refusal = core.proposalRefusal() {
            switch refusal {
            case .busy: requests.answers.append((waiter, .refused))
            case .notLeader(let leader): requests.answers.append((waiter, .notLeader(leader)))
            }
        } else if let error = CommandHeader.refusal(of: command, clusterVersion: state.tree.applied.clusterVersion) {
            var answer = ByteBuffer()
            Outcome.failed(error, revision: 0).write(to: &answer)
            requests.answers.append((waiter, .result(answer, index: 0, term: 0)))
        } else {
            var command = command
            if OpenSession.isOne(command), state.tree.applied.clusterVersion >= OpenSession.ownedVersion {
                command.clear()
                OpenSession.write(to: &command, owner: SessionOwner(host: 1, connection: UInt64(waiter.client)))
            }
            try propose(command, for: waiter, now: now, &requests, &invariants)
        }
        return requests
    }

    private func propose(
        _ command: ByteBuffer, for waiter: Waiter?, now: Nanoseconds, _ requests: inout Requests,
        _ invariants: inout Invariants
    ) throws {
        guard var core, core.proposalRefusal() == nil else { return }
        var command = command
        let logTime =
            mutant == .logTimeFromWallClock
            ? now / 1_000_000 + wallClockOffset : leadership.logTime + (now - leadership.since) / 1_000_000
        CommandHeader.stamp(&command, at: command.readerIndex, logTime: logTime, wallTime: 0)
        let index = core.log.lastIndex + 1
        waiters[index] = waiter
        let size = UInt32(command.readableBytes + 28)
        core.step(.propose(sizes: [size]), now: now)
        let header = EntryHeader(index: index, term: core.term, kind: .command, size: size)
        self.core = core
        try keep([SimulatedEntry(header: header, payload: command)], &invariants)
        try finishStep(&requests, &invariants)
    }

    func read(
        _ query: ByteBuffer, isLease: Bool, for waiter: Waiter, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        lastContext += 1
        let context = mutant == .contextReused ? UInt64(waiter.client) : lastContext
        reads[context] = (waiter, query, isLease)
        return try step(isLease ? .leaseRead(context: context) : .readIndex(context: context), now: now, &invariants)
    }

    // MARK: a step

    private func step(
        _ event: Event, now: Nanoseconds, _ invariants: inout Invariants,
        then: (inout Invariants) throws -> Void = { _ in }
    ) throws -> Requests {
        var requests = Requests()
        guard core != nil else { return requests }
        let (role, term, changes) = (core?.role, core?.term, core?.log.configurationChanges)
        let lastIndex = core?.log.lastIndex ?? 0
        core?.step(event, now: now)
        if let core, core.log.lastIndex < lastIndex { requests.branches.append(.truncation) }
        if let changes, let after = core?.log, after.configurationChanges > changes,
            after.configurationIndex <= lastIndex,
            after.lastIndex >= after.configurationIndex, role != .leader, receivedState == nil
        {
            requests.branches.append(.configurationUndone)
        }
        try then(&invariants)
        if role != .leader, core?.role == .leader { leadership = (now, state?.tree.applied.logTime ?? 0) }
        try keepOwnEntries(&invariants)
        if let core, changes != core.log.configurationChanges, core.configuration.isJoint {
            requests.branches.append(.joint)
        }
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

    private func keepOwnEntries(_ invariants: inout Invariants) throws {
        guard let core, core.role == .leader else { return }
        while (log.last?.header.index ?? core.log.compactedIndex) < core.log.lastIndex {
            let index = (log.last?.header.index ?? core.log.compactedIndex) + 1
            let configuration = core.log.configurations(in: index..<index + 1).first?.configuration
            let payload = configuration.map(SimulatedEntry.payload) ?? ByteBuffer()
            let header = EntryHeader(
                index: index, term: core.term, kind: configuration == nil ? .noOperation : .configuration,
                size: UInt32(28 + payload.readableBytes))
            try keep([SimulatedEntry(header: header, payload: payload, configuration: configuration)], &invariants)
        }
    }

    private func keep(_ entries: [SimulatedEntry], _ invariants: inout Invariants) throws {
        guard let first = entries.first?.header.index, let core else { return }
        while let last = log.last, last.header.index >= first { log.removeLast() }
        for entry in entries {
            let previous = log.last?.header.term ?? core.log.term(at: entry.header.index - 1) ?? 0
            let old = entry.configuration == nil ? nil : log.last { $0.configuration != nil }?.configuration
            log.append(entry)
            try invariants.appended(entry, after: previous, replacing: old)
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
            guard let (waiter, query, isLease) = reads.removeValue(forKey: state.context) else { continue }
            if isLease { requests.branches.append(state.index == nil ? .leaseRefused : .leaseRead) }
            if let index = state.index {
                waitingReads.append(
                    WaitingRead(index: index, waiter: waiter, query: query, since: core?.now ?? 0))
            } else {
                requests.answers.append((waiter, isLease ? .noLease : .refused))
            }
        }
        try answerReads(&requests)
        requests.offences += output.offences
        requests.entriesToRead += output.entriesToRead
        if !output.entriesToRead.isEmpty { requests.branches.append(.readFromDisk) }
        requests.snapshots += output.snapshotsToSend
    }

    private func hand(_ write: Write, _ requests: inout Requests) throws {
        var write = write
        if mutant == .commitNotSaved { write.hardState.commit = disk.hardState.commit }
        if let snapshot = write.snapshot, let received = receivedState {
            requests.branches.append(write.keepsTail ? .tailKept : .tailDropped)
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
        case .appendResponse(.accepted(let match)) where mutant == .completionByIndexAndTerm:
            core.map { $0.log.term(at: match) != nil && $0.log.term(at: match) == disk.term(at: match) } ?? false
        case .appendResponse: mutant == .acknowledgedBeforeSync
        case .vote, .voteResponse: mutant == .voteNotSaved
        default: false
        }
    }

    private func answerReads(_ requests: inout Requests) throws {
        guard let state else { return }
        var rest: [WaitingRead] = []
        // Their clients wait no longer than that.
        for read in waitingReads where (core?.now ?? 0) - read.since < 5_000_000_000 {
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

extension SimulatedMember.Requests {
    /// Adds what an earlier step wanted.
    mutating func merge(_ other: SimulatedMember.Requests) {
        messages = other.messages + messages
        writes = other.writes + writes
        executions = other.executions + executions
        entriesToRead = other.entriesToRead + entriesToRead
        snapshots = other.snapshots + snapshots
        answers = other.answers + answers
        branches = other.branches + branches
        offences = other.offences + offences
    }
}

extension [SimulatedEntry] {
    /// Stops before the entry that would exceed that many bytes, but has one at least.
    fileprivate func prefix(bytesMax: Int) -> ArraySlice<SimulatedEntry> {
        var bytes = 0
        for (position, entry) in enumerated() {
            bytes += Int(entry.header.size)
            if bytes > bytesMax, position > 0 { return self[..<position] }
        }
        return self[...]
    }
}
