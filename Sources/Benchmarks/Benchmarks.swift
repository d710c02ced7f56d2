import ArgumentParser
import Foundation

/// What the parts can do alone, one table a run. See `make bench`.
@main
struct Benchmarks: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "banyan-bench", abstract: "Measure parts of a member, each alone.",
        subcommands: [
            ApplyBenchmark.self, LogBenchmark.self, MicroBenchmark.self, CompareBenchmark.self,
            StorageBenchmark.self, GrowthBenchmark.self, EchoBenchmark.self,
        ])
}

/// A new directory to work in. One that is there already is somebody's, and is left alone.
struct Folder {
    let path: String

    init(_ path: String) throws {
        self.path = path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    func remove() { try? FileManager.default.removeItem(atPath: path) }
}

/// Runs all parts of a benchmark, or only one.
func runParts(_ parts: [(String, () throws -> Void)], _ only: String?) throws {
    let chosen = parts.filter { only == nil || only == $0.0 }
    guard !chosen.isEmpty else {
        throw ValidationError("--only is one of \(parts.map(\.0).joined(separator: ", "))")
    }
    for (_, part) in chosen { try part() }
}

/// Seconds on a clock that never goes back.
func timed(_ body: () throws -> Void) rethrows -> Double {
    let elapsed = try ContinuousClock().measure(body)
    return Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) * 1e-18
}
