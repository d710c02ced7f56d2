import ArgumentParser
import Console
import Foundation
import LoadGenerator

/// Twice as many clients at each step. The knee is where throughput divided by mean latency is greatest: with fewer clients
/// the cluster idles, with more they only wait longer (Kleinrock's "power", ICC 1979).
struct Ramp {
    let workload: String
    let json: OutputFile?
    let errorRateMax: Double

    /// Whether standard output is the JSON's.
    private var isPlain: Bool { json?.isStandardOutput == true }

    func run(_ load: Load, _ interruption: Interruption) async throws {
        var rows: [(report: Report, power: Double)] = []
        var worst: LoadResult?
        if !isPlain {
            try Console.print(Self.line(["clients", "per second", "p50 ms", "p99 ms", "p99.9 ms", "errors"]))
        }
        for clients in Self.steps(upTo: load.clients) {
            var step = load
            (step.clients, step.connections) = (clients, min(load.connections, clients))
            // The first step's files are there for all.
            step.isFilled = load.isFilled && rows.isEmpty
            let result = try await measure(step, interruption)
            if interruption.hasCome { break }
            if result.errorRate > worst?.errorRate ?? -1 { worst = result }
            let report = Report(workload: workload, load: step, result: result)
            rows.append((report, result.operationsPerSecond / max(0.001, result.latency.mean / 1000)))
            let latency = report.latencyMs
            if !isPlain {
                try Console.print(
                    Self.line([
                        "\(clients)", "\(Int(result.operationsPerSecond))", "\(latency["p50"] ?? 0)",
                        "\(latency["p99"] ?? 0)", "\(latency["p999"] ?? 0)", "\(result.errors)",
                        report.isLimitedByTool ? "the tool is itself the limit" : "",
                    ]))
            }
        }
        let knee = Self.knee(rows.map { ($0.report.clients, $0.power) })
        if !isPlain, !interruption.hasCome {
            try Console.print(
                knee.map { "the knee is at \($0) clients: beyond, waiting grows faster than the rate" }
                    ?? "there is no knee: the rate still grows faster than the waiting")
        }
        if let json {
            let steps = rows.map { $0.report.json() }.joined(separator: ",")
            try json.write("{\"knee_clients\":\(knee.map { "\($0)" } ?? "null"),\"steps\":[\(steps)]}")
        }
        if interruption.hasCome { throw ExitCode(Interruption.exitCode) }
        try worst?.check(errorRateMax)
    }

    private static func steps(upTo most: Int) -> [Int] {
        var steps = [1]
        while let last = steps.last, last < most { steps.append(min(most, last * 2)) }
        return steps
    }

    /// Nil when the last step is the best: then nothing is known of what comes behind it.
    static func knee(_ steps: [(clients: Int, power: Double)]) -> Int? {
        guard let best = steps.max(by: { $0.power < $1.power }), best.clients != steps.last?.clients, best.power > 0
        else { return nil }
        return best.clients
    }

    private static func line(_ fields: [String]) -> String {
        fields.map { $0.padding(toLength: max(12, $0.count), withPad: " ", startingAt: 0) }.joined()
    }
}
