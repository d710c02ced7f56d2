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
        abstract: "Put closed-loop load on a Banyan cluster and measure it.",
        discussion: """
            Each client sends its next request when the last one was answered. Gets and listings are linearizable. The
            files stand in /load, in 100 directories; get and list write them first. The exit code is 1 when an
            operation failed.

            --workload register measures nothing: its clients put, get, compare and set, and delete --files files (new ones
            every two seconds) while you do your worst to the cluster, and write down what they saw:
              banyan-load --workload register --clients 10 --files 10 --duration 60s --history h.jsonl
              banyan-sim --check h.jsonl
            """)

    @Option(help: ArgumentHelp("Addresses of members.", valueName: "host:port,..."))
    var nodes: NodeList?
    @Option(help: "put, get, list, or register: see --history.") var workload: Load.Workload = .put
    @Option(help: "How many requests are under way at once.") var clients = 256
    @Option(help: "Over how many connections.") var connections = 16
    @Option(help: "Bytes of a file.") var size = 256
    @Option(help: "How many files.") var files = 10_000
    @Option(help: "How long to measure, as in 10s.") var duration: Seconds = Seconds(value: 10)
    @Option(help: "How long to run before that.") var warmup: Seconds = Seconds(value: 2)
    enum Level: String, ExpressibleByArgument, CaseIterable { case linearizable, lease, stale }
    @Option(help: "Of gets and listings: linearizable, lease or stale.") var consistency = Level.linearizable
    @Option(help: ArgumentHelp("Write the result as JSON; - is standard output.", valueName: "file")) var json: String?
    @Option(
        help: ArgumentHelp(
            "With --workload register: what each client did, as JSON lines for 'banyan-sim --check'.", valueName: "file"
        ))
    var history: String?

    func validate() throws {
        guard clients > 0, connections > 0, files > 0, duration.value > 0, (0...(1 << 20)).contains(size) else {
            throw ValidationError(
                "--clients, --connections, --files and --duration must be positive, --size from 0 to 1048576")
        }
        guard (workload == .register) == (history != nil) else {
            throw ValidationError("--workload register and --history FILE belong together")
        }
    }

    static func main() async { await Console.run(Self.self) }

    private struct Report: Encodable {
        let system = "banyan"
        let workload: String
        let clients: Int
        let connections: Int
        let size: Int
        let files: Int
        let operations: Int
        let operationsPerSecond: Double
        let errors: Int
        let latencyMilliseconds: [String: Double]

        enum CodingKeys: String, CodingKey {
            case system, workload, clients, connections, size, files, operations, errors
            case operationsPerSecond = "operations_per_second"
            case latencyMilliseconds = "latency_ms"
        }
    }

    private var level: Consistency {
        switch consistency {
        case .linearizable: .linearizable
        case .lease: .lease
        case .stale: .stale(maximumAge: nil)
        }
    }

    /// What failed is part of the history, and no failure of the tool.
    private func runRegister(_ load: Load, to path: String) async throws {
        let result = try await RegisterWorkload.run(load)
        do { try HistoryFile.encode(result.history).write(to: URL(fileURLWithPath: path)) } catch {
            throw CommandFailure("\(path): can't be written")
        }
        try Console.print(
            "register  \(result.history.count) operations, \(result.answered) answered, \(result.failures) failed"
                + (result.firstFailure.map { ", the first: \($0)" } ?? ""))
        if result.answered == 0 { throw CommandFailure(result.firstFailure ?? "nothing was answered", exitCode: 5) }
    }

    func run() async throws {
        let list = try NodeList.resolve(nodes, environment: ProcessInfo.processInfo.environment["BANYAN_NODES"])
        let load = Load(
            nodes: list.addresses, workload: workload, clients: clients,
            connections: connections, size: size, files: files, duration: .milliseconds(Int64(duration.value * 1000)),
            warmup: .milliseconds(Int64(warmup.value * 1000)), consistency: level)
        if let history { return try await runRegister(load, to: history) }
        let result: LoadResult
        do { result = try await LoadGenerator.run(load) } catch let error as BanyanError {
            throw CommandFailure("filling /load: \(error)", exitCode: 5)
        }
        let at = { Double(result.latency.valueAtPercentile($0)) / 1000 }
        let report = Report(
            workload: workload.rawValue, clients: clients, connections: load.connections, size: size, files: files,
            operations: result.operations, operationsPerSecond: Double(result.operations) / result.seconds,
            errors: result.errors,
            latencyMilliseconds: [
                "p50": at(50), "p90": at(90), "p99": at(99), "p999": at(99.9), "max": Double(result.latency.max) / 1000,
            ])
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        let encoded = try encoder.encode(report)
        if let json, json != "-" {
            do { try encoded.write(to: URL(fileURLWithPath: json)) } catch {
                throw CommandFailure("\(json): can't be written")
            }
        }
        if json == "-" {
            try Console.print(String(decoding: encoded, as: UTF8.self))
        } else {
            try Console.print(
                """
                \(workload.rawValue)  \(clients) clients on \(load.connections) connections, \(size) bytes, \(files) files
                operations   \(result.operations) in \(duration.value) s: \(Int(report.operationsPerSecond)) per second
                latency ms   p50 \(at(50))  p90 \(at(90))  p99 \(at(99))  p99.9 \(at(99.9))  max \(Double(result.latency.max) / 1000)
                errors       \(result.errors)\(result.firstError.map { ", the first: \($0)" } ?? "")
                """)
        }
        if result.operations == 0 {
            throw CommandFailure(result.firstError ?? "no operation ended within --duration", exitCode: 5)
        }
        if result.errors > 0 { throw ExitCode.failure }
    }
}

struct Seconds: ExpressibleByArgument {
    var value: Double
    init(value: Double) { self.value = value }

    init?(argument: String) {
        let digits = argument.hasSuffix("s") ? String(argument.dropLast()) : argument
        guard let value = Double(digits), value >= 0, value < 86_400 else { return nil }
        self.value = value
    }

    var defaultValueDescription: String { "\(Int(value))s" }
}

extension Load.Workload: ExpressibleByArgument {}
