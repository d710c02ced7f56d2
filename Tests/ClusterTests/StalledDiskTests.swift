import BanyanClient
import Foundation
import Testing

/// Disks that stand still under members that run and hear each other.
@Suite("Stalled disks", .serialized)
struct StalledDiskTests {
    @Test("the disk of a leader stands still: another one leads, writes go on, and the first comes back when it can")
    func leadersDisk() async throws {
        let cluster = try await TestCluster.start(members: 3, hasBadDisks: true)
        let client = cluster.client()
        _ = try await client.put("/before", [1])
        let leader = try await cluster.leader()
        try cluster.disk(leader).stall()
        let isTaken = await cluster.condition { try await client.put("/meanwhile", [2]) > 0 }
        let log = try cluster.log(leader).suffix(600)
        #expect(isTaken, "\(log)")
        #expect(try cluster.disk(leader).waiting > 0)
        let other = try await cluster.leader(other: leader)
        #expect(other != leader)
        // Whoever asks can see whose disk it is.
        #expect(await cluster.condition { try await Self.waitingDisks(client) == [leader] })
        for number in 0..<20 { _ = try await client.put("/more/\(number)", [UInt8(number)]) }
        try cluster.disk(leader).goOn()
        #expect(await cluster.membersAgree(client))
        #expect(await cluster.condition { try await Self.waitingDisks(client).isEmpty })
        #expect(try await client.get("/before").content == [1])
        for id in 1...3 { #expect(cluster.isRunning(id)) }
        await client.close()
    }

    @Test(
        "with the disks of two of three or of all standing still nothing is acknowledged, the lead stays with somebody, and all goes on behind it"
    )
    func manyDisks() async throws {
        let cluster = try await TestCluster.start(members: 3, hasBadDisks: true)
        let client = cluster.client(timeout: .seconds(2))
        for stalled in [[1, 2], [1, 2, 3]] {
            _ = try await client.put("/before", [1])
            let before = try await client.status().map(\.term).max() ?? 0
            for id in stalled { try cluster.disk(id).stall() }
            // Somebody's write is under way then.
            let isRefused = await cluster.condition {
                do { _ = try await client.put("/meanwhile", [2]) } catch { return true }
                return false
            }
            #expect(isRefused)
            #expect(await cluster.condition { try await Set(Self.waitingDisks(client)).isSubset(of: stalled) })
            // Who can't write is not handed the lead in turns.
            let during = try await client.status().map(\.term).max() ?? 0
            #expect(during <= before + 4, "from term \(before) to \(during)")
            for id in stalled { try cluster.disk(id).goOn() }
            #expect(await cluster.condition { try await client.put("/behind", [3]) > 0 })
            #expect(await cluster.membersAgree(client))
        }
        for id in 1...3 { #expect(cluster.isRunning(id)) }
        await client.close()
    }

    @Test("the disk of the leader stands still while another member is down: five go on, and three do behind it")
    func oneDownMeanwhile() async throws {
        for count in [5, 3] {
            let cluster = try await TestCluster.start(members: count, hasBadDisks: true)
            let client = cluster.client(timeout: .seconds(2))
            _ = try await client.put("/before", [1])
            let leader = try await cluster.leader()
            let down = leader % count + 1
            try cluster.signal(down, SIGKILL)
            try cluster.disk(leader).stall()
            if count == 5 {
                #expect(await cluster.condition { try await client.put("/meanwhile", [2]) > 0 })
            } else {
                // No majority has a disk that works.
                let isRefused = await cluster.condition {
                    do { _ = try await client.put("/meanwhile", [2]) } catch { return true }
                    return false
                }
                #expect(isRefused)
            }
            try cluster.disk(leader).goOn()
            #expect(await cluster.condition { try await client.put("/behind", [3]) > 0 })
            try cluster.start(down)
            #expect(await cluster.membersAgree(client))
            await client.close()
        }
    }

    /// The members whose disks wait, by what they say of themselves.
    private static func waitingDisks(_ client: BanyanClient) async throws -> [Int] {
        try await client.status().filter { $0.statistics["disk_waiting_ms"] ?? 0 > 0 }.map { Int($0.id) }
    }
}
