import ArgumentParser
import BanyanClient
import Console
import Foundation
import Histories
import LoadGenerator

@main
struct BanyanLoad: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "banyan-load",
        abstract: "Put load on a Banyan cluster and measure it.",
        discussion: """
            Without --rate the loop is closed: each client sends its next request when the last one was answered, which finds \
            the peak, and hides what a stall costs those who would have come meanwhile. With --rate it is open: requests become \
            due at that rate whatever the cluster does, and the latency counts from then on.

              banyan-load --workload put --clients 256                      the peak
              banyan-load --workload put --rate 20000                       the latency at 20,000 requests a second
              banyan-load --workload mixed --mix put=50,get=40,list=10
              banyan-load --ramp                                            from 1 client to 1,024: where is the knee?
              banyan-load --during kill-leader@5s                           what does a leader's end cost?

            The files stand in /load; gets, listings and --fill write them first. No two contents are alike, and nothing of \
            them compresses. The rate counts what was acknowledged in the measured time; the latency is that of every \
            request that was due in it, whatever became of it. The exit code is 1 when more than --max-error-rate of the \
            requests failed or were never sent.

            --workload register measures nothing: its clients put, get, compare and set, and delete --files files (new ones \
            every two seconds) while you do your worst to the cluster, and write down what they saw:
              banyan-load --workload register --clients 10 --files 10 --duration 60s --history h.jsonl
              banyan-sim --check h.jsonl
            """, version: Console.version)

    enum Workload: String, ExpressibleByArgument, CaseIterable { case put, get, list, mixed, register }
    enum Level: String, ExpressibleByArgument, CaseIterable { case linearizable, lease, stale }
    enum Target: String, ExpressibleByArgument, CaseIterable { case leader, spread }

    @Option(
        help: ArgumentHelp("Addresses of members (or BANYAN_NODES).", valueName: "host:port,..."),
        transform: NodeList.option)
    var nodes: NodeList?
    @Option(help: "put, get, list, mixed (see --mix), or register (see --history).") var workload = Workload.put
    @Option(help: ArgumentHelp("Of mixed: the parts of each kind.", valueName: "put=50,get=40,list=10"))
    var mix: Load.Mix?
    @Option(help: "How many requests are under way at once, at the most; 256, with --ramp up to 1024.") var clients:
        Int?
    @Option(help: "Over how many connections.") var connections = 16
    @Option(help: ArgumentHelp("Bytes of a file, 1MiB at the most.", valueName: "size")) var size = ByteSize(bytes: 256)
    @Option(help: "How many files.") var files = 10_000
    @Option(help: "In how many directories.") var directories = 100
    @Option(help: "uniform, or zipfian: a few files very often.") var distribution = KeyDistribution.uniform
    @Flag(help: "First write every file once, one directory after the other.") var fill = false
    @Option(help: "Of gets and listings: linearizable, lease or stale.") var consistency = Level.linearizable
    @Option(help: "Where reads go: the leader, or spread over all members.") var target = Target.leader
    @Option(help: ArgumentHelp("Requests a second that become due (open loop).", valueName: "number")) var rate: Double?
    @Option(help: "How long to measure, as in 10s.") var duration = TimeSpan(seconds: 10)
    @Option(help: "How long to run before that.") var warmup = TimeSpan(seconds: 2)
    @Flag(help: "Measure 1, 2, 4 and so on up to --clients, for --duration each.") var ramp = false
    @Option(
        help: ArgumentHelp(
            "Of members on this machine: kill-leader, kill-follower, or pause-leader (for 5 s), at a time after --warmup; several with commas.",
            valueName: "kill-leader@5s"))
    var during: FaultPlan?
    @Option(
        name: .customLong("max-error-rate"),
        help: ArgumentHelp("Exit with 1 when a larger part of the requests failed.", valueName: "0..1"))
    var errorRateMax = 0.0
    @Option(help: ArgumentHelp("Write the result as JSON; - is standard output.", valueName: "file")) var json: String?
    @Option(help: ArgumentHelp("Write a line for each second, or tenth of one.", valueName: "file")) var csv: String?
    @Option(help: ArgumentHelp("Write a page with charts.", valueName: "file")) var html: String?
    @Option(
        help: ArgumentHelp(
            "With --workload register: what each client did, as JSON lines for 'banyan-sim --check'.", valueName: "file"
        ))
    var history: String?

    func validate() throws {
        guard clients ?? 1 > 0, connections > 0, directories > 0, duration.seconds >= 0.01,
            size.bytes <= 1 << 20
        else {
            throw ValidationError(
                "--clients, --connections and --directories must be positive, --duration at least 0.01s, --size at the "
                    + "most 1MiB")
        }
        guard clients ?? 1 <= 65_536 else { throw ValidationError("--clients: at most 65536") }
        guard (1...1_000_000_000).contains(files) else { throw ValidationError("--files is from 1 to 1000000000") }
        guard (0.001...10_000_000).contains(rate ?? 1) else {
            throw ValidationError("--rate is from 0.001 to 10000000")
        }
        if let late = during?.firstFault(after: duration) {
            throw ValidationError(
                "--during: at \(late.description) the load is over; --duration is \(duration.description)")
        }
        guard (0...1).contains(errorRateMax) else { throw ValidationError("--max-error-rate is from 0 to 1") }
        guard (workload == .mixed) == (mix != nil) else {
            throw ValidationError("--workload mixed and --mix put=50,get=40,list=10 belong together")
        }
        guard (workload == .register) == (history != nil) else {
            throw ValidationError("--workload register and --history FILE belong together")
        }
        guard workload != .register || !(isMeasuring || ramp || fill || during != nil || rate != nil) else {
            throw ValidationError(
                "--workload register measures nothing: it excludes --rate, --ramp, --during, --fill, --json, --csv, --html "
                    + "and --max-error-rate")
        }
        guard !ramp || (rate == nil && during == nil && csv == nil && html == nil) else {
            throw ValidationError("--ramp excludes --rate, --during, --csv and --html")
        }
    }

    /// Whether it was said what to do with what is measured.
    private var isMeasuring: Bool { json != nil || csv != nil || html != nil || errorRateMax > 0 }

    /// Event loops, standard descriptors, /proc, the output files, and some to spare.
    private static let descriptors = 32

    static func main() { Console.start(Self.self) }

    private func load(of nodes: [String]) -> Load {
        let operations: Load.Mix =
            switch workload {
            case .put, .register: Load.Mix(.put)
            case .get: Load.Mix(.get)
            case .list: Load.Mix(.list)
            case .mixed: mix ?? Load.Mix(.put)
            }
        let level: Consistency =
            switch consistency {
            case .linearizable: .linearizable
            case .lease: .lease
            case .stale: .stale(maximumAge: nil)
            }
        return Load(
            nodes: nodes, mix: operations, clients: clients ?? (ramp ? 1024 : 256), connections: connections,
            size: Int(size.bytes), files: files,
            directories: min(directories, files), distribution: distribution, consistency: level,
            isSpread: target == .spread, rate: rate, isFilled: fill, duration: duration.duration,
            warmup: warmup.duration)
    }

    func run() async throws {
        let list = try NodeList.resolve(nodes, environment: ProcessInfo.processInfo.environment["BANYAN_NODES"])
        let load = load(of: list.addresses)
        try Descriptors.require(Self.descriptors + load.connections * max(2, list.addresses.count))
        // After an hour's load it is too late to learn that the result can't be kept.
        let (json, csv, html) = (
            try self.json.map(OutputFile.init), try self.csv.map(OutputFile.init), try self.html.map(OutputFile.init)
        )
        let interruption = Interruption()
        if let history { return try await runRegister(load, to: OutputFile(history), interruption) }
        if ramp {
            return try await Ramp(workload: workload.rawValue, json: json, errorRateMax: errorRateMax)
                .run(load, interruption)
        }
        let result = try await measure(load, faults: during?.faults(on: list.addresses) ?? [], interruption)
        let report = Report(workload: workload.rawValue, load: load, result: result)
        if ![json, csv, html].contains(where: { $0?.isStandardOutput == true }) { try Console.print(report.table()) }
        try json?.write(report.json())
        try csv?.write(report.csv())
        try html?.write(HTMLReport(report).page())
        if interruption.hasCome { throw ExitCode(Interruption.exitCode) }
        try result.check(errorRateMax)
    }

    /// What failed is part of the history, and no failure of the tool.
    private func runRegister(_ load: Load, to file: OutputFile, _ interruption: Interruption) async throws {
        interruption.begin()
        let result = try await RegisterWorkload.run(load, until: interruption.stream())
        try file.write(String(decoding: HistoryFile.encode(result.history), as: UTF8.self))
        try Console.print(
            "register  \(result.history.count) operations, \(result.answered) answered, \(result.failures) failed"
                + (result.firstFailure.map { ", the first: \($0)" } ?? ""))
        if interruption.hasCome { throw ExitCode(Interruption.exitCode) }
        if result.answered == 0 { throw CommandFailure(result.firstFailure ?? "nothing was answered", exitCode: 5) }
    }
}

/// Runs a load with its live line, and says in one line why it could not be done.
func measure(_ load: Load, faults: [Fault] = [], _ interruption: Interruption) async throws -> LoadResult {
    let live = LiveLine()
    defer { live.end() }
    let begin = interruption.begin
    if !load.isFilled { begin() }
    let filling: @Sendable (Int) -> Void = { files in
        live.filling(files)
        if files == load.files { begin() }
    }
    do {
        return try await LoadGenerator.run(
            load, faults: faults, interruption: interruption.stream(), filling: filling, progress: live.part)
    } catch let error as BanyanError {
        throw CommandFailure("\(error)", exitCode: 5)
    }
}

extension LoadResult {
    /// - Throws: what makes the exit code, in words.
    func check(_ errorRateMax: Double) throws {
        if operations == 0 {
            throw CommandFailure(firstError ?? "no operation ended within --duration", exitCode: 5)
        }
        guard errorRate > errorRateMax else { return }
        throw CommandFailure(
            "\(errors) of the requests failed and \(unsent) were never sent: "
                + "\((errorRate * 10_000).rounded() / 100) %, more than --max-error-rate \(errorRateMax)")
    }
}

extension KeyDistribution: ExpressibleByArgument {}

extension Load.Mix: ExpressibleByArgument {
    public init?(argument: String) {
        var weights: [(operation: Load.Operation, weight: Int)] = []
        for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
            let sides = part.split(separator: "=")
            guard sides.count == 2, let operation = Load.Operation(rawValue: String(sides[0])),
                let weight = Int(sides[1])
            else { return nil }
            weights.append((operation, weight))
        }
        self.init(weights)
    }
}
