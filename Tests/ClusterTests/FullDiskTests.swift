import BanyanClient
import Foundation
import Testing

/// Disks without room, beneath members that run.
@Suite("Full disks", .serialized)
struct FullDiskTests {
    @Test("a disk that fills up within a commit ends its member, which starts again by itself when there is room")
    func withinCommit() async throws {
        let cluster = try await TestCluster.start(members: 1, options: ["--reserve", "0"], hasBadDisks: true)
        let client = cluster.client(timeout: .seconds(2))
        let content = [UInt8](repeating: 7, count: 100_000)
        var acknowledged: [Int: [UInt8]] = [:]
        _ = try await client.put("/before", content)
        let process = try cluster.processID(1)
        try cluster.disk(1).fill(leaving: 3 << 20)
        var number = 0
        let isRefused = await cluster.condition {
            number += 1
            do {
                _ = try await client.put("/f\(number)", content)
                acknowledged[number] = content
                return false
            } catch { return true }
        }
        #expect(isRefused)
        #expect(await cluster.condition { try cluster.log(1).contains("waits until there is room") })
        let log = try cluster.log(1)
        #expect(log.contains("the disk is full") && log.contains("No space left on device"), "\(log.suffix(800))")
        #expect(try !cluster.log(1).contains("starting again"))
        try cluster.disk(1).fill(leaving: nil)
        #expect(await cluster.condition { try await client.get("/before").content == content })
        // It waited, and did not begin again and again.
        #expect(try cluster.log(1).ranges(of: "starting again").count == 1)
        #expect(try cluster.processID(1) == process)
        for (number, content) in acknowledged { #expect(try await client.get("/f\(number)").content == content) }
        #expect(await cluster.condition { try await client.put("/after", content) > 0 })
        await client.close()
    }

    @Test("a disk that is full when a member begins anew by itself is waited for; who starts one there is told")
    func atStart() async throws {
        let cluster = try await TestCluster.start(members: 1, hasBadDisks: true)
        let client = cluster.client(timeout: .seconds(2))
        _ = try await client.put("/before", [1])
        try cluster.signal(1, SIGTERM)
        try FileManager.default.removeItem(atPath: cluster.directory(1) + "/log/lock.mdb")
        try cluster.disk(1).fill(leaving: 0)
        let refused = try cluster.start(1)
        #expect(await cluster.condition { !refused.isRunning })
        let reason = try cluster.log(1)
        #expect(refused.terminationStatus == 1 && reason.contains("No space left on device"), "\(reason)")
        let waiting = try cluster.start(1, environment: ["BANYAN_STARTED_AGAIN": "1"])
        #expect(await cluster.condition { try cluster.log(1).contains("waits until there is room") })
        #expect(waiting.isRunning)
        try cluster.disk(1).fill(leaving: nil)
        #expect(await cluster.condition { try await client.get("/before").content == [1] })
        await client.close()
    }

    @Test("a backup, a compaction and a restore that find no room say so, and the member serves on")
    func beforeCommit() async throws {
        let cluster = try await TestCluster.start(members: 1, options: ["--reserve", "0"], hasBadDisks: true)
        let client = cluster.client()
        for number in 0..<40 {
            let noise = (0..<100_000).map { _ in UInt8.random(in: 0...255) }
            _ = try await client.put("/f\(number)", noise)
        }
        let nodes = ["--nodes", cluster.addresses[0], "--timeout", "20s"]
        // Behind the last flush of what was put, which takes room of its own.
        #expect(
            await cluster.condition {
                let member = try await client.status().first
                return member.map { $0.statistics["durable_index"] ?? 0 >= $0.appliedIndex } ?? false
            })
        try cluster.disk(1).fill(leaving: 0)
        let file = cluster.folder.appendingPathComponent("saved").path
        let saved = try await cluster.run("banyan", nodes + ["snapshot", "save", file])
        #expect(saved.code == 1 && !saved.errors.contains("damaged"), "\(saved.errors)")
        #expect(saved.errors.contains("disk") || saved.errors.contains("full"), "\(saved.errors)")
        let compacted = try await cluster.run("banyan", nodes + ["compact", "1"])
        #expect(compacted.code == 1 && !compacted.errors.contains("damaged"), "\(compacted.output)\(compacted.errors)")
        #expect(cluster.isRunning(1))
        #expect(try await client.get("/f39").content.count == 100_000)
        try cluster.disk(1).fill(leaving: nil)
        #expect(try await cluster.run("banyan", nodes + ["snapshot", "save", file]).code == 0)
        #expect(try await cluster.run("banyan", nodes + ["compact", "1"]).code == 0)
        await client.close()
    }

    @Test(
        "a disk fills up within a commit, the leader's or a follower's: the others go on, and it comes back by itself when there is room"
    )
    func fullDisk() async throws {
        let cluster = try await TestCluster.start(members: 3, options: ["--reserve", "1MiB"], hasBadDisks: true)
        let client = cluster.client(timeout: .seconds(5))
        _ = try await client.put("/before", [1])
        let leader = try await cluster.leader()
        for id in [leader % 3 + 1, leader] {
            try cluster.disk(id).fill(leaving: 0)
            // New pages of the log: the small writes before may have found room in old ones.
            let content = [UInt8](repeating: UInt8(id), count: 200_000)
            let isMet = await cluster.condition {
                _ = try? await client.put("/big", content)
                return try cluster.disk(id).refused > 0
            }
            #expect(isMet)
            #expect(await cluster.condition { try await client.put("/meanwhile", [2]) > 0 })
            let said = await cluster.condition { try cluster.log(id).lowercased().contains("no space left") }
            let log = try cluster.log(id).suffix(600)
            #expect(said, "\(log)")
            try cluster.disk(id).fill(leaving: nil)
            #expect(await cluster.membersAgree(client))
            #expect(cluster.isRunning(id))
        }
        #expect(try await client.get("/before").content == [1])
        #expect(try await client.get("/meanwhile").content == [2])
        await client.close()
    }
}
