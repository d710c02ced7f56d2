import FileTree
import HeapModule
import Histories
import NIOCore
import Raft
import WireProtocol

/// One run of a whole cluster under faults, in one thread and simulated time: everything that happens follows from the
/// seed.
///
/// It has two phases. In the first, faults come as the seed's plan says, and the invariants are checked after every
/// step. Then the faults stop, and the cluster must make progress and agree within a bound. At the end the clients'
/// history must be linearizable.
package final class Simulation {
    package struct Options: Sendable {
        package var seed: UInt64
        /// Events of the first phase.
        package var steps = 10_000
        package var members = 3
        package var mutant: Mutant?
        /// Kinds of faults that are left out.
        package var without: Set<Fault> = []
        /// Runs this instead of what the seed's plan would do; `steps` counts for nothing then.
        package var scenario: Scenario?
        /// Who speaks in the members' names.
        package var intruder: Intruder.Kind?
        /// Whether a line is kept for each thing that happens.
        package var isTraced = false

        package init(seed: UInt64) { self.seed = seed }
    }

    package struct Report: Sendable {
        package var seed: UInt64
        package var steps = 0
        package var simulated: Nanoseconds = 0
        package var operations = 0
        /// Files whose history was too long a puzzle for the checker.
        package var undecided = 0
        /// How often each kind of fault began; of those that do not begin at a moment, in how many runs there were some.
        package var faults: [Fault: Int] = [:]
        package var branches: [Branch: Int] = [:]
        package var history: [Operation] = []
        package var elections = 0
        /// Entries sent over links that keep their order, each as often as it was; and those that were sent before.
        package var entriesSent = 0
        package var entriesSentAgain = 0
        /// What became of an intruder's frames.
        package var intrusions = Intrusions()
        package var snapshots = 0
        /// The invariant that did not hold, and how that showed.
        package var violation: (invariant: String, detail: String)?
        package var trace: [String] = []
    }

    enum Happening {
        case tick(Int, life: Int)
        case deliver(SimulatedMember.Envelope)
        case saved(Int, life: Int, write: UInt64)
        case execute(Int, life: Int, SimulatedMember.Execution)
        case entriesRead(Int, life: Int, EntriesRequest)
        case snapshotEnded(Int, life: Int, PeerID, installed: Index?)
        case commitState(Int, life: Int)
        case request(Int, client: Int, id: Int)
        case answer(from: Int, client: Int, id: Int, SimulatedMember.Answer)
        case timeout(client: Int, id: Int)
        case act(client: Int)
        case fault(Fault)
        case restart(Int)
        case resume(Int)
        case heal(from: Int, to: Int)
        case quickenDisk(Int)
        case resumeDisk(Int)
        case scenario(Scenario.Step)
        case intrude
        case alternate(Alternation)
    }

    private struct Event: Comparable {
        var time: Nanoseconds
        /// Events of one moment happen in the order in which they were foreseen.
        var number: UInt64
        var happening: Happening

        static func < (left: Event, right: Event) -> Bool { (left.time, left.number) < (right.time, right.number) }
        static func == (left: Event, right: Event) -> Bool { left.number == right.number }
    }

    let options: Options
    var generator: SeededGenerator
    var plan: FaultPlan
    let configuration: Configuration
    let genesis: SimulatedEntry
    let founders: Int
    var mutant: Mutant? { options.mutant }
    var members: [SimulatedMember] = []
    var invariants: Invariants
    private var queue = Heap<Event>()
    var eventsWaiting: Int { queue.count }
    private var lastNumber: UInt64 = 0
    var time: Nanoseconds = 0
    var report: Report
    var intruder: Intruder?
    private var resending = Resending()
    /// Of each link that keeps its order: until when the entries on it take their turns, and when what was said last arrives,
    /// on the lane of entries and on the other.
    var turnsUntil: [[Nanoseconds]] = []
    private var lastArrival: [[(entries: Nanoseconds, other: Nanoseconds)]] = []

    // Faults under way.
    var isCut: [[Bool]] = []
    var isLinkSlow: [[Bool]] = []
    var pausedUntil: [Nanoseconds] = []
    /// What waits for a member that stands still, in order.
    private var deferred: [[Happening]] = []
    var isDiskSlow: [Bool] = []
    var diskStallsUntil: [Nanoseconds] = []
    /// What a disk that stands still would have completed.
    private var stalledSync: [Happening?] = []
    private var drift: [Int] = []
    /// The write that each member's disk is syncing, with all before it, and the last that waits: group commit.
    var syncing: [UInt64?] = []
    private var waitingWrite: [UInt64?] = []
    /// When each state thread has done what it was given.
    private var stateFreeAt: [Nanoseconds] = []
    var isCalm = false
    /// States that somebody kept.
    var backups: [MemoryStore] = []

    // Clients.
    var clients: [SimulatedClient]
    var history: [Operation] = []
    var lastRequest = 0
    var lastValue = 0
    /// The faults have stopped for all.
    var isOver = false
    /// How many directories were made and unlinked.
    var unlinked = 0

    package init(_ options: Options) {
        self.options = options
        var generator = SeededGenerator(seed: options.seed)
        var later = SeededGenerator(seed: ~options.seed)
        if let scenario = options.scenario {
            plan = FaultPlan(scenario)
        } else {
            plan = FaultPlan(using: &generator, later: &later)
            plan.leaveOut(options.without)
        }
        intruder = (options.intruder ?? options.mutant?.intruder).map { Intruder($0, using: &later) }
        if intruder?.kind == .mutating { plan.leaveOut(Intruder.faultsWithoutMutating) }
        founders = options.members
        configuration = Configuration(
            clusterID: 1,
            members: (1...founders).map { Member(id: UInt64($0), peer: PeerID(UInt64($0)), address: "\($0)") })
        let payload = SimulatedEntry.payload(configuration)
        genesis = SimulatedEntry(
            header: EntryHeader(
                index: 1, term: 1, kind: .configuration,
                size: UInt32(EntryRecord.headerByteCount + payload.readableBytes)),
            payload: payload, configuration: configuration)
        invariants = Invariants(members: 0, isIdle: intruder?.kind == .mutating)
        clients = (0..<Self.clientCount).map { _ in SimulatedClient() }
        report = Report(seed: options.seed)
        self.generator = generator
        for _ in 0..<founders { add(SimulatedDisk(genesis: genesis, configuration)) }
        for kind in Fault.allCases where !kind.isTimed {
            let isThere =
                switch kind {
                case .loss: plan.lossPermille > 0
                case .duplication: plan.duplicationPermille > 0
                case .narrowLinks: plan.bandwidth != nil
                default: plan.driftPermille > 0
                }
            if isThere { note(kind) }
        }
    }

    /// Adds a member with this disk, which does not run yet.
    func add(_ disk: SimulatedDisk) {
        let position = members.count
        members.append(
            SimulatedMember(
                position: position, disk: disk, limits: plan.limits,
                wallClockOffset: UInt64.random(in: 0...100_000_000, using: &generator), mutant: options.mutant))
        invariants.add()
        for other in isCut.indices { isCut[other].append(false) }
        isCut.append(Array(repeating: false, count: position + 1))
        for other in isLinkSlow.indices { isLinkSlow[other].append(false) }
        isLinkSlow.append(Array(repeating: false, count: position + 1))
        for other in turnsUntil.indices { turnsUntil[other].append(0) }
        turnsUntil.append(Array(repeating: 0, count: position + 1))
        for other in lastArrival.indices { lastArrival[other].append((0, 0)) }
        lastArrival.append(Array(repeating: (0, 0), count: position + 1))
        resending.addMember()
        diskStallsUntil.append(0)
        stalledSync.append(nil)
        pausedUntil.append(0)
        deferred.append([])
        isDiskSlow.append(false)
        drift.append(Int.random(in: -plan.driftPermille...plan.driftPermille, using: &generator))
        syncing.append(nil)
        waitingWrite.append(nil)
        stateFreeAt.append(0)
    }

    func note(_ fault: Fault) { report.faults[fault, default: 0] += 1 }
    func note(_ branch: Branch) { report.branches[branch, default: 0] += 1 }

    /// Runs to the end or to the first violation.
    package func run() -> Report {
        do {
            for member in members.indices { try start(member) }
            for client in clients.indices { schedule(.act(client: client), in: 1_000_000) }
            for fault in Fault.allCases { scheduleFault(fault) }
            for (moment, step) in options.scenario?.steps ?? [] { schedule(.scenario(step), at: moment) }
            if intruder != nil { schedule(.intrude, in: 100_000_000) }
            while isFirstPhase, let event = queue.popMin() { try happen(event) }
            guard intruder?.kind != .mutating else {
                try serveAgain()
                return finished()
            }
            try settle()
            let (file, undecided) = Linearizability.violation(in: history)
            report.undecided = undecided
            if let file {
                throw Invariants.Violation(
                    invariant: "linearizability",
                    detail: "no order explains the \(file.count) operations on file \(file.first?.file ?? 0)")
            }
        } catch let violation as Invariants.Violation {
            report.violation = (violation.invariant, violation.detail)
            trace("violation of '\(violation.invariant)': \(violation.detail)")
        } catch {
            report.violation = ("no member fails", "\(error)")
        }
        return finished()
    }

    private var isFirstPhase: Bool {
        if let scenario = options.scenario { time < scenario.length } else { report.steps < options.steps }
    }

    private func finished() -> Report {
        report.simulated = time
        report.operations = history.count
        report.history = history
        (report.entriesSent, report.entriesSentAgain) = (resending.sent, resending.again)
        return report
    }

    // MARK: time

    func schedule(_ happening: Happening, in delay: Nanoseconds) { schedule(happening, at: time + delay) }

    func schedule(_ happening: Happening, at moment: Nanoseconds) {
        lastNumber += 1
        queue.insert(Event(time: moment, number: lastNumber, happening: happening))
    }

    /// A member's own clock: it began at some point, and runs a little fast or slow.
    func clock(of member: Int) -> Nanoseconds {
        1_000_000_000 + UInt64(Int64(time) + Int64(time) / 1000 * Int64(drift[member]))
    }

    func random(_ range: ClosedRange<Nanoseconds>) -> Nanoseconds {
        Nanoseconds.random(in: range, using: &generator)
    }

    private func happens(permille: Int) -> Bool { Int.random(in: 0..<1000, using: &generator) < permille }

    func trace(_ line: @autoclosure () -> String) {
        guard options.isTraced else { return }
        let microseconds = String(time / 1000)
        report.trace.append(
            String(repeating: " ", count: max(0, 10 - microseconds.count)) + microseconds + "  " + line())
    }

    // MARK: what happens

    private func happen(_ event: Event) throws {
        time = event.time
        report.steps += 1
        if let member = member(of: event.happening), pausedUntil[member] > time {
            deferred[member].append(event.happening)
        } else {
            try take(event.happening)
        }
    }

    private func take(_ happening: Happening) throws {
        switch happening {
        case .tick(let member, let life):
            guard isAlive(member, life) else { return }
            schedule(.tick(member, life: life), in: 10_000_000)
            try perform(member, members[member].tick(now: clock(of: member), &invariants))
        case .deliver(let envelope): try deliver(envelope)
        case .saved(let member, let life, let write):
            guard isAlive(member, life) else { return }
            guard diskStallsUntil[member] <= time else {
                stalledSync[member] = happening
                schedule(.resumeDisk(member), at: diskStallsUntil[member])
                return
            }
            syncing[member] = nil
            try perform(member, members[member].saved(write, now: clock(of: member), &invariants))
        case .execute(let member, let life, let execution):
            guard isAlive(member, life) else { return }
            try perform(member, members[member].execute(execution, now: clock(of: member), &invariants))
        case .entriesRead(let member, let life, let request):
            guard isAlive(member, life) else { return }
            try perform(member, members[member].entriesRead(request, now: clock(of: member), &invariants))
        case .snapshotEnded(let member, let life, let peer, let installed):
            guard isAlive(member, life) else { return }
            resending.startOver(member, position(of: peer))
            try perform(
                member,
                members[member].snapshotEnded(peer, installed: installed, now: clock(of: member), &invariants))
        case .commitState(let member, let life):
            guard isAlive(member, life) else { return }
            schedule(.commitState(member, life: life), in: random(50_000_000...1_000_000_000))
            guard diskStallsUntil[member] <= time else { return }
            let tail = UInt64.random(in: 0...30, using: &generator)
            try perform(
                member, members[member].commitState(keeping: tail, now: clock(of: member), &invariants))
        case .request(let member, let client, let id): try arrive(at: member, client: client, id: id)
        case .answer(let member, let client, let id, let answer): received(answer, from: member, by: client, id: id)
        case .timeout(let client, let id): timedOut(client, id: id)
        case .act(let client): act(client)
        case .fault(let fault):
            guard !isCalm else { return }
            try begin(fault)
            scheduleFault(fault)
        case .resume(let member): if pausedUntil[member] <= time { try resume(member) }
        case .restart(let member): if members[member].canStart { try start(member) }
        case .heal(let from, let to):
            isCut[from][to] = false
            isLinkSlow[from][to] = false
        case .quickenDisk(let member): isDiskSlow[member] = false
        case .resumeDisk(let member):
            guard diskStallsUntil[member] <= time, let sync = stalledSync[member] else { return }
            stalledSync[member] = nil
            try take(sync)
        case .alternate(let alternation): try go(on: alternation)
        case .scenario(let step): try take(step)
        case .intrude: try intrude()
        }
    }

    func resume(_ member: Int) throws {
        var waiting = deferred[member]
        deferred[member] = []
        // A process that wakes up may find its sockets ready before its timers.
        if Int.random(in: 0..<2, using: &generator) == 0 {
            let isRead = { (happening: Happening) in
                if case .request(_, let client, _) = happening { self.clients[client].isLease } else { false }
            }
            waiting = waiting.filter(isRead) + waiting.filter { !isRead($0) }
        }
        for happening in waiting { try take(happening) }
    }

    /// The member whose process has to run for this to happen.
    private func member(of happening: Happening) -> Int? {
        switch happening {
        case .tick(let member, _), .saved(let member, _, _), .execute(let member, _, _),
            .entriesRead(let member, _, _), .snapshotEnded(let member, _, _, _), .commitState(let member, _),
            .request(let member, _, _):
            member
        case .deliver(let envelope): position(of: envelope.message.to)
        default: nil
        }
    }

    /// Beyond all members for whom nobody knows.
    func position(of peer: PeerID) -> Int { Int(clamping: peer.rawValue) - 1 }

    private func isAlive(_ member: Int, _ life: Int) -> Bool {
        members[member].isRunning && members[member].life == life
    }

    func start(_ member: Int) throws {
        let seed = generator.next()
        let requests = try members[member].start(seed: seed, now: clock(of: member), &invariants)
        guard members[member].isRunning else {
            trace("\(member + 1) can't start: its log is damaged")
            return
        }
        resending.startOver(member)
        trace("\(member + 1) starts, term \(members[member].term ?? 0)")
        let life = members[member].life
        (syncing[member], waitingWrite[member]) = (nil, nil)
        stateFreeAt[member] = time
        schedule(.tick(member, life: life), in: random(0...10_000_000))
        schedule(.commitState(member, life: life), in: random(50_000_000...1_000_000_000))
        try perform(member, requests)
    }

    private func deliver(_ envelope: SimulatedMember.Envelope) throws {
        let (from, to) = (position(of: envelope.message.from), position(of: envelope.message.to))
        guard members[to].isRunning, !isCut[from][to] else {
            resending.startOver(from, to)
            return
        }
        if case .appendResponse(.rejected) = envelope.message.body { resending.startOver(from, to) }
        let before = (members[to].role, members[to].term)
        trace("\(from + 1) > \(to + 1)  \(envelope.message.term)  \(envelope.message.body.summary)")
        let requests = try members[to].receive(envelope, now: clock(of: to), &invariants)
        try noteRole(of: to, before)
        if case .timeoutNow = envelope.message.body, members[to].role == .candidate { note(.handedOver) }
        if case .installSnapshot(let snapshot) = envelope.message.body, members[from].isRunning {
            report.snapshots += 1
            resending.startOver(from, to)
            schedule(
                .snapshotEnded(from, life: members[from].life, envelope.message.to, installed: snapshot.index),
                in: random(plan.delay))
        }
        try perform(to, requests)
    }

    func noteRole(of member: Int, _ before: (role: Role?, term: Term?)) throws {
        guard before != (members[member].role, members[member].term), let core = members[member].core else { return }
        trace("\(member + 1) is \(core.role.rawValue) in term \(core.term)")
        guard core.role == .leader, before.role != .leader else { return }
        report.elections += 1
        if !isCalm, happens(permille: plan.changesWithLeaderPermille) {
            let calls = Int.random(in: 1...3, using: &generator)
            for _ in 0..<calls { try changeMembership(by: member) }
        }
    }

    /// Lets what a member wants come to pass, each thing in its time.
    func perform(_ member: Int, _ requests: SimulatedMember.Requests) throws {
        let life = members[member].life
        for branch in requests.branches { note(branch) }
        if let last = requests.writes.last { waitingWrite[member] = last }
        if syncing[member] == nil, let write = waitingWrite[member] {
            (syncing[member], waitingWrite[member]) = (write, nil)
            let delay = random(plan.diskDelay) * (isDiskSlow[member] ? 20 : 1)
            schedule(.saved(member, life: life, write: write), in: delay)
        }
        if let offence = requests.offences.first, intruder?.kind != .mutating {
            throw Invariants.Violation(
                invariant: "no member sends what no sound one would",
                detail: "member \(member + 1) hears from \(offence.peer): \(offence.kind.rawValue)")
        }
        for envelope in requests.messages { try send(envelope) }
        for range in requests.executions {
            stateFreeAt[member] = max(stateFreeAt[member], time) + random(10_000...2_000_000)
            schedule(.execute(member, life: life, range), at: stateFreeAt[member])
        }
        for request in requests.entriesToRead {
            schedule(.entriesRead(member, life: life, request), in: random(100_000...5_000_000))
        }
        for peer in requests.snapshots { try sendSnapshot(from: member, to: peer) }
        for (waiter, answer) in requests.answers {
            if case .result(_, let index, let term) = answer, index > 0 {
                let log = members[member].core?.log
                try invariants.acknowledged(
                    index, term: term, members: members,
                    [log?.configuration(at: index), log?.configuration].compactMap { $0 })
            }
            // What comes of an unlinking nobody asks.
            guard waiter.client >= 0, !isLost() else { continue }
            schedule(.answer(from: member, client: waiter.client, id: waiter.request, answer), in: random(plan.delay))
        }
    }

    func isLost() -> Bool { !isCalm && happens(permille: plan.lossPermille) }

    private func send(_ envelope: SimulatedMember.Envelope) throws {
        let (from, to) = (position(of: envelope.message.from), position(of: envelope.message.to))
        // Whom a forged message made a member speak to need not exist.
        guard members.indices.contains(to) else { return }
        intruder?.overhear(envelope)
        if plan.bandwidth != nil, case .append(let append) = envelope.message.body, !append.entries.isEmpty {
            let copies = resending.send(append, term: envelope.message.term, from: from, to: to)
            if copies > Self.copiesMax, intruder == nil {
                throw Invariants.Violation(
                    invariant: "what is merely late is not sent again",
                    detail: "member \(from + 1) sends an entry to \(to + 1) the \(copies)th time, and none was lost")
            }
        }
        guard !isLost() else {
            resending.startOver(from, to)
            return
        }
        schedule(.deliver(envelope), at: arrival(of: envelope, from, to))
        if !isCalm, happens(permille: plan.duplicationPermille) {
            resending.startOver(from, to)
            schedule(.deliver(envelope), in: random(plan.delay) * 3)
        }
    }

    /// What a leader sends again without having been refused: the probe of one that has just begun, perhaps.
    private static let copiesMax = 3

    /// When a message that is sent now will be there.
    private func arrival(of envelope: SimulatedMember.Envelope, _ from: Int, _ to: Int) -> Nanoseconds {
        let delay = random(plan.delay) * (isLinkSlow[from][to] ? 20 : 1)
        guard let bandwidth = plan.bandwidth else { return time + delay }
        guard case .append(let append) = envelope.message.body else {
            lastArrival[from][to].other = max(lastArrival[from][to].other, time + delay)
            return lastArrival[from][to].other
        }
        let bytes = append.entries.reduce(0) { $0 + UInt64($1.size) }
        turnsUntil[from][to] = max(turnsUntil[from][to], time) + bytes * 1_000_000_000 / bandwidth
        lastArrival[from][to].entries = max(lastArrival[from][to].entries, turnsUntil[from][to] + delay)
        return lastArrival[from][to].entries
    }

    private func sendSnapshot(from member: Int, to peer: PeerID) throws {
        let life = members[member].life
        guard members.indices.contains(position(of: peer)) else { return }
        resending.startOver(member, position(of: peer))
        // A snapshot with a flipped bit is refused by whoever receives it.
        let isDamaged = !isCalm && plan.meanTimes[.flippedBit] != nil && happens(permille: 100)
        if isDamaged { note(.flippedBit) }
        guard let envelope = try members[member].snapshot(for: peer), !isLost(), !isDamaged,
            !isCut[member][position(of: peer)], members[position(of: peer)].isRunning
        else {
            schedule(.snapshotEnded(member, life: life, peer, installed: nil), in: 500_000_000)
            return
        }
        intruder?.overhear(envelope)
        schedule(.deliver(envelope), in: random(plan.delay) * 5)
        // A transfer that gets no answer is given up.
        schedule(.snapshotEnded(member, life: life, peer, installed: nil), in: 5_000_000_000)
    }

    /// More than the longest run ever took.
    private static let stepsMax = 3_000_000

    func run(
        for limit: Nanoseconds, _ invariant: String, _ detail: String, until holds: () -> Bool
    ) throws {
        let end = time + limit
        while !holds() {
            guard let event = queue.popMin(), event.time <= end else {
                throw Invariants.Violation(invariant: invariant, detail: detail)
            }
            guard report.steps < options.steps + Self.stepsMax else {
                throw Invariants.Violation(invariant: "what happens ends", detail: "\(report.steps) steps")
            }
            try happen(event)
        }
    }
}
