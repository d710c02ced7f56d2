import BanyanClient
import Foundation
import Testing

/// The load tool against real members: what it counts is what happened.
@Suite("banyan-load", .serialized)
struct LoadToolTests {
    private struct Report: Decodable {
        struct Fault: Decodable {
            let gapSeconds: Double
            let acknowledged: Int
            let refused: Int
            let unknown: Int
        }
        struct Second: Decodable {
            let operations: Int
            let p50: Double?
        }
        let operations: Int
        let due: Int
        let carried: Int
        let late: Int
        let refused: Int
        let unknown: Int
        let unsent: Int
        let faults: [Fault]
        let timeline: [Second]
        let latencyMsByOperation: [String: [String: Double]]
    }

    private func load(
        _ cluster: TestCluster, _ arguments: [String]
    ) async throws -> (report: Report?, code: Int32, errors: String) {
        let json = cluster.folder.appendingPathComponent("load.json")
        try? FileManager.default.removeItem(at: json)
        let result = try await cluster.run(
            "banyan-load", ["--nodes", cluster.addresses.joined(separator: ","), "--json", json.path] + arguments)
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let report = try (try? Data(contentsOf: json)).map { try decoder.decode(Report.self, from: $0) }
        return (report, result.code, result.errors)
    }

    @Test("an open loop accounts for every request that was due, while its leader is killed too")
    func openLoop() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let html = cluster.folder.appendingPathComponent("load.html").path
        let csv = cluster.folder.appendingPathComponent("load.csv").path
        let (report, code, errors) = try await load(
            cluster,
            [
                "--workload", "mixed", "--mix", "put=2,get=1,list=1", "--files", "200", "--directories", "4",
                "--distribution", "zipfian", "--clients", "16", "--rate", "500", "--warmup", "1s", "--duration", "3s",
                "--during", "kill-leader@1s", "--max-error-rate", "1", "--html", html, "--csv", csv,
            ])
        #expect(code == 0, "\(errors)")
        let found = try #require(report)
        // What the warm-up left, on a busy machine a hundred requests, is answered in the time that is measured too.
        let counted = found.operations + found.late + found.refused + found.unknown + found.unsent
        #expect(found.due == 1500, "\(found.due) were due")
        #expect(
            counted == found.due + found.carried, "\(counted) of \(found.due) and \(found.carried) are accounted for")
        #expect(Set(found.latencyMsByOperation.keys) == ["put", "get", "list"])
        let fault = try #require(found.faults.first)
        #expect(fault.gapSeconds > 0)
        #expect(fault.acknowledged + fault.refused + fault.unknown <= 16)
        #expect(found.timeline.map(\.operations).reduce(0, +) == found.operations)
        // A head, and a line for each tenth of a second: gaps are short.
        #expect(try String(contentsOfFile: csv, encoding: .utf8).split(separator: "\n").count == 31)
        let page = try String(contentsOfFile: html, encoding: .utf8)
        #expect(page.contains("<svg") && page.contains("kill-leader") && !page.contains("http"))
    }

    @Test("a closed loop keeps all its clients' requests apart: each that was under way at a fault ends in one way")
    func closedLoop() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let (report, code, errors) = try await load(
            cluster,
            [
                "--clients", "8", "--files", "100", "--size", "2kB", "--warmup", "0s", "--duration", "2s", "--during",
                "kill-follower@1s",
            ])
        #expect(code == 0, "\(errors)")
        let found = try #require(report)
        let fault = try #require(found.faults.first)
        #expect(fault.acknowledged == 8 && fault.refused == 0 && fault.unknown == 0)
        // Contents are unlike each other, and each is kept.
        let client = cluster.client()
        let bytes = try await client.status().first { $0.role == "leader" }?.statistics["state_bytes"] ?? 0
        #expect(bytes > 100 * 2000)
        await client.close()
    }

    @Test("the latency of an open loop counts from when a request was due, and what was never sent has waited too")
    func due() async throws {
        let cluster = try await TestCluster.start(members: 1)
        // Two seconds of the paused leader's five are measured, and two before them: half of the requests wait.
        let (report, code, errors) = try await load(
            cluster,
            [
                "--clients", "4", "--files", "10", "--rate", "100", "--warmup", "0s", "--duration", "4s", "--during",
                "pause-leader@2s", "--max-error-rate", "1",
            ])
        #expect(code == 0, "\(errors)")
        let found = try #require(report)
        #expect(found.unsent > 100)
        let latency = try #require(found.latencyMsByOperation["put"])
        // By the schedule the waits are spread from 0 to 2,000 ms: a loop that counts from sending sees four of them.
        #expect(latency["p90"] ?? 0 > 1000, "\(latency)")
        #expect(found.timeline.last?.p50 == nil)
        // A member that the tool stopped goes on when the tool has ended.
        let client = cluster.client()
        #expect(await cluster.condition { try await client.status().first?.role == "leader" })
        await client.close()
    }

    @Test("a ramp measures each step, finds a knee or says that there is none, and keeps to the allowed errors")
    func ramp() async throws {
        struct Ramp: Decodable {
            struct Step: Decodable { let clients: Int }
            let steps: [Step]
        }
        let cluster = try await TestCluster.start(members: 1)
        let json = cluster.folder.appendingPathComponent("ramp.json").path
        let arguments = [
            "--nodes", cluster.addresses[0], "--ramp", "--workload", "get", "--files", "100", "--warmup", "0s",
            "--duration", "0.05s", "--json", json,
        ]
        let result = try await cluster.run("banyan-load", arguments)
        #expect(result.code == 0 && result.output.contains("knee"), "\(result.output)\(result.errors)")
        let found = try JSONDecoder().decode(Ramp.self, from: Data(contentsOf: URL(fileURLWithPath: json)))
        #expect(found.steps.map(\.clients) == (0...10).map { 1 << $0 })
        // Nothing of it can be found any more.
        let client = cluster.client()
        _ = try await client.remove("/load", recursive: true)
        _ = try await client.put("/load", [])
        await client.close()
        #expect(try await cluster.run("banyan-load", arguments + ["--workload", "put"]).code == 5)
    }

    @Test("what can't be done is said before the load begins")
    func impossible() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let short = ["--warmup", "0s", "--duration", "0.1s"]
        let (report, code, errors) = try await load(cluster, short + ["--during", "kill-follower@0s"])
        #expect(report == nil && code == 5 && errors.contains("no follower"), "\(errors)")
        #expect(try await load(cluster, short + ["--during", "kill-leader@1s"]).code == 2)
        // The second finds nobody any more: the load ends with that.
        let (none, second, words) = try await load(
            cluster, ["--warmup", "0s", "--duration", "60s", "--during", "kill-leader@0.1s,kill-leader@2s"])
        #expect(none == nil && second == 5, "\(words)")
        try cluster.start(1)
        _ = try await cluster.leader()
        let nodes = ["--nodes", cluster.addresses[0]]
        let missing = cluster.folder.appendingPathComponent("missing/load.html").path
        let unwritable = try await cluster.run("banyan-load", nodes + ["--html", missing])
        #expect(unwritable.code == 1 && unwritable.errors.contains(missing), "\(unwritable.errors)")
        // Opened first, but not emptied before there is something to be written; one made for nothing goes.
        let kept = cluster.folder.appendingPathComponent("kept.json").path
        let unmade = cluster.folder.appendingPathComponent("none.json").path
        try Data("old".utf8).write(to: URL(fileURLWithPath: kept))
        let register = nodes + ["--workload", "register", "--history", "-", "--rate", "5"]
        #expect(try await cluster.run("banyan-load", register).code == 2)
        try cluster.signal(1, SIGKILL)
        #expect(try await cluster.run("banyan-load", nodes + short + ["--json", kept, "--csv", unmade]).code == 5)
        #expect(try String(contentsOfFile: kept, encoding: .utf8) == "old")
        #expect(!FileManager.default.fileExists(atPath: unmade))
    }

    @Test("a load that is interrupted reports what it measured")
    func interrupted() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let json = cluster.folder.appendingPathComponent("load.json").path
        let process = try cluster.begin(
            "banyan-load",
            ["--nodes", cluster.addresses[0], "--files", "10", "--warmup", "0s", "--duration", "600s", "--json", json])
        let client = cluster.client()
        #expect(await cluster.condition { try await client.list("/load/d1").entries.count > 0 })
        await client.close()
        process.interrupt()
        try await process.ended()
        #expect(process.terminationStatus == 130)
        #expect(try String(contentsOfFile: json, encoding: .utf8).contains("operations_per_second"))
    }

    @Test("failures make the exit code, as far as they are more than is allowed")
    func errorRate() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        // Half of the load's directories can't be made.
        _ = try await client.put("/load/d0", [])
        await client.close()
        let arguments = [
            "--clients", "4", "--files", "100", "--directories", "2", "--warmup", "0s", "--duration", "1s",
        ]
        let strict = try await load(cluster, arguments)
        #expect(strict.code == 1)
        #expect(try #require(strict.report).refused > 0)
        #expect(try await load(cluster, arguments + ["--max-error-rate", "0.9"]).code == 0)
        #expect(try await load(cluster, ["--workload", "mixed"]).code == 2)
        #expect(try await load(cluster, ["--mix", "put=0"]).code == 2)
        #expect(try await load(cluster, ["--during", "kill-everybody@1s"]).code == 2)
    }
}
