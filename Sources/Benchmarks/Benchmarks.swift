import ArgumentParser

/// What the parts can do alone, one table a run. See `make bench`.
@main
struct Benchmarks: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "banyan-bench", abstract: "Measure parts of a member, each alone.",
        subcommands: [ApplyBenchmark.self, LogBenchmark.self])
}

/// Seconds on a clock that never goes back.
func timed(_ body: () throws -> Void) rethrows -> Double {
    let elapsed = try ContinuousClock().measure(body)
    return Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) * 1e-18
}
