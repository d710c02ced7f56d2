import BanyanClient
import CrashPoints
import Foundation
import Testing

/// A member writes its state anew while it serves.
@Suite("Compaction of states", .serialized)
struct CompactionTests {
    /// Fills the tree and empties most of it again, so that the members' files have unused pages.
    private func emptied(_ cluster: TestCluster) async throws {
        let client = cluster.client()
        // Nothing that is alike: content is stored once.
        var content = (0..<100_000).map { _ in UInt8.random(in: 0...255) }
        for number in 0..<60 {
            content[0] = UInt8(number)
            _ = try await client.put("/big/\(number)", content)
        }
        _ = try await client.put("/kept", Array("kept".utf8))
        let everywhere = { (name: String, bytes: UInt64) in
            await cluster.condition {
                let members = try await client.status()
                return members.count == 3 && members.allSatisfy { $0.statistics[name] ?? 0 > bytes }
            }
        }
        // What never came to the disk leaves nothing there.
        #expect(await everywhere("state_bytes", 5 << 20), "the members' files do not grow")
        _ = try await client.remove("/big", recursive: true)
        #expect(await everywhere("state_unused_bytes", 3 << 20), "the members' files have no unused pages")
        await client.close()
    }

    private func stateBytes(_ cluster: TestCluster, _ member: Int) async throws -> UInt64 {
        let client = cluster.client()
        let members = try await client.status()
        await client.close()
        return members.first { $0.id == UInt64(member) }?.statistics["state_bytes"] ?? 0
    }

    @Test("all members' states shrink, one at a time, while writes go on")
    func underLoad() async throws {
        let cluster = try await TestCluster.start(members: 3)
        try await emptied(cluster)
        let client = cluster.client()
        let nodes = cluster.addresses.joined(separator: ",")
        let load = try cluster.begin(
            "banyan-load", ["--nodes", nodes, "--clients", "4", "--files", "100", "--duration", "600s"])
        #expect(await cluster.condition { try await client.list("/load/d1").entries.count > 0 })
        let result = try await cluster.run(
            "banyan", ["--nodes", nodes, "compact", "--all", "--json"])
        #expect(load.isRunning)
        load.terminate()
        try await load.ended()
        #expect(result.code == 0, "\(result.output)\(result.errors)")
        for member in 1...3 {
            #expect(try await stateBytes(cluster, member) < 3 << 20, "\(result.output)")
        }
        #expect(try await client.get("/kept").content == Array("kept".utf8))
        #expect(await cluster.membersAgree(client))
        #expect(try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "verify"]).code == 0)
        // The copies are what a member starts with.
        for member in 1...3 {
            try cluster.signal(member, SIGKILL)
            try cluster.start(member)
            #expect(await cluster.membersAgree(client))
            #expect(FileManager.default.fileExists(atPath: cluster.directory(member) + "/state-2"))
            #expect(!FileManager.default.fileExists(atPath: cluster.directory(member) + "/state-1"))
        }
        await client.close()
        let unknown = try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "compact", "9"])
        #expect(unknown.code == 3 && unknown.errors.contains("member 9"))
    }

    @Test(
        "a member that ends while its state is written anew has everything",
        arguments: [
            CrashPoint.importCommitAfter, .rewriteBeforeSync, .rewriteCopied, .switchBefore, .switchAfter,
            .rewriteAdopted,
        ])
    func interrupted(point: CrashPoint) async throws {
        let cluster = try await TestCluster.start(members: 3)
        let member = try await cluster.leader() % 3 + 1
        try cluster.signal(member, SIGTERM)
        // Slow enough that more is written meanwhile than may be left when the copy takes the state's place.
        try cluster.start(member, options: ["--scrub-rate", "20KiB"], crashingAt: point.rawValue)
        try await emptied(cluster)
        let client = cluster.client()
        let nodes = cluster.addresses.joined(separator: ",")
        let load = try cluster.begin(
            "banyan-load",
            ["--nodes", nodes, "--clients", "16", "--files", "100", "--directories", "1", "--duration", "600s"])
        #expect(await cluster.condition { try await client.list("/load/d0").entries.count > 90 })
        let result = try await cluster.run("banyan", ["--nodes", nodes, "compact", "\(member)"])
        load.terminate()
        try await load.ended()
        #expect(result.code != 0 && !cluster.isRunning(member), "\(result.output)\(result.errors)")
        _ = try await client.put("/after", Array("after".utf8))
        try cluster.start(member)
        #expect(await cluster.membersAgree(client))
        let own = BanyanClient(nodes: [cluster.addresses[member - 1]], timeout: .seconds(10))
        #expect(try await own.get("/kept").content == Array("kept".utf8))
        await own.close()
        #expect(try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "verify"]).code == 0)
        let states = try FileManager.default.contentsOfDirectory(atPath: cluster.directory(member))
        #expect(states.count { $0.hasPrefix("state-") } == 1, "\(states)")
        await client.close()
    }
}
