import ArgumentParser
import Console
import Foundation
import Histories
import Raft
import Simulator

@main
struct BanyanSim: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "banyan-sim",
        abstract: "Run whole clusters under faults in simulated time, and look for a broken promise.",
        discussion: """
            A run is wholly decided by its seed. When an invariant breaks, the run is made short (other kinds of faults are \
            left out, and steps), how to repeat it is printed, and its trace (who sent what to whom, who believed what) is \
            written to a file:
              banyan-sim --seeds 1..1000
              banyan-sim --seed 42 --trace seed-42.txt
            Histories of clients, the simulation's and those of 'banyan-load --workload register', are JSON lines:
              banyan-sim --seed 42 --history seed-42.jsonl
              banyan-sim --check seed-42.jsonl
            An intruder speaks in the members' names. 'insane' says only what no sound cluster could have sent, and all \
            invariants must hold; 'mutating' changes what it hears, and when it falls silent service must come back. How \
            many of its frames were refused, for which reasons, and how many got through is printed; none of either is a \
            failure:
              banyan-sim --seeds 1..10000 --intruder insane
              banyan-sim --seeds 1..10000 --intruder mutating
            Exit code 1: something broke.
            """)

    @Option(help: "One run.") var seed: UInt64?
    @Option(help: ArgumentHelp("Many runs, on all cores.", valueName: "from..to")) var seeds: SeedRange?
    @Option(help: "Events of a run before its faults stop.") var steps = 10_000
    @Option(help: "How many members.") var nodes = 3
    @Option(help: "Plant this fault; with --mutant list all are named.") var mutant: String?
    @Option(
        help: ArgumentHelp(
            "Let somebody speak in the members' names: \(Intruder.Kind.allCases.map(\.rawValue).joined(separator: ", ")).",
            valueName: "kind"))
    var intruder: Intruder.Kind?
    @Option(help: ArgumentHelp("Write the trace of --seed here; - is standard output.", valueName: "file"))
    var trace: String?
    @Option(help: ArgumentHelp("Write what the clients of --seed did here, as JSON lines.", valueName: "file"))
    var history: String?
    @Option(help: ArgumentHelp("Check a history for linearizability; run nothing.", valueName: "file"))
    var check: String?
    @Option(
        help: ArgumentHelp(
            "Leave out these kinds of faults: \(Fault.allCases.map(\.rawValue).joined(separator: ", ")).",
            valueName: "kind,..."))
    var without: FaultList = FaultList(kinds: [])
    @Flag(help: "Report a failing run as it is.") var noShrink = false

    static func main() { Console.start(Self.self) }

    func validate() throws {
        guard [seed != nil, seeds != nil, check != nil, mutant == "list"].count(where: { $0 }) == 1 else {
            throw ValidationError("give one --seed N, or many with --seeds FROM..TO, or a history to --check")
        }
        if seed == nil, trace != nil || history != nil {
            throw ValidationError("--trace and --history show one run: give --seed")
        }
        guard (1...9).contains(nodes), steps > 0 else {
            throw ValidationError("--nodes must be from 1 to 9, and --steps positive")
        }
        if let mutant, mutant != "list", Mutant(rawValue: mutant) == nil {
            throw ValidationError("no mutant is called '\(mutant)'; --mutant list names them")
        }
    }

    func run() async throws {
        if mutant == "list" {
            for mutant in Mutant.allCases { print(mutant.rawValue) }
        } else if let check {
            try checkHistory(check)
        } else if let seed {
            try runOne(seed)
        } else if let seeds {
            try await runMany(seeds.range)
        }
    }

    private func options(_ seed: UInt64) -> Simulation.Options {
        var options = Simulation.Options(seed: seed)
        (options.steps, options.members, options.mutant) = (steps, nodes, mutant.flatMap(Mutant.init(rawValue:)))
        options.without = Set(without.kinds)
        options.intruder = intruder
        return options
    }

    private func runOne(_ seed: UInt64) throws {
        var options = options(seed)
        options.isTraced = trace != nil
        let report = Simulation(options).run()
        if let trace {
            let text = report.trace.joined(separator: "\n") + "\n"
            if trace == "-" { try Console.output(Array(text.utf8)) } else { try write(Data(text.utf8), to: trace) }
        }
        if let history { try write(HistoryFile.encode(report.history), to: history) }
        print(
            """
            seed \(seed): \(report.steps) steps, \(report.simulated / 1_000_000) ms simulated, \
            \(report.operations) operations, \(report.elections) elections, \(report.snapshots) snapshots
            """)
        try complain(of: report)
    }

    private func write(_ data: Data, to path: String) throws {
        do { try data.write(to: URL(fileURLWithPath: path)) } catch {
            throw CommandFailure("\(path): can't be written: \(error.localizedDescription)")
        }
    }

    private func checkHistory(_ path: String) throws {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw CommandFailure("\(path): can't be read")
        }
        let history: History
        do { history = try HistoryFile.decode(data) } catch { throw CommandFailure("\(path): \(error)") }
        guard !history.isEmpty else {
            throw CommandFailure("\(path): it holds no operation, so that nothing was checked")
        }
        let (broken, undecided) = Linearizability.violation(in: history)
        if let broken {
            throw CommandFailure(
                "\(path): no order explains the \(broken.count) operations on file \(broken.first?.file ?? 0)")
        }
        try Console.print(
            "\(path): linearizable: \(history.count) operations"
                + (undecided == 0 ? "" : ", but for \(undecided) files whose history is too long a puzzle"))
    }

    /// Says what broke and how to see it; a shorter run is looked for first.
    private func complain(of report: Simulation.Report) throws {
        guard let violation = report.violation else { return }
        var options = options(report.seed)
        var shown = violation
        if !noShrink {
            Console.complain(
                "banyan-sim", "seed \(report.seed) breaks '\(violation.invariant)'; looking for a shorter run")
            options = Shrinking.shrink(options)
        }
        options.isTraced = true
        let short = Simulation(options).run()
        shown = short.violation ?? violation
        let file = "banyan-sim-\(options.seed).trace"
        try write(Data((short.trace.joined(separator: "\n") + "\n").utf8), to: file)
        let kinds = options.without.map(\.rawValue).sorted().joined(separator: ",")
        throw CommandFailure(
            "seed \(options.seed) breaks '\(shown.invariant)': \(shown.detail); its trace is in \(file); repeat it with "
                + "'banyan-sim --seed \(options.seed) --steps \(options.steps) --nodes \(nodes)"
                + (mutant.map { " --mutant \($0)" } ?? "") + (intruder.map { " --intruder \($0.rawValue)" } ?? "")
                + (kinds.isEmpty ? "" : " --without \(kinds)")
                + " --no-shrink'")
    }

    private func runMany(_ range: ClosedRange<UInt64>) async throws {
        let began = ContinuousClock.now
        var total = Totals()
        let isTerminal = isatty(STDERR_FILENO) == 1
        let broken = await withTaskGroup(of: Simulation.Report.self, returning: Simulation.Report?.self) { group in
            var next = range.lowerBound
            func begin() {
                guard next <= range.upperBound else { return }
                let options = options(next)
                next += 1
                group.addTask { Simulation(options).run() }
            }
            for _ in 0..<ProcessInfo.processInfo.activeProcessorCount { begin() }
            var broken: Simulation.Report?
            while let report = await group.next() {
                total.add(report)
                if report.violation != nil {
                    broken = report
                    break
                }
                begin()
                if isTerminal, total.runs % 10 == 0 {
                    let rate = Int(Double(total.steps) / max(0.001, (ContinuousClock.now - began) / .seconds(1)))
                    let kinds = total.faults.values.count { $0 > 0 }
                    FileHandle.standardError.write(
                        Data(
                            """
                            \r\(total.runs) of \(range.count) seeds, \(rate) steps a second, \(kinds) of \
                            \(Fault.allCases.count) kinds of faults, \(total.branches.count) of \(Branch.allCases.count) branches
                            """.utf8))
                }
            }
            group.cancelAll()
            return broken
        }
        if isTerminal { FileHandle.standardError.write(Data("\r\u{1B}[K".utf8)) }
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        print(total.text(seconds: seconds))
        if let broken { try complain(of: broken) }
        if intruder != nil, total.intrusions.refused.isEmpty || total.intrusions.through.isEmpty {
            throw CommandFailure("the intruder's frames were all refused, or none was: that shows nothing")
        }
    }
}

/// Sums over many runs.
private struct Totals {
    var runs = 0
    var steps = 0
    var simulated = 0.0
    var operations = 0
    var elections = 0
    var snapshots = 0
    var undecided = 0
    var faults: [Fault: Int] = [:]
    var branches: [Branch: Int] = [:]
    var sent = 0
    var again = 0
    var intrusions = Intrusions()

    mutating func add(_ report: Simulation.Report) {
        runs += 1
        steps += report.steps
        simulated += Double(report.simulated) / 1e9
        operations += report.operations
        elections += report.elections
        snapshots += report.snapshots
        undecided += report.undecided
        faults.merge(report.faults, uniquingKeysWith: +)
        branches.merge(report.branches, uniquingKeysWith: +)
        sent += report.entriesSent
        again += report.entriesSentAgain
        intrusions.add(report.intrusions)
    }

    func text(seconds: Double) -> String {
        let kinds = Fault.allCases.map { "\($0.rawValue) \(faults[$0] ?? 0)" }.joined(separator: ", ")
        return """
            \(runs) seeds, \(steps) steps (\(Int(Double(steps) / max(seconds, 0.001))) a second), \
            \(Int(simulated / 60)) minutes simulated in \(Int(seconds)) s
            \(operations) operations, \(elections) elections, \(snapshots) snapshots, \(undecided) histories of a file undecided
            faults: \(kinds)
            branches: \(Branch.allCases.map { "\($0.rawValue) \(branches[$0] ?? 0)" }.joined(separator: ", "))
            \(sent) entries sent over links that keep their order, \(again) of them again
            """
                + (intrusions.refused.isEmpty && intrusions.through.isEmpty ? "" : "\n\(intruderText)")
    }

    private var intruderText: String {
        func lines(_ counts: [String: Int]) -> String {
            counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { "\n  \($0.value)  \($0.key)" }.joined()
        }
        func sum(_ counts: [String: Int]) -> Int { counts.values.reduce(0, +) }
        return """
            frames of the intruder: \(sum(intrusions.refused)) refused, \(sum(intrusions.through)) got through
            refused because of\(lines(intrusions.refused))
            got through\(lines(intrusions.through))
            afterwards: \(intrusions.leftBehind) members left behind, \(intrusions.recoveries) clusters recovered from one directory
            """
    }
}

extension Intruder.Kind: ExpressibleByArgument {}

/// `crash,pause`
struct FaultList: ExpressibleByArgument {
    let kinds: [Fault]

    init(kinds: [Fault]) { self.kinds = kinds }

    init?(argument: String) {
        kinds = argument.split(separator: ",").compactMap { Fault(rawValue: String($0)) }
        guard kinds.count == argument.split(separator: ",").count else { return nil }
    }

    var defaultValueDescription: String { "none" }
}

/// `1..1000`
struct SeedRange: ExpressibleByArgument {
    let range: ClosedRange<UInt64>

    init?(argument: String) {
        let ends = argument.split(separator: ".", omittingEmptySubsequences: true).map(String.init)
        guard argument.contains(".."), ends.count == 2, let from = UInt64(ends[0]), let to = UInt64(ends[1]), from <= to
        else { return nil }
        range = from...to
    }
}
