import BanyanClient
import DequeModule
import FileTree
import Glibc
import NIOCore
import WireProtocol

/// One run, on the loop's thread.
final class LoadRun {
    private let load: Load
    private let clients: [BanyanClient]
    private let members: [String]
    private let loop: any EventLoop
    private let done: EventLoopPromise<LoadResult>
    private let progress: @Sendable (LoadResult.Second) -> Void
    private var keys: KeyChooser
    private var content: Content
    private let weightSum: Int
    /// Of as many files as find room in `pathsMax`, once they were used.
    private var paths: [TreePath?]
    /// By the operation's position among all.
    private var latencies: [LoadResult.Latencies]

    private var result: LoadResult
    private var current: LoadResult.Second
    /// How long the parts of the timeline are, in tenths of a second: gaps are short, and long runs have many parts.
    private let tenths: Int
    private var currentLatency = LoadResult.latencies
    private var measureFrom = NIODeadline.now()
    private var stopAt = NIODeadline.now()
    private var usageBefore = Usage()
    /// Clients that are in the midst of a request.
    private var busy = 0
    private var isOver = false
    private var isReported = false
    private var nextMember = 0
    private var leader: (id: UInt64, address: String?) = (0, nil)
    /// By client, the fault that struck during its request.
    private var struckBy: [Int?]
    private var lastAcknowledged = NIODeadline.now()

    // MARK: of an open loop

    /// First in, first out, so that all clients, and with them all connections, have their turns.
    private var idle: Deque<Int> = []
    /// How many requests of the schedule were sent.
    private var sent = 0
    private var beganAt = NIODeadline.now()
    /// Until then what was due before the end is still sent: at any moment some requests wait for their turn.
    private var backlogEnd = NIODeadline.now()
    private static let backlogMax = TimeAmount.seconds(1)

    init(
        _ load: Load, _ clients: [BanyanClient], members: [String], loop: any EventLoop,
        done: EventLoopPromise<LoadResult>, progress: @escaping @Sendable (LoadResult.Second) -> Void
    ) {
        self.load = load
        self.clients = clients
        self.members = members
        self.loop = loop
        self.done = done
        self.progress = progress
        let seed = UInt64.random(in: 0...UInt64.max)
        keys = KeyChooser(load.distribution, count: load.files, seed: seed)
        content = Content(size: load.size, seed: seed &+ 1)
        paths = Array(repeating: nil, count: min(load.files, Self.pathsMax))
        latencies = Load.Operation.allCases.map { _ in LoadResult.latencies }
        weightSum = load.mix.weights.reduce(0) { $0 + $1.weight }
        struckBy = Array(repeating: nil, count: load.clients)
        result = LoadResult(seconds: Double(Self.amount(load.duration).nanoseconds) / 1e9)
        tenths = load.duration < .seconds(60) ? 1 : 10
        current = Self.part(1, tenths)
    }

    func start() {
        beganAt = .now()
        usageBefore = Usage.now()
        measureFrom = beganAt + Self.amount(load.warmup)
        stopAt = measureFrom + Self.amount(load.duration)
        backlogEnd = stopAt + Self.backlogMax
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(deadline: measureFrom) {
            let run = this.value
            run.usageBefore = Usage.now()
            run.lastAcknowledged = .now()
        }
        loop.scheduleTask(deadline: partEnd) { this.value.endPart() }
        loop.scheduleTask(deadline: stopAt) { this.value.stop() }
        if load.rate == nil {
            for client in 0..<load.clients { send(client, due: .now()) }
        } else {
            idle = Deque(0..<load.clients)
            keepSchedule()
        }
    }

    // MARK: the schedule of an open loop

    /// Requests that become due within so short a time are sent together.
    private static let scheduleStep = TimeAmount.microseconds(100)

    /// When the next request of the schedule is due; nil when there is no schedule.
    private var nextDue: NIODeadline? {
        load.rate.map { beganAt + .nanoseconds(Int64(Double(sent) / $0 * 1e9)) }
    }

    /// Sends what is due, as far as there are clients that wait for no answer.
    private func sendDue() {
        let now = NIODeadline.now()
        guard now < backlogEnd else { return }
        while let due = nextDue, due <= now, due < stopAt, let client = idle.popFirst() {
            sent += 1
            send(client, due: due)
        }
    }

    private func keepSchedule() {
        guard !isOver, let due = nextDue else { return }
        sendDue()
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(deadline: max(due, .now() + Self.scheduleStep)) { this.value.keepSchedule() }
    }

    // MARK: requests

    /// - Parameter due: from when on its client waited.
    private func send(_ client: Int, due: NIODeadline) {
        let operation = chooseOperation()
        let (kind, body) = request(operation, keys.next())
        busy += 1
        let this = NIOLoopBound(self, eventLoop: loop)
        clients[client % clients.count].perform(kind, body, to: address(for: operation)) { answer in
            this.value.answered(client, operation, due, answer)
        }
    }

    /// Nil: where the client finds the leader.
    private func address(for operation: Load.Operation) -> String? {
        guard operation != .put else { return nil }
        if load.isSpread, !members.isEmpty {
            nextMember += 1
            return members[nextMember % members.count]
        }
        // Of itself a client asks any member for what may be stale.
        if case .stale = load.consistency { return leader.address }
        return nil
    }

    private func chooseOperation() -> Load.Operation {
        if load.mix.weights.count == 1 { return load.mix.weights[0].operation }
        var number = keys.number(below: weightSum)
        for (operation, weight) in load.mix.weights {
            number -= weight
            if number < 0 { return operation }
        }
        return load.mix.weights[0].operation
    }

    /// Some MiB.
    private static let pathsMax = 1 << 16

    private func path(of file: Int) throws(TreeError) -> TreePath {
        if file < paths.count, let path = paths[file] { return path }
        let path = try TreePath(load.path(of: file))
        if file < paths.count { paths[file] = path }
        return path
    }

    private func request(_ operation: Load.Operation, _ file: Int) -> (Frame.Kind, ByteBuffer) {
        var body = ByteBufferAllocator().buffer(capacity: operation == .put ? load.size + 128 : 64)
        do throws(TreeError) {
            switch operation {
            case .put:
                let path = try path(of: file)
                content.next(in: &body) { Put(path: path, content: $0).write(to: &$1) }
                return (.write, body)
            case .get:
                let kind = load.consistency.begin(&body)
                Query.get(try path(of: file)).write(to: &body)
                return (kind, body)
            case .list:
                let kind = load.consistency.begin(&body)
                // Of a directory with many pages, any.
                let after = load.isPaged ? Array(load.name(of: file).utf8) : []
                Query.list(try TreePath(load.directory(of: file)), after: after, limit: UInt32(Load.pageEntries))
                    .write(to: &body)
                return (kind, body)
            }
        } catch {
            preconditionFailure("the load's own paths are valid")
        }
    }

    private func answered(
        _ client: Int, _ operation: Load.Operation, _ due: NIODeadline, _ answer: Result<Frame, BanyanError>
    ) {
        let now = NIODeadline.now()
        busy -= 1
        let outcome = Self.outcome(of: answer)
        let latency = UInt64((now - due).nanoseconds / 1000)
        // A wait counts when it began in the measured time, however late it ended: a stall at the end must show. The rate
        // counts what was answered in that time, whenever it was sent.
        let isMeasured = due >= measureFrom
        let isInTime = now >= measureFrom && now <= stopAt
        if isMeasured {
            result.due += 1
            waited(latency, for: operation)
        } else if isInTime {
            result.carried += 1
        }
        if case .acknowledged = outcome {
            if isInTime {
                result.operations += 1
                current.operations += 1
                currentLatency.record(latency)
            } else if isMeasured {
                result.late += 1
            }
            acknowledged(operation, at: now)
        } else if isMeasured || isInTime {
            count(outcome)
        }
        settleFault(of: client, outcome)
        next(client, now)
    }

    private func waited(_ microseconds: UInt64, for operation: Load.Operation) {
        result.latency.record(microseconds)
        latencies[operation.position].record(microseconds)
    }

    private enum Outcome {
        case acknowledged
        case refused(String)
        case unknown(String)
    }

    private static func outcome(of answer: Result<Frame, BanyanError>) -> Outcome {
        switch answer {
        case .success(let frame):
            let code = frame.body.getInteger(at: frame.body.readerIndex, as: UInt16.self)
            return code == 0 ? .acknowledged : .refused("the tree refused an operation of the load")
        case .failure(.unknownOutcome): return .unknown("\(BanyanError.unknownOutcome)")
        case .failure(let error): return .refused("\(error)")
        }
    }

    private func count(_ outcome: Outcome) {
        switch outcome {
        case .acknowledged: return
        case .refused(let error):
            result.refused += 1
            result.firstError = result.firstError ?? error
        case .unknown(let error):
            result.unknown += 1
            result.firstError = result.firstError ?? error
        }
        if isOver, let last = result.timeline.indices.last {
            result.timeline[last].errors += 1
        } else {
            current.errors += 1
        }
    }

    private func next(_ client: Int, _ now: NIODeadline) {
        if load.rate != nil {
            idle.append(client)
            sendDue()
        } else if !isOver, now < stopAt {
            return send(client, due: now)
        }
        if isOver, busy == 0 { finish() }
    }

    // MARK: faults and leaders

    func leads(_ member: (id: UInt64, address: String)?) {
        let changes = member?.id ?? 0 != leader.id
        leader = (member?.id ?? 0, member?.address)
        guard changes, !isOver else { return }
        result.leaders.append(LoadResult.LeaderChange(second: max(0, sinceMeasuring), member: leader.id))
    }

    private var sinceMeasuring: Double { Double((NIODeadline.now() - measureFrom).nanoseconds) / 1e9 }

    /// A fault is about to strike.
    func struck(_ description: String) {
        lastAcknowledged = .now()
        result.faults.append(LoadResult.FaultReport(description: description, second: sinceMeasuring))
        let waiting = Set(idle)
        // One that an earlier fault struck is still that one's.
        for client in 0..<load.clients where !waiting.contains(client) && struckBy[client] == nil {
            struckBy[client] = result.faults.count - 1
        }
    }

    /// Of a load that writes only writes end a gap: reads may go to members that no leader reaches.
    private func acknowledged(_ operation: Load.Operation, at now: NIODeadline) {
        guard operation == .put || !load.mix.operations.contains(.put) else { return }
        defer { lastAcknowledged = now }
        guard let last = result.faults.indices.last else { return }
        let gap = Double((now - lastAcknowledged).nanoseconds) / 1e9
        result.faults[last].gapSeconds = max(result.faults[last].gapSeconds, gap)
    }

    private func settleFault(of client: Int, _ outcome: Outcome) {
        guard let fault = struckBy[client] else { return }
        struckBy[client] = nil
        switch outcome {
        case .acknowledged: result.faults[fault].acknowledged += 1
        case .refused: result.faults[fault].refused += 1
        case .unknown: result.faults[fault].unknown += 1
        }
    }

    // MARK: time

    private static func part(_ number: Int, _ tenths: Int) -> LoadResult.Second {
        LoadResult.Second(second: Double(number * tenths) / 10, length: Double(tenths) / 10)
    }

    /// When the present part ends.
    private var partEnd: NIODeadline {
        measureFrom + .milliseconds(Int64((result.timeline.count + 1) * tenths * 100))
    }

    private func endPart() {
        guard !isOver else { return }
        closePart()
        current = Self.part(result.timeline.count + 1, tenths)
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(deadline: partEnd) { this.value.endPart() }
    }

    private func closePart() {
        if currentLatency.totalCount > 0 {
            let at = { [currentLatency] in Double(currentLatency.valueAtPercentile($0)) / 1000 }
            (current.p50, current.p99, current.max) = (at(50), at(99), Double(currentLatency.max) / 1000)
        }
        current.leader = leader.id
        currentLatency.reset()
        result.timeline.append(current)
        progress(current)
    }

    /// What was measured until now is all there will be.
    func interrupt() {
        guard !isOver else { return }
        stopAt = .now()
        backlogEnd = stopAt
        result.seconds = max(0, sinceMeasuring)
        stop()
    }

    /// No request becomes due any more; those under way are waited for.
    private func stop() {
        guard !isOver else { return }
        // A thread that was kept waiting is late for several.
        while partEnd < min(stopAt, .now()) {
            closePart()
            current = Self.part(result.timeline.count + 1, tenths)
        }
        // The beginning of a part is none, unless there is no other.
        if result.timeline.isEmpty || sinceMeasuring > current.second - current.length / 2 {
            closePart()
        } else {
            result.timeline[result.timeline.count - 1].errors += current.errors
            result.timeline[result.timeline.count - 1].operations += current.operations
        }
        isOver = true
        let used = Usage.now() - usageBefore
        result.threadShare = result.seconds > 0 ? used.thread / result.seconds : 0
        result.threadWaiting = result.seconds > 0 ? used.waiting.map { $0 / result.seconds } : nil
        result.machineShare = used.all > 0 ? used.busy / used.all : nil
        if let last = result.faults.indices.last {
            let gap = Double((NIODeadline.now() - lastAcknowledged).nanoseconds) / 1e9
            result.faults[last].gapSeconds = max(result.faults[last].gapSeconds, gap)
        }
        sendDue()
        if busy == 0 { finish() }
    }

    private func finish() {
        guard !isReported else { return }
        isReported = true
        // They waited at least until now.
        let now = NIODeadline.now()
        while let due = nextDue, due < stopAt {
            sent += 1
            guard due >= measureFrom else { continue }
            result.unsent += 1
            result.due += 1
            waited(UInt64((now - due).nanoseconds / 1000), for: chooseOperation())
        }
        for operation in Load.Operation.allCases where latencies[operation.position].totalCount > 0 {
            result.latencyByOperation[operation] = latencies[operation.position]
        }
        done.succeed(result)
    }

    /// The load ends without a result.
    func fail(_ error: any Error) {
        guard !isReported else { return }
        (isOver, isReported) = (true, true)
        done.fail(error)
    }

    private static func amount(_ duration: Duration) -> TimeAmount {
        let (seconds, attoseconds) = duration.components
        return .nanoseconds(seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
    }
}

/// Processor time so far, in seconds.
private struct Usage {
    /// Of this thread.
    var thread = 0.0
    /// How long this thread waited for a processor.
    var waiting: Double?
    /// Of the whole machine: not idle, and in all.
    var busy = 0.0
    var all = 0.0

    static func now() -> Usage {
        var usage = Usage()
        var time = timespec()
        if clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0 {
            usage.thread = Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
        }
        // run, wait (nanoseconds), slices
        let schedule = firstLine(of: "/proc/thread-self/schedstat").split(separator: " ")
        if schedule.count == 3, let nanoseconds = Double(schedule[1]) { usage.waiting = nanoseconds / 1e9 }
        // cpu user nice system idle iowait irq softirq steal, in hundredths of a second
        let fields = firstLine(of: "/proc/stat").split(separator: " ").dropFirst().prefix(8).compactMap { Double($0) }
        guard fields.count == 8 else { return usage }
        usage.all = fields.reduce(0, +) / 100
        usage.busy = usage.all - (fields[3] + fields[4]) / 100
        return usage
    }

    /// Empty when there is no such file.
    private static func firstLine(of path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        guard fgets(&line, 256, file) != nil else { return "" }
        return String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    static func - (later: Usage, earlier: Usage) -> Usage {
        var difference = Usage(
            thread: later.thread - earlier.thread, busy: later.busy - earlier.busy, all: later.all - earlier.all)
        if let end = later.waiting, let begin = earlier.waiting { difference.waiting = end - begin }
        return difference
    }
}
