import BanyanClient
import FileTree
import Glibc
import NIOCore
import WireProtocol

/// One run, on the loop's thread.
final class LoadRun {
    private let load: Load
    private let clients: [BanyanClient]
    /// Where reads go in turn; empty: to the leader.
    private let members: [String]
    private let loop: any EventLoop
    private let done: EventLoopPromise<LoadResult>
    private let progress: @Sendable (LoadResult.Second) -> Void
    private var keys: KeyChooser
    private var content: Content
    private let weightSum: Int

    private var result: LoadResult
    private var second = LoadResult.latencies
    private var current = LoadResult.Second(second: 1)
    private var measureFrom = NIODeadline.now()
    private var stopAt = NIODeadline.now()
    private var usageBefore = Usage()
    /// Clients that are in the midst of a request.
    private var busy = 0
    private var isOver = false
    private var nextMember = 0
    private var leader: UInt64 = 0
    /// By client, the fault that struck during its request.
    private var struckBy: [Int?]
    private var lastAcknowledged = NIODeadline.now()

    // MARK: of an open loop

    private var idle: [Int] = []
    /// How many requests of the schedule were sent.
    private var sent = 0
    private var beganAt = NIODeadline.now()

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
        weightSum = load.mix.weights.reduce(0) { $0 + $1.weight }
        struckBy = Array(repeating: nil, count: load.clients)
        result = LoadResult(seconds: Double(Self.amount(load.duration).nanoseconds) / 1e9)
    }

    func start() {
        beganAt = .now()
        measureFrom = beganAt + Self.amount(load.warmup)
        stopAt = measureFrom + Self.amount(load.duration)
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(deadline: measureFrom) {
            let run = this.value
            run.usageBefore = Usage.now()
            run.lastAcknowledged = .now()
        }
        loop.scheduleTask(deadline: measureFrom + .seconds(1)) { this.value.endSecond() }
        loop.scheduleTask(deadline: stopAt) { this.value.stop() }
        if load.rate == nil {
            for client in 0..<load.clients { send(client, due: .now()) }
        } else {
            idle = Array(0..<load.clients)
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
        while let due = nextDue, due <= now, due < stopAt, let client = idle.popLast() {
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
        var address: String?
        if !members.isEmpty, operation != .put {
            address = members[nextMember % members.count]
            nextMember += 1
        }
        let this = NIOLoopBound(self, eventLoop: loop)
        clients[client % clients.count].perform(kind, body, to: address) { answer in
            this.value.answered(client, operation, due, answer)
        }
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

    private func request(_ operation: Load.Operation, _ file: Int) -> (Frame.Kind, ByteBuffer) {
        var body = ByteBuffer()
        do throws(TreeError) {
            switch operation {
            case .put:
                Put(path: try TreePath(load.path(of: file)), content: content.next()).write(to: &body)
                return (.write, body)
            case .get:
                let kind = load.consistency.begin(&body)
                Query.get(try TreePath(load.path(of: file))).write(to: &body)
                return (kind, body)
            case .list:
                let kind = load.consistency.begin(&body)
                Query.list(try TreePath(load.directory(of: file)), after: [], limit: 100).write(to: &body)
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
        // What was due in the window counts, however late its answer came: a stall at the end must show. The rate counts
        // what was answered in the window.
        if due >= measureFrom {
            if case .acknowledged = outcome {
                let latency = UInt64((now - due).nanoseconds / 1000)
                if now <= stopAt {
                    result.operations += 1
                    current.operations += 1
                    second.record(latency)
                }
                result.latency.record(latency)
                result.latencyByOperation[operation, default: LoadResult.latencies].record(latency)
            }
            count(outcome)
        } else if case .acknowledged = outcome {
        } else {
            count(outcome)
        }
        if case .acknowledged = outcome { acknowledged(at: now) }
        settleFault(of: client, outcome)
        next(client, now)
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
        current.errors += 1
    }

    private func next(_ client: Int, _ now: NIODeadline) {
        if load.rate != nil {
            idle.append(client)
            if !isOver { sendDue() }
        } else if now < stopAt {
            return send(client, due: now)
        }
        if isOver, busy == 0 { finish() }
    }

    // MARK: faults and leaders

    func leads(_ member: UInt64) {
        guard member != leader, !isOver else { return }
        leader = member
        result.leaders.append((max(0, sinceMeasuring), member))
    }

    private var sinceMeasuring: Double { Double((NIODeadline.now() - measureFrom).nanoseconds) / 1e9 }

    /// A fault is about to strike.
    func struck(_ description: String) {
        lastAcknowledged = .now()
        result.faults.append(LoadResult.FaultReport(description: description, second: sinceMeasuring))
        let waiting = Set(idle)
        for client in 0..<load.clients where !waiting.contains(client) { struckBy[client] = result.faults.count - 1 }
    }

    private func acknowledged(at now: NIODeadline) {
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

    private func endSecond() {
        guard !isOver else { return }
        close(second: current.second)
        current = LoadResult.Second(second: current.second + 1)
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(deadline: measureFrom + .seconds(Int64(current.second))) { this.value.endSecond() }
    }

    private func close(second number: Int) {
        let at = { [second] in Double(second.valueAtPercentile($0)) / 1000 }
        if second.totalCount > 0 {
            (current.median, current.percentile99, current.longest) = (at(50), at(99), Double(second.max) / 1000)
        }
        current.leader = leader
        second.reset()
        result.timeline.append(current)
        progress(current)
    }

    /// What was measured until now is all there will be.
    func interrupt() {
        guard !isOver else { return }
        stopAt = .now()
        result.seconds = max(0, sinceMeasuring)
        stop()
    }

    /// No request is sent any more; those under way are waited for.
    private func stop() {
        guard !isOver else { return }
        if result.timeline.count < current.second, sinceMeasuring > Double(current.second) - 0.5 {
            close(second: current.second)
        }
        isOver = true
        let used = Usage.now() - usageBefore
        result.threadShare = result.seconds > 0 ? used.thread / result.seconds : 0
        result.machineShare = used.all > 0 ? used.busy / used.all : nil
        if let last = result.faults.indices.last {
            let gap = Double((NIODeadline.now() - lastAcknowledged).nanoseconds) / 1e9
            result.faults[last].gapSeconds = max(result.faults[last].gapSeconds, gap)
        }
        // They waited at least until now.
        while let due = nextDue, due < stopAt {
            sent += 1
            guard due >= measureFrom else { continue }
            result.unsent += 1
            result.latency.record(UInt64((stopAt - due).nanoseconds / 1000))
        }
        if busy == 0 { finish() }
    }

    private func finish() { done.succeed(result) }

    private static func amount(_ duration: Duration) -> TimeAmount {
        let (seconds, attoseconds) = duration.components
        return .nanoseconds(seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
    }
}

/// Processor time so far, in seconds.
private struct Usage {
    /// Of this thread.
    var thread = 0.0
    /// Of the whole machine: not idle, and in all.
    var busy = 0.0
    var all = 0.0

    static func now() -> Usage {
        var usage = Usage()
        var time = timespec()
        if clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0 {
            usage.thread = Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
        }
        // cpu user nice system idle iowait irq softirq steal, in hundredths of a second
        guard let file = fopen("/proc/stat", "r") else { return usage }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        guard fgets(&line, 256, file) != nil else { return usage }
        let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let fields = text.split(whereSeparator: \.isWhitespace).dropFirst().prefix(8).compactMap { Double($0) }
        guard fields.count == 8 else { return usage }
        usage.all = fields.reduce(0, +) / 100
        usage.busy = usage.all - (fields[3] + fields[4]) / 100
        return usage
    }

    static func - (later: Usage, earlier: Usage) -> Usage {
        Usage(
            thread: later.thread - earlier.thread, busy: later.busy - earlier.busy, all: later.all - earlier.all)
    }
}
