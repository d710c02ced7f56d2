import BanyanClient
import Foundation
import Histogram
import LoadGenerator

/// A result in the forms that people and programs read.
struct Report: Encodable {
    let system = "banyan"
    let workload: String
    /// Parts by operation.
    let mix: [String: Int]
    let clients: Int
    let connections: Int
    let size: Int
    let files: Int
    let directories: Int
    let distribution: String
    /// Of reads, and where they went.
    let consistency: String
    let target: String
    /// Whether all files were written first.
    let isFilled: Bool
    /// Of an open loop.
    let rate: Double?
    let warmupSeconds: Double
    let seconds: Double
    let operations: Int
    let operationsPerSecond: Double
    let due: Int
    let carried: Int
    let late: Int
    let errors: Int
    let refused: Int
    let unknown: Int
    let unsent: Int
    /// Of all that was due, from 0 to 1.
    let errorRate: Double
    let latencyMs: [String: Double]
    let latencyMsByOperation: [String: [String: Double]]
    let faults: [LoadResult.FaultReport]
    let leaders: [LoadResult.LeaderChange]
    let timeline: [LoadResult.Second]
    /// Parts of one processor, and of the whole machine.
    let toolThreadShare: Double
    let toolThreadWaiting: Double?
    let machineShare: Double?
    /// A thread that never rests measures itself.
    let isLimitedByTool: Bool
    /// From the fastest answer to the slowest: per cent of all, and milliseconds.
    let percentiles: [CurvePoint]
    let firstError: String?

    struct CurvePoint: Encodable {
        let percentile: Double
        let milliseconds: Double
    }

    init(workload: String, load: Load, result: LoadResult) {
        self.workload = workload
        mix = Dictionary(uniqueKeysWithValues: load.mix.weights.map { ($0.operation.rawValue, $0.weight) })
        (clients, connections, size) = (load.clients, load.connections, load.size)
        (files, directories, distribution) = (load.files, load.directories, load.distribution.rawValue)
        (consistency, target, isFilled) = (load.consistency.name, load.isSpread ? "spread" : "leader", load.isFilled)
        (rate, warmupSeconds, seconds) = (load.rate, load.warmup / .seconds(1), result.seconds)
        (operations, operationsPerSecond) = (result.operations, result.operationsPerSecond)
        (due, carried) = (result.due, result.carried)
        (late, errors, errorRate) = (result.late, result.errors, result.errorRate)
        (refused, unknown, unsent) = (result.refused, result.unknown, result.unsent)
        firstError = result.firstError
        latencyMs = Self.percentiles(of: result.latency)
        latencyMsByOperation = Dictionary(
            uniqueKeysWithValues: result.latencyByOperation.map { ($0.key.rawValue, Self.percentiles(of: $0.value)) })
        (faults, leaders, timeline) = (result.faults, result.leaders, result.timeline)
        (toolThreadShare, toolThreadWaiting) = (result.threadShare, result.threadWaiting)
        (machineShare, isLimitedByTool) = (result.machineShare, result.threadShare > 0.9)
        percentiles = result.latency.percentiles(ticksPerHalfDistance: 5).map {
            CurvePoint(percentile: $0.percentile, milliseconds: Double($0.value) / 1000)
        }
    }

    private static func percentiles(of latency: LoadResult.Latencies) -> [String: Double] {
        let at = { Double(latency.valueAtPercentile($0)) / 1000 }
        return [
            "p50": at(50), "p90": at(90), "p99": at(99), "p999": at(99.9), "max": Double(latency.max) / 1000,
            "mean": (latency.mean / 10).rounded() / 100,
        ]
    }

    // MARK: forms

    func json() -> String {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // Numbers and texts alone: there is nothing that can't be encoded.
        return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
    }

    func csv() -> String {
        let rows = timeline.map { (row: LoadResult.Second) in
            let latencies = [row.p50, row.p99, row.max].map { $0.map { "\($0)" } ?? "" }.joined(separator: ",")
            return "\(row.second),\(row.operations),\(row.errors),\(latencies),\(row.leader)"
        }
        return (["second,operations,errors,p50_ms,p99_ms,max_ms,leader"] + rows).joined(separator: "\n")
    }

    func table() -> String {
        var lines = [
            "\(workload)  \(clients) clients on \(connections) connections, \(size) bytes, \(files) files, \(distribution)"
                + (rate.map { ", \(String(format: "%g", $0)) due a second" } ?? "")
                + (reads.isEmpty ? "" : ", " + reads),
            "operations   \(operations) in \(Self.rounded(seconds)) s: \(Int(operationsPerSecond)) per second",
            "latency ms   " + Self.text(of: latencyMs),
        ]
        if latencyMsByOperation.count > 1 {
            lines += latencyMsByOperation.sorted { $0.key < $1.key }.map { kind, latency in
                "  " + kind.padding(toLength: 11, withPad: " ", startingAt: 0) + Self.text(of: latency)
            }
        }
        lines.append(
            "errors       \(errors)" + (errors > 0 ? ": \(refused) refused, \(unknown) unknown" : "")
                + (firstError.map { ", the first: \($0)" } ?? ""))
        if let unsentText { lines.append("not sent     " + unsentText) }
        for fault in faults {
            lines.append("fault        at \(Self.rounded(fault.second)) s, " + Self.text(of: fault))
        }
        if leaders.count > 1 {
            lines.append(
                "leaders      "
                    + leaders.map { "\($0.member == 0 ? "none" : "\($0.member)") from \(Self.rounded($0.second)) s" }
                    .joined(separator: ", "))
        }
        lines.append(
            "processors   the tool's thread used \(Self.percent(toolThreadShare)) of one"
                + (toolThreadWaiting.map { ", and waited for one \(Self.percent($0)) of the time" } ?? "")
                + (machineShare.map { "; the whole machine was \(Self.percent($0)) busy" } ?? ""))
        if isLimitedByTool {
            lines.append("             the tool is itself the limit: run several, or on another machine")
        }
        return lines.joined(separator: "\n")
    }

    // MARK: words that several forms use

    /// How reads were asked; nothing when there were none.
    var reads: String { mix.keys.contains { $0 != "put" } ? "\(consistency) reads, \(target)" : "" }

    var unsentText: String? {
        unsent == 0 ? nil : "\(unsent) that were due: the rate is more than \(clients) clients get answered"
    }

    static func text(of fault: LoadResult.FaultReport) -> String {
        "\(fault.description): \(Int((fault.gapSeconds * 1000).rounded())) ms without an acknowledgement; of the requests "
            + "under way \(fault.acknowledged) acknowledged, \(fault.refused) refused, \(fault.unknown) unknown"
    }

    static func percent(_ part: Double) -> String { "\(Int((part * 100).rounded())) %" }

    private static func text(of latency: [String: Double]) -> String {
        [("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99.9", "p999"), ("max", "max")]
            .map { "\($0.0) \(latency[$0.1] ?? 0)" }.joined(separator: "  ")
    }

    static func rounded(_ value: Double) -> Double { (value * 10).rounded() / 10 }
}

extension Consistency {
    fileprivate var name: String {
        switch self {
        case .linearizable: "linearizable"
        case .lease: "lease"
        case .stale: "stale"
        }
    }
}
