import Console
import Foundation
import LoadGenerator

/// Twice as many clients at each step. The knee is where throughput divided by mean latency is greatest: with fewer clients
/// the cluster idles, with more they only wait longer (Kleinrock's "power", ICC 1979).
struct Ramp {
    private static let steps = (0...10).map { 1 << $0 }

    let workload: String
    let json: String?

    func run(_ load: Load) async throws {
        var rows: [(report: Report, power: Double)] = []
        if json != "-" {
            try Console.print(Self.line(["clients", "per second", "p50 ms", "p99 ms", "p99.9 ms", "errors"]))
        }
        for clients in Self.steps {
            var step = load
            (step.clients, step.connections) = (clients, min(load.connections, clients))
            step.isFilled = load.isFilled && rows.isEmpty
            let result = try await measure(step)
            let report = Report(workload: workload, load: step, result: result)
            rows.append((report, result.operationsPerSecond / max(0.001, result.latency.mean / 1000)))
            let latency = report.latencyMilliseconds
            if json != "-" {
                try Console.print(
                    Self.line([
                        "\(clients)", "\(Int(result.operationsPerSecond))", "\(latency["p50"] ?? 0)",
                        "\(latency["p99"] ?? 0)", "\(latency["p999"] ?? 0)", "\(result.errors)",
                    ]))
            }
        }
        let knee = rows.max { $0.power < $1.power }?.report.clients ?? 0
        if json != "-" {
            try Console.print("the knee is at \(knee) clients: beyond, waiting grows faster than the rate")
        }
        guard let json else { return }
        let steps = rows.map { $0.report.json() }.joined(separator: ",")
        try write("{\"knee_clients\":\(knee),\"steps\":[\(steps)]}", to: json)
    }

    private static func line(_ fields: [String]) -> String {
        fields.map { $0.padding(toLength: max(12, $0.count), withPad: " ", startingAt: 0) }.joined()
    }
}
