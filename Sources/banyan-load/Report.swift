import Foundation
import Histogram
import LoadGenerator

/// A result in the forms that people and programs read.
struct Report: Encodable {
    let system = "banyan"
    let workload: String
    let clients: Int
    let connections: Int
    let size: Int
    let files: Int
    let directories: Int
    let distribution: String
    /// Of an open loop.
    let rate: Double?
    let seconds: Double
    let operations: Int
    let operationsPerSecond: Double
    let errors: Int
    let refused: Int
    let unknown: Int
    let unsent: Int
    let latencyMilliseconds: [String: Double]
    let latencyByOperation: [String: [String: Double]]
    let faults: [FaultRow]
    let leaders: [LeaderRow]
    let timeline: [SecondRow]
    /// Parts of one processor and of the whole machine.
    let toolShare: Double
    let machineShare: Double?
    /// From the fastest answer to the slowest, as (part of all, milliseconds).
    let percentileCurve: [CurvePoint]

    let firstError: String?

    struct FaultRow: Encodable {
        let description: String
        let second: Double
        let gapSeconds: Double
        let acknowledged: Int
        let refused: Int
        let unknown: Int

        enum CodingKeys: String, CodingKey {
            case description, second, acknowledged, refused, unknown
            case gapSeconds = "gap_seconds"
        }
    }

    struct LeaderRow: Encodable {
        let second: Double
        let member: UInt64
    }

    struct SecondRow: Encodable {
        let second: Int
        let operations: Int
        let errors: Int
        let p50: Double
        let p99: Double
        let max: Double
        let leader: UInt64
    }

    struct CurvePoint: Encodable {
        let percentile: Double
        let milliseconds: Double
    }

    enum CodingKeys: String, CodingKey {
        case system, workload, clients, connections, size, files, directories, distribution, rate, seconds, operations
        case errors, refused, unknown, unsent, faults, leaders, timeline
        case operationsPerSecond = "operations_per_second"
        case latencyMilliseconds = "latency_ms"
        case latencyByOperation = "latency_ms_by_operation"
        case toolShare = "tool_thread_share"
        case machineShare = "machine_share"
        case percentileCurve = "percentiles"
        case firstError = "first_error"
    }

    init(workload: String, load: Load, result: LoadResult) {
        self.workload = workload
        (clients, connections, size) = (load.clients, load.connections, load.size)
        (files, directories, distribution) = (load.files, load.directories, load.distribution.rawValue)
        (rate, seconds) = (load.rate, result.seconds)
        (operations, operationsPerSecond) = (result.operations, result.operationsPerSecond)
        (errors, refused, unknown, unsent) = (result.errors, result.refused, result.unknown, result.unsent)
        firstError = result.firstError
        latencyMilliseconds = Self.percentiles(of: result.latency)
        latencyByOperation = Dictionary(
            uniqueKeysWithValues: result.latencyByOperation.map { ($0.key.rawValue, Self.percentiles(of: $0.value)) })
        faults = result.faults.map {
            FaultRow(
                description: $0.description, second: $0.second, gapSeconds: $0.gapSeconds,
                acknowledged: $0.acknowledged, refused: $0.refused, unknown: $0.unknown)
        }
        leaders = result.leaders.map { LeaderRow(second: $0.second, member: $0.member) }
        timeline = result.timeline.map {
            SecondRow(
                second: $0.second, operations: $0.operations, errors: $0.errors, p50: $0.median, p99: $0.percentile99,
                max: $0.longest, leader: $0.leader)
        }
        (toolShare, machineShare) = (result.threadShare, result.machineShare)
        percentileCurve = result.latency.percentiles(ticksPerHalfDistance: 5).map {
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
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // Numbers and texts alone: there is nothing that can't be encoded.
        return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
    }

    func csv() -> String {
        let rows = timeline.map {
            "\($0.second),\($0.operations),\($0.errors),\($0.p50),\($0.p99),\($0.max),\($0.leader)"
        }
        return (["second,operations,errors,p50_ms,p99_ms,max_ms,leader"] + rows).joined(separator: "\n")
    }

    func table() -> String {
        var lines = [
            "\(workload)  \(clients) clients on \(connections) connections, \(size) bytes, \(files) files, \(distribution)"
                + (rate.map { ", \(Int($0)) due a second" } ?? ""),
            "operations   \(operations) in \(Self.rounded(seconds)) s: \(Int(operationsPerSecond)) per second",
            "latency ms   " + Self.text(of: latencyMilliseconds),
        ]
        if latencyByOperation.count > 1 {
            lines += latencyByOperation.sorted { $0.key < $1.key }.map { kind, latency in
                "  " + kind.padding(toLength: 11, withPad: " ", startingAt: 0) + Self.text(of: latency)
            }
        }
        lines.append(
            "errors       \(errors)" + (errors > 0 ? ": \(refused) refused, \(unknown) unknown" : "")
                + (firstError.map { ", the first: \($0)" } ?? ""))
        if unsent > 0 {
            lines.append("not sent     \(unsent) that were due: the rate is more than \(clients) clients get answered")
        }
        for fault in faults {
            lines.append(
                "fault        \(fault.description), at \(Self.rounded(fault.second)) s: "
                    + "\(Int((fault.gapSeconds * 1000).rounded())) ms without an acknowledgement; of the requests under way "
                    + "\(fault.acknowledged) acknowledged, \(fault.refused) refused, \(fault.unknown) unknown")
        }
        if leaders.count > 1 {
            lines.append(
                "leaders      "
                    + leaders.map { "\($0.member == 0 ? "none" : "\($0.member)") from \(Self.rounded($0.second)) s" }
                    .joined(separator: ", "))
        }
        lines.append(
            "processors   the tool's thread used \(Int((toolShare * 100).rounded())) % of one"
                + (machineShare.map { "; the whole machine was \(Int(($0 * 100).rounded())) % busy" } ?? ""))
        if isLimitedByTool {
            lines.append("             the tool is itself the limit: run several, or on another machine")
        }
        return lines.joined(separator: "\n")
    }

    /// A thread that never rests measures itself.
    var isLimitedByTool: Bool { toolShare > 0.9 }

    private static func text(of latency: [String: Double]) -> String {
        [("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p99.9", "p999"), ("max", "max")]
            .map { "\($0.0) \(latency[$0.1] ?? 0)" }.joined(separator: "  ")
    }

    static func rounded(_ value: Double) -> Double { (value * 10).rounded() / 10 }
}
