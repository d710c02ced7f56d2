import ArgumentParser
import Foundation

/// How the rates change as one thing grows and the rest stays: one line for each point.
struct GrowthBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "growth",
        abstract: "Clients, members, files, sizes, directories, and an open loop at half the peak.")

    @Option(help: "One of clients, members, files, sizes, directories, open.") var only: String?
    @Option(help: "Seconds of each load.") var seconds = 4
    @Option(help: "The most files.") var files = 1_000_000
    @Option(help: "A directory that is not there yet, to work in; it is removed at the end.") var data =
        "/tmp/banyan-bench-growth"

    func run() throws {
        let folder = try Folder(data)
        defer { folder.remove() }
        try runParts(
            [
                ("clients", clients), ("members", members), ("files", filesGrow), ("sizes", sizes),
                ("directories", directories), ("open", open),
            ], only)
    }

    private func cluster(_ count: Int = 3) throws -> LocalMembers {
        try LocalMembers("\(data)/members", count: count, port: 18701)
    }

    private func load(_ members: LocalMembers, _ workload: String, _ arguments: [String]) throws -> LoadFigures {
        try members.load(
            ["--workload", workload, "--duration", "\(seconds)s", "--warmup", "1s"] + arguments)
    }

    private func show(_ point: String, _ what: String, _ figures: LoadFigures) {
        let latency = { (name: String) in String(format: "%.2f", figures.latencyMs[name] ?? 0) }
        say(
            point.padding(toLength: 34, withPad: " ", startingAt: 0)
                + what.padding(toLength: 6, withPad: " ", startingAt: 0)
                + String(format: "%9.0f/s", figures.operationsPerSecond)
                + "  p50 \(latency("p50")) ms  p99 \(latency("p99")) ms  p99.9 \(latency("p999")) ms")
    }

    private func clients() throws {
        let members = try cluster()
        for count in (0...10).map({ 1 << $0 }) {
            for workload in ["put", "get"] {
                let figures = try load(
                    members, workload, ["--clients", "\(count)", "--connections", "\(min(16, count))"])
                show("\(count) clients", workload, figures)
            }
        }
    }

    private func members() throws {
        for count in [1, 3, 5] {
            let members = try cluster(count)
            for workload in ["put", "get"] { show("\(count) members", workload, try load(members, workload, [])) }
        }
    }

    private func filesGrow() throws {
        var count = 1000
        while count <= files {
            let members = try cluster()
            let arguments = ["--files", "\(count)"]
            show("\(count) files, uniform, filled first", "put", try load(members, "put", arguments + ["--fill"]))
            show("\(count) files, zipfian", "put", try load(members, "put", arguments + ["--distribution", "zipfian"]))
            say("    resident \(members.residentMebibytes()) MiB")
            count *= 10
        }
    }

    private func sizes() throws {
        let members = try cluster()
        for size in [16, 256, 1024, 4096, 16384, 65536, 262_144, 1 << 20] {
            let files = min(10_000, max(100, (64 << 20) / size))
            let arguments = ["--size", "\(size)", "--files", "\(files)", "--clients", "64"]
            show("\(size) bytes", "put", try load(members, "put", arguments))
        }
    }

    private func directories() throws {
        var count = 10
        while count <= files {
            let members = try cluster()
            let arguments = ["--directories", "1", "--files", "\(count)", "--clients", "64"]
            show("a page of 100 of \(count) entries", "list", try load(members, "list", arguments))
            count *= 10
        }
    }

    private func open() throws {
        let members = try cluster()
        let peak = try load(members, "put", [])
        let rate = Int(peak.operationsPerSecond / 2)
        show("open loop, \(rate) due a second", "put", try load(members, "put", ["--rate", "\(rate)"]))
    }
}
