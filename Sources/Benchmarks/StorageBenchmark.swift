import ArgumentParser
import Foundation

/// What storage costs a whole cluster: puts over many files, a large delete, a restart and a snapshot with a large tree, and
/// the disk after many puts.
struct StorageBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "storage",
        abstract:
            "Ten thousand and a million files, a large delete, a restart, a snapshot, and the disk after many puts.",
        discussion: "Each part alone with --only thousands, million, delete, restart, snapshot or disk.")

    @Option(help: "One of thousands, million, delete, restart, snapshot, disk.") var only: String?
    @Option(help: "MiB of the tree of restart and snapshot.") var tree = 1024
    @Option(help: "Millions of puts of disk.") var puts = 10
    @Option(help: "A directory that is not there yet, to work in; it is removed at the end.") var data =
        "/tmp/banyan-bench-storage"

    func run() throws {
        let folder = try Folder(data)
        defer { folder.remove() }
        try runParts(
            [
                ("thousands", thousands), ("million", million), ("delete", delete), ("restart", restart),
                ("snapshot", snapshot), ("disk", disk),
            ],
            only)
    }

    private func members(_ options: [String] = []) throws -> LocalMembers {
        try LocalMembers("\(data)/members", port: 18601, options: options)
    }

    private func thousands() throws { try putsAtRandom("thousands", files: 10_000) }
    private func million() throws { try putsAtRandom("million", files: 1_000_000) }

    private func putsAtRandom(_ name: String, files: Int) throws {
        let members = try members()
        let figures = try members.load([
            "--workload", "put", "--clients", "256", "--files", "\(files)", "--fill", "--duration", "25s", "--warmup",
            "5s",
        ])
        let waited = Double(try members.leaderStatistics()["state_wait_p999_us"] ?? 0) / 1000
        say(
            "\(name.padding(toLength: 10, withPad: " ", startingAt: 0)) \(files) files at random: "
                + "\(Int(figures.operationsPerSecond)) puts/s, p99 "
                + "\(figures.latencyMs["p99"] ?? 0) ms, p99.9 \(figures.latencyMs["p999"] ?? 0) ms; wait for "
                + "the state thread p99.9 \(waited) ms; resident \(members.residentMebibytes()) MiB")
    }

    /// What requests wait beside a delete of 300,000 files in one directory, and without it.
    private func delete() throws {
        let members = try members()
        _ = try members.load([
            "--workload", "put", "--clients", "256", "--files", "300000", "--directories", "1", "--fill", "--duration",
            "1s",
        ])
        try members.banyan(["mv", "/load", "/removed"])
        let mixed = ["--workload", "mixed", "--mix", "put=50,get=50", "--rate", "2000", "--files", "1000"]
        let without = try members.load(mixed + ["--duration", "8s"])
        let removal = Process()
        removal.executableURL = URL(fileURLWithPath: "/bin/bash")
        removal.arguments =
            ["-c", #"sleep 3; exec "$@""#, "bash", members.program("banyan").path]
            + ["rm", "-r", "/removed", "--nodes", members.nodes]
        removal.standardOutput = FileHandle.nullDevice
        try removal.run()
        let beside = try members.load(mixed + ["--duration", "8s"])
        removal.waitUntilExit()
        guard removal.terminationStatus == 0 else {
            throw BenchmarkError("banyan rm ended with \(removal.terminationStatus)")
        }
        say(
            "delete     300,000 files of one directory beside 2,000 requests/s, ms: \(wait(beside)); without: \(wait(without))"
        )
    }

    private func wait(_ figures: LoadFigures) -> String {
        ["p50", "p99", "p999", "max"].map { "\($0) \(figures.latencyMs[$0] ?? 0)" }.joined(separator: ", ")
    }

    /// Writes a tree of files of 16 KiB, none of which compresses, where no other load changes it.
    private func fill(_ members: LocalMembers) throws -> Int {
        let files = tree * 64
        _ = try members.load([
            "--workload", "get", "--clients", "64", "--files", "\(files)", "--size", "16384", "--duration", "1s",
        ])
        try members.banyan(["mv", "/load", "/tree"])
        return files
    }

    private func restart() throws {
        let members = try members(["--log-tail", "100000"])
        let files = try fill(members)
        _ = try members.load(["--workload", "put", "--files", "10000", "--duration", "5s", "--warmup", "0s"])
        var times: [Double] = []
        for _ in 0..<5 {
            members.end(1, SIGKILL)
            let began = ContinuousClock.now
            try members.start(1)
            while (try? members.banyan(["stat", "/tree"], to: 1)) == nil { usleep(5000) }
            times.append(seconds(since: began))
        }
        say(
            "restart    after SIGKILL, tree of \(files) files and \(tree) MiB, 100,000 entries in the log: median "
                + "\(rounded(median(times))) s, longest \(rounded(times.max() ?? 0)) s to a linearizable read")
    }

    private func snapshot() throws {
        let members = try members(["--log-tail", "1000"])
        let files = try fill(members)
        let idle = try replace(3, members)
        say("snapshot   \(tree) MiB in \(files) files to an empty member, idle: \(report(idle, members))")
        // Half of what the cluster takes with a member less.
        members.end(2, SIGKILL)
        let peak = try members.load(["--workload", "put", "--files", "10000", "--duration", "5s"])
        try members.start(2)
        // With a short log it needs a snapshot itself, and is of the majority that is left when member 3 ends.
        try members.untilLevel()
        let rate = Int(peak.operationsPerSecond / 2)
        let json = "\(data)/puts.json"
        let load = Process()
        load.executableURL = members.program("banyan-load")
        load.arguments = [
            "--nodes", members.nodes, "--rate", "\(rate)", "--files", "10000", "--duration", "3600s",
            "--json", json,
        ]
        load.standardOutput = FileHandle.nullDevice
        try load.run()
        defer { load.waitUntilExit() }
        sleep(2)
        let busy: Double
        do { busy = try replace(3, members) } catch {
            load.terminate()
            throw error
        }
        let text = report(busy, members)
        // It ends early, and says what became of its requests.
        load.interrupt()
        load.waitUntilExit()
        let puts = try LoadFigures.read(try String(contentsOfFile: json, encoding: .utf8))
        say(
            "snapshot   the same with \(rate) puts/s due, of which \(Int(puts.operationsPerSecond))/s acknowledged and "
                + "\(puts.errors) failed: \(text)")
    }

    private func report(_ seconds: Double, _ members: LocalMembers) -> String {
        "\(rounded(seconds)) s, \(Int(Double(tree) / seconds)) MiB/s; resident \(members.residentMebibytes()) MiB"
    }

    /// Takes a member back with an empty directory, and answers with how long it took until it voted.
    private func replace(_ id: Int, _ members: LocalMembers) throws -> Double {
        members.end(id, SIGKILL)
        try FileManager.default.removeItem(atPath: members.directory(id))
        try members.join(id)
        sleep(1)
        let began = ContinuousClock.now
        try members.banyan(["member", "replace", "\(id)", "--timeout", "10m"])
        return seconds(since: began)
    }

    private func disk() throws {
        let members = try members()
        var sizes: [Int] = []
        var done = 0.0
        while done < Double(puts) * 1e6 {
            let figures = try members.load([
                "--workload", "put", "--files", "10000", "--duration", "20s", "--warmup", "0s",
            ])
            done += figures.operationsPerSecond * 20
            sizes.append(try mebibytes(members.directory(1)))
        }
        say(
            "disk       a steady 10,000 files of 256 bytes, \(Int(done)) puts: \(sizes.max() ?? 0) MiB at the most, "
                + "\(sizes.last ?? 0) at the end; resident \(members.residentMebibytes()) MiB")
    }

    private func mebibytes(_ directory: String) throws -> Int {
        let text = try output(of: "/usr/bin/du", ["-sm", directory])
        return text.split(whereSeparator: \.isWhitespace).first.flatMap { Int($0) } ?? 0
    }

    private func seconds(since began: ContinuousClock.Instant) -> Double {
        (ContinuousClock.now - began) / .seconds(1)
    }

    private func rounded(_ value: Double) -> Double { (value * 100).rounded() / 100 }
}
