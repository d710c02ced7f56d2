import ArgumentParser
import Foundation

/// The standard table: three members and the load on this machine, and beside them, if they are there, the peers.
struct CompareBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare", abstract: "The standard table of loads, in turns with other systems.",
        discussion: """
            --peers names a folder with an executable for each system, called as
              NAME start DIR | NAME load --op put|get|list --clients N --connections N --size N --files N --seconds N | NAME stop DIR
            whose load prints one line of JSON with operations_per_second, latency_ms and errors. No load has a warm-up: each \
            system's first requests count. What is listed does not change meanwhile, so that Banyan answers with pages that it \
            keeps. Of a million files, Banyan's are there before the clock runs, and others' are not. The resident memory is the \
            one before that row: of Banyan what is its own, without LMDB's map; of others what their folder's program 'memory \
            DIR' says, in kB. Where the folder has a program 'limit DIR BATCH', it runs three plain log writers in a new folder \
            beside DIR, and prints a line of JSON with entries_per_second for each.
            """)

    @Option(help: "How many turns; medians are printed.") var turns = 5
    @Option(help: "Seconds of each load.") var seconds = 5
    @Option(help: "A folder with peers' programs.") var peers: String?
    @Option(help: "Which of them, with commas.") var systems = "etcd,zookeeper"
    @Option(help: "Rows whose names begin so, with commas.") var rows = "put,get,list,million"
    @Option(help: "A directory that is not there yet, to work in; it is removed at the end.") var data =
        "/tmp/banyan-bench-compare"

    func validate() throws {
        guard turns > 0, seconds > 0 else { throw ValidationError("--turns and --seconds must be positive") }
    }

    private struct Row {
        let name: String
        let operation: String
        let clients: Int
        var size = 256
        var files = 10_000
        /// The others that it is for; nil: all.
        var systems: [String]?
        /// They come last, and the resident memory is the one before them.
        var isLarge: Bool { files > 10_000 }
    }

    private static let all = [
        Row(name: "put 256 clients", operation: "put", clients: 256),
        Row(name: "put 64 clients", operation: "put", clients: 64),
        Row(name: "put 1 client", operation: "put", clients: 1),
        Row(name: "get 64 clients", operation: "get", clients: 64),
        Row(name: "get 256 clients", operation: "get", clients: 256),
        Row(name: "list 64 clients", operation: "list", clients: 64),
        Row(name: "put 16 KiB", operation: "put", clients: 64, size: 16384),
        Row(name: "million files", operation: "put", clients: 256, files: 1_000_000, systems: ["etcd"]),
    ]

    /// The row that plain frames, answered at once, are the limit of.
    private static let echoed = "get 256 clients"
    /// The row that plain log writers are the limit of.
    private static let logged = "put 256 clients"

    func run() throws {
        let folder = try Folder(data)
        defer { folder.remove() }
        let chosen = Self.all.filter { row in rows.split(separator: ",").contains { row.name.hasPrefix($0) } }
        let others = peers == nil ? [] : systems.split(separator: ",").map(String.init)
        var figures: [String: [String: [LoadFigures]]] = [:]
        var memory: [String: [Double]] = [:]
        var echoes: [Double] = []
        var batches: [Double] = []
        for turn in 1...turns {
            let members = try LocalMembers("\(data)/banyan", port: 18501)
            for row in chosen {
                if row.isLarge { memory["banyan", default: []].append(Double(members.residentMebibytes())) }
                let before = try members.logged()
                let result = try members.load(
                    [
                        "--workload", row.operation, "--clients", "\(row.clients)", "--connections",
                        "\(min(16, row.clients))", "--size", "\(row.size)", "--files", "\(row.files)", "--duration",
                        "\(seconds)s", "--warmup", "0s",
                    ] + (row.isLarge ? ["--fill"] : []))
                figures["banyan", default: [:]][row.name, default: []].append(result)
                let after = try members.logged()
                if row.name == Self.logged {
                    batches.append((after.entries - before.entries) / max(1, after.commits - before.commits))
                }
            }
            if memory["banyan"]?.count != turn {
                memory["banyan", default: []].append(Double(members.residentMebibytes()))
            }
            _ = consume members
            if chosen.contains(where: { $0.name == Self.echoed }) {
                echoes.append(try EchoBenchmark.rate(seconds: Double(seconds)))
            }
            for system in others {
                try load(system, chosen, &figures, &memory)
            }
            FileHandle.standardError.write(Data("turn \(turn) of \(turns)\n".utf8))
        }
        say(
            Self.line(
                ["", "banyan/s", "p50 ms", "p99 ms"] + others.flatMap { ["\($0)/s", "p50 ms", "p99 ms"] } + ["ratio"]))
        for row in chosen {
            let cells = (["banyan"] + others).map { system in Self.cells(figures[system]?[row.name] ?? []) }
            // One client's rate is its latency: there the waits are compared, and less is better.
            let ratio =
                row.clients == 1
                ? cells.dropFirst().map(\.p50).min().map { cells[0].p50 / $0 }
                : cells.dropFirst().map(\.rate).filter { $0 > 0 }.max().map { cells[0].rate / $0 }
            say(
                Self.line(
                    [row.name]
                        + cells.flatMap {
                            $0.rate == 0 ? ["-", "-", "-"] : ["\(Int($0.rate))", "\($0.p50)", "\($0.p99)"]
                        }
                        + [ratio.map { String(format: row.clients == 1 ? "%.2f of p50" : "%.2f", $0) } ?? ""]))
        }
        for system in others {
            let errors = (figures[system] ?? [:]).values.joined().reduce(0) { $0 + $1.errors }
            if errors > 0 { say("\(system): \(errors) requests failed, which its figures don't show") }
        }
        if !echoes.isEmpty {
            let (limit, own) = (median(echoes), Self.cells(figures["banyan"]?[Self.echoed] ?? []).rate)
            say(
                "plain frames answered over loopback: \(Int(limit))/s, of which \(Self.echoed) reach \(Int(own / limit * 100)) %"
            )
        }
        if let peers, !batches.isEmpty, FileManager.default.isExecutableFile(atPath: "\(peers)/limit") {
            let batch = Int(median(batches))
            let own = Self.cells(figures["banyan"]?[Self.logged] ?? []).rate
            let limits = try (0..<3).map { _ in try Self.logLimit(peers, data, batch) }
            say(
                "three plain log writers at once, \(batch) entries a commit as in \(Self.logged): \(Int(median(limits)))/s each, "
                    + "of which it reaches \(Int(own / median(limits) * 100)) %")
        }
        say(
            "resident MiB: "
                + (["banyan"] + others).map { "\($0) \(Int(median(memory[$0] ?? [])))" }.joined(separator: ", "))
    }

    private func load(
        _ system: String, _ rows: [Row], _ figures: inout [String: [String: [LoadFigures]]],
        _ memory: inout [String: [Double]]
    ) throws {
        guard let peers else { return }
        let (program, directory) = ("\(peers)/\(system)", "\(data)/\(system)")
        try execute(program, ["start", directory])
        defer { try? execute(program, ["stop", directory]) }
        let rows = rows.filter { $0.systems?.contains(system) ?? true }
        let load = { (row: Row) in
            try LoadFigures.read(
                try output(
                    of: program,
                    [
                        "load", "--op", row.operation, "--clients", "\(row.clients)", "--connections",
                        "\(min(16, row.clients))", "--size", "\(row.size)", "--files", "\(row.files)", "--seconds",
                        "\(seconds)",
                    ]))
        }
        // Gets and listings need something to find; nothing is counted of it.
        if let first = rows.first, first.operation != "put" { _ = try load(Self.all[0]) }
        for row in rows where !row.isLarge {
            figures[system, default: [:]][row.name, default: []].append(try load(row))
        }
        let kibibytes = try output(of: "\(peers)/memory", [directory]).split(separator: "\n").compactMap { Double($0) }
        memory[system, default: []].append((kibibytes.max() ?? 0) / 1024)
        for row in rows where row.isLarge {
            figures[system, default: [:]][row.name, default: []].append(try load(row))
        }
    }

    /// What one of three plain LMDB log writers does a second.
    private static func logLimit(_ peers: String, _ data: String, _ batch: Int) throws -> Double {
        struct Writer: Decodable { let entriesPerSecond: Double }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let lines = try output(of: "\(peers)/limit", ["\(data)/limit", "\(batch)"]).split(separator: "\n")
        return median(try lines.map { try decoder.decode(Writer.self, from: Data($0.utf8)).entriesPerSecond })
    }

    private static func cells(_ figures: [LoadFigures]) -> (rate: Double, p50: Double, p99: Double) {
        let rounded = { (value: Double) in Double(Int(value * 100)) / 100 }
        return (
            median(figures.map(\.operationsPerSecond)), rounded(median(figures.map { $0.latencyMs["p50"] ?? 0 })),
            rounded(median(figures.map { $0.latencyMs["p99"] ?? 0 }))
        )
    }

    private static func line(_ cells: [String]) -> String {
        cells.enumerated().map {
            $1.padding(toLength: max($0 == 0 ? 18 : 11, $1.count + 1), withPad: " ", startingAt: 0)
        }
        .joined()
    }
}
