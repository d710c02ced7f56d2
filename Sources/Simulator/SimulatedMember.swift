import Driver
import FileTree
import NIOCore
import Raft
import WireProtocol

/// A member under simulation: the driver, the core and the tree of a real one, on a disk and a network without threads.
final class SimulatedMember {
    /// What the state machine is to do next.
    struct Execution {
        var range: ClosedRange<Index>
        /// Nil: as they stand in the log.
        var records: [ByteBuffer]?
        var waiters: [Waiter?] = []
    }

    /// What a member wants from the world after a step.
    struct Requests {
        var messages: [Envelope] = []
        /// A write that is on its way to the disk.
        var writes: [UInt64] = []
        var executions: [Execution] = []
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
    private var driver: Driver?
    /// A copy.
    var core: RaftCore? { driver?.core }
    var role: Role? { driver.map { $0.core.role } }
    var term: Term? { driver.map { $0.core.term } }
    private var state: State?
    /// Reads that wait until everything up to an index is executed.
    private var waitingReads: [(index: Index, read: PendingRead)] = []
    private var receivedState: MemoryStore?
    /// Grows with each life of the process: what was meant for an earlier one is lost.
    private(set) var life = 0
    private(set) var executed: Index = 0
    /// By how much this member's wall clock is ahead of its other one, in milliseconds.
    private let wallClockOffset: UInt64

    private let limits: Limits

    init(position: Int, disk: SimulatedDisk, limits: Limits, wallClockOffset: UInt64, mutant: Mutant?) {
        self.limits = limits
        self.wallClockOffset = wallClockOffset
        self.position = position
        id = PeerID(UInt64(position + 1))
        self.disk = disk
        self.mutant = mutant
    }

    var isRunning: Bool { driver != nil }
    /// What it holds more of than it may, in words.
    var exceededBound: String? {
        waitingReads.count > 10_000 ? "\(waitingReads.count) reads" : driver?.exceededBound
    }
    var durableIndex: Index { (try? State(disk.state))?.tree.applied.index ?? 0 }
    var digest: StateDigest? { state?.tree.applied.digest }
    /// What log time is, by its driver.
    func driverLogTime(now: Nanoseconds) -> UInt64 { driver?.logTime(now: now) ?? 0 }

    /// Directories that are unlinked, and not emptied yet.
    var orphans: UInt64 { state?.tree.applied.orphans ?? 0 }
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
        driver = nil
        state = nil
        life += 1
    }

    /// The disk is wiped, or rotten where it can't be read any more.
    func lose() {
        isLost = true
        driver = nil
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
        let core = RaftCore(
            id: id, hardState: disk.hardState, log: view, applied: applied, limits: limits, seed: seed, now: now,
            mutant: mutant)
        invariants.restarted(core, state: applied, disk: disk, member: position)
        self.state = state
        executed = applied
        life += 1
        isSwitching = false
        driver = Driver(
            core, state: state.tree.applied, knownVersion: Applied.clusterVersionMax, context: seed >> 2, mutant: mutant
        )
        var requests = Requests()
        try finishStep(&requests, &invariants)
        return requests
    }

    /// - Parameter isFull: the disk had no room for what was under way.
    func crash(isFull: Bool = false, using generator: inout SeededGenerator) {
        if mutant == .appliedOutsideTransaction, let state, !isSwitching { disk.state = state.tree.tornCommit }
        disk.crash(mutant: mutant, isFull: isFull, using: &generator)
        driver = nil
        state = nil
        waitingReads = []
        receivedState = nil
        life += 1
    }

    // MARK: what happens to it

    func tick(now: Nanoseconds, _ invariants: inout Invariants) throws -> Requests {
        try step(now: now, &invariants) { driver in
            driver.step(.tick, now: now)
            driver.reclaimIfDue(now: now)
            driver.propose(now: now, wallTime: wallTime(now))
        }
    }

    func receive(_ envelope: Envelope, now: Nanoseconds, _ invariants: inout Invariants) throws -> Requests {
        receivedState = envelope.snapshot
        defer { receivedState = nil }
        let records = envelope.entries.reduce(into: ByteBuffer()) { $0.writeImmutableBuffer($1.record) }
        return try step(.message(envelope.message), records: records, now: now, &invariants)
    }

    func saved(_ write: UInt64, now: Nanoseconds, _ invariants: inout Invariants) throws -> Requests {
        disk.complete(through: write, mutant: mutant)
        if isSwitching, write >= switchWrite { isSwitching = false }
        return try step(.saved(write: write), now: now, &invariants)
    }

    func execute(
        _ execution: Execution, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        var requests = Requests()
        guard let state else { return requests }
        let range = execution.range
        // A snapshot may have taken the place of what was to be executed.
        for index in max(range.lowerBound, executed + 1)..<max(range.upperBound, executed) + 1 {
            let offset = Int(index - range.lowerBound)
            let entry = try execution.records.map { try SimulatedEntry(record: $0[offset]) } ?? disk.entry(index)
            guard let entry else { break }
            var answer = ByteBuffer()
            try state.tree.apply(
                index: index, term: entry.header.term, kind: entry.header.kind, payload: entry.payload, answer: &answer)
            executed = index
            try invariants.applied(index, state.tree.applied, member: position, now: now)
            if !execution.waiters.isEmpty, let waiter = execution.waiters[offset] {
                requests.answers.append((waiter, .result(answer, index: index, term: entry.header.term)))
            }
        }
        requests.merge(
            try step(now: now, &invariants) { driver in
                driver.executed(state.tree.applied, now: now)
                // Sessions at once; the digest's other hash when there is something for it.
                let known: UInt16 = driver.core.applied >= 64 ? Applied.clusterVersionMax : 2
                for peer in driver.core.configuration.peers { driver.knows(peer, clusterVersion: known) }
                _ = driver.raiseVersionIfPossible()
                driver.reclaimIfDue(now: now)
                driver.propose(now: now, wallTime: wallTime(now))
            })
        try answerReads(&requests)
        return requests
    }

    /// In nanoseconds since 1970, by a clock that nobody has set.
    private func wallTime(_ now: Nanoseconds) -> Int64 { Int64(clamping: now + wallClockOffset * 1_000_000) }

    func entriesRead(
        _ request: EntriesRequest, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        // What can't be read may have been acknowledged: this member may not lead or vote as if it had it.
        if disk.damaged.contains(where: { $0 >= request.first && $0 <= request.last }) {
            lose()
            return Requests()
        }
        let found = disk.entries.filter { $0.header.index >= request.first && $0.header.index <= request.last }
            .prefix(bytesMax: request.bytesMax)
        return try step(now: now, &invariants) {
            $0.entriesRead(for: request.peer, found.map(\.header), found.map(\.record), now: now)
        }
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
        }
        return requests
    }

    /// Between a snapshot's installation and its switch on the disk, the old state's commits would be worth nothing.
    private var isSwitching = false
    private var switchWrite: UInt64 = 0

    func write(
        _ command: ByteBuffer, for waiter: Waiter, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        var requests = Requests()
        guard let core, let state else { return requests }
        let version = state.tree.applied.clusterVersion
        if core.proposalRefusal() == nil, let error = CommandHeader.refusal(of: command, clusterVersion: version) {
            if error == .unsupported, CommandHeader.mayBeExecuted(command) {
                requests.answers.append((waiter, .refused))
                return requests
            }
            var answer = ByteBuffer()
            Outcome.failed(error, revision: 0).write(to: &answer)
            requests.answers.append((waiter, .result(answer, index: 0, term: 0)))
            return requests
        }
        var command = command
        if CommandHeader.opensSession(command), version >= OpenSession.ownedVersion {
            command.clear()
            OpenSession(owner: SessionOwner(host: 1, connection: UInt64(max(0, waiter.client)))).write(to: &command)
        }
        return try step(now: now, &invariants) { driver in
            driver.offer(command, for: waiter, deadline: .max)
            driver.propose(now: now, wallTime: wallTime(now))
        }
    }

    /// Their clients wait no longer than that.
    private static let readMax: Nanoseconds = 5_000_000_000

    func read(
        _ query: ByteBuffer, isLease: Bool, for waiter: Waiter, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        let read = PendingRead(
            kind: isLease ? .lease : .linearizable, waiter: waiter, query: query, deadline: now + Self.readMax)
        return try step(now: now, &invariants) { driver in
            _ = driver.expireReads(now: now)
            driver.read([read], isLease: isLease, now: now)
        }
    }

    // MARK: a step

    private func step(
        _ event: Event, records: ByteBuffer? = nil, now: Nanoseconds, _ invariants: inout Invariants
    ) throws -> Requests {
        try step(now: now, &invariants) { $0.step(event, records: records, now: now) }
    }

    private func step(
        now: Nanoseconds, _ invariants: inout Invariants, _ happens: (inout Driver) -> Void
    ) throws -> Requests {
        var requests = Requests()
        let before = driver.map { driver in
            (driver.core.role, driver.core.log.configurationChanges, driver.core.log.lastIndex)
        }
        guard let (role, changes, lastIndex) = before else { return requests }
        driver?.take(happens)
        driver.map { driver in
            let core = driver.core
            if core.log.lastIndex < lastIndex { requests.branches.append(.truncation) }
            guard core.log.configurationChanges > changes else { return }
            let isOlder = core.log.configurationIndex <= lastIndex && core.log.lastIndex >= core.log.configurationIndex
            if isOlder, role != .leader, receivedState == nil { requests.branches.append(.configurationUndone) }
            if core.configuration.isJoint { requests.branches.append(.joint) }
        }
        try finishStep(&requests, &invariants)
        return requests
    }

    private func finishStep(_ requests: inout Requests, _ invariants: inout Invariants) throws {
        guard let actions = driver?.takeActions() else { return }
        try driver.map { try invariants.stepped($0.core, member: position) }
        for action in actions { try perform(action, &requests, &invariants) }
        try answerReads(&requests)
    }

    private func perform(
        _ action: Action, _ requests: inout Requests, _ invariants: inout Invariants
    ) throws {
        switch action {
        case .save(let write, let records):
            if let core { try save(write, records, core, &requests, &invariants) }
        case .send(let message, let records):
            requests.messages.append(
                Envelope(message: message, entries: try records.map { try SimulatedEntry(record: $0) }))
        case .promise(let message):
            if let core { try invariants.promised(message, disk: disk, core: core, member: position) }
            requests.messages.append(Envelope(message: message))
        case .execute(let first, let records, let waiters):
            requests.executions.append(
                Execution(range: first...first + UInt64(records.count) - 1, records: records, waiters: waiters))
        case .replay(let range): requests.executions.append(Execution(range: range))
        case .serve(let reads):
            for read in reads {
                if read.kind == .lease { requests.branches.append(.leaseRead) }
                waitingReads.append((driver?.handedOut ?? 0, read))
            }
        case .refuse(let reads, let refusal):
            for read in reads {
                if read.kind == .lease { requests.branches.append(.leaseRefused) }
                requests.answers.append((read.waiter, refusal == .noLease ? .noLease : .refused))
            }
        case .decline(let waiters, let refusal):
            for waiter in waiters {
                switch refusal {
                case .busy: requests.answers.append((waiter, .refused))
                case .notLeader(let leader): requests.answers.append((waiter, .notLeader(leader)))
                }
            }
        case .expire(let waiters): for waiter in waiters { requests.answers.append((waiter, .refused)) }
        case .abandon(let waiters): for waiter in waiters { requests.answers.append((waiter, .unknown)) }
        case .readEntries(let request):
            requests.entriesToRead.append(request)
            requests.branches.append(.readFromDisk)
        case .sendSnapshot(let peer): requests.snapshots.append(peer)
        case .report(let offence): requests.offences.append(offence)
        }
    }

    private func save(
        _ write: Write, _ records: [ByteBuffer], _ core: RaftCore, _ requests: inout Requests,
        _ invariants: inout Invariants
    ) throws {
        var write = write
        if mutant == .commitNotSaved { write.hardState.commit = disk.hardState.commit }
        if let snapshot = write.snapshot, let received = receivedState {
            requests.branches.append(write.keepsTail ? .tailKept : .tailDropped)
            state = try State(received)
            executed = snapshot.index
            (isSwitching, switchWrite) = (true, write.number)
        }
        var entries: [SimulatedEntry] = []
        for record in records {
            let entry = try SimulatedEntry(record: record)
            let previous = entries.last?.header.term ?? core.log.term(at: entry.header.index - 1) ?? 0
            // The first follows none: before it, a newcomer knows one that came later.
            let hasFormer = entry.configuration != nil && entry.header.index > 1
            let old = hasFormer ? core.log.configuration(at: entry.header.index - 1) : nil
            try invariants.appended(entry, after: previous, replacing: old)
            entries.append(entry)
        }
        disk.enqueue(
            write, entries: entries, state: write.snapshot == nil ? nil : receivedState, commit: core.commit)
        requests.writes.append(write.number)
    }

    private func answerReads(_ requests: inout Requests) throws {
        guard let state else { return }
        for (index, read) in waitingReads where index <= executed {
            var answer = ByteBuffer()
            try state.tree.answer(read.query, into: &answer)
            requests.answers.append((read.waiter, .result(answer, index: 0, term: 0)))
        }
        waitingReads.removeAll { $0.index <= executed }
    }
}

extension Waiter {
    /// A client of the simulation; -1 is nobody.
    init(client: Int, request: Int) {
        self.init(connection: UInt64(client + 1), requestID: UInt64(request))
    }

    var client: Int { Int(connection) - 1 }
    var request: Int { Int(requestID) }
}

extension Driver {
    /// In place: a driver is large.
    fileprivate mutating func take(_ event: (inout Driver) -> Void) { event(&self) }
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
