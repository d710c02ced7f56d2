import BanyanClient
import Foundation
import Testing

/// Disks that are slow or stand still, under members that run and hear each other.
@Suite("Bad disks", .serialized)
struct DiskTests {
    /// `make disks` gives the slow ones more time.
    private static let seconds = ProcessInfo.processInfo.environment["BANYAN_DISK_SECONDS"].flatMap(Int.init) ?? 6

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

    @Test("disks that take 300 ms a sync, and one that stands still for 900 ms, change no leader")
    func slowDisks() async throws {
        let cluster = try await TestCluster.start(members: 3, hasBadDisks: true)
        let witness = try await Witness(of: cluster)
        try await witness.expectNoEffect(of: "slow disks") {
            for id in 1...3 { try cluster.disk(id).slow(by: 300) }
            let end = ContinuousClock.now + .seconds(Self.seconds)
            while ContinuousClock.now < end { _ = try await witness.client.put("/slow", [2]) }
            for id in 1...3 { #expect(try cluster.disk(id).syncs > 3) }
            for id in 1...3 { try cluster.disk(id).slow(by: 0) }
        }
        try await witness.expectNoEffect(of: "a disk that stands still for a moment") {
            let disk = try cluster.disk(try await cluster.leader())
            // Its next write begins within the stall, and is as late as that.
            disk.stall()
            let client = witness.client
            async let put = client.put("/stalled", [3])
            #expect(await cluster.condition { disk.waiting > 0 })
            try await Task.sleep(for: .milliseconds(900))
            disk.goOn()
            _ = try await put
        }
        await witness.client.close()
    }
}
