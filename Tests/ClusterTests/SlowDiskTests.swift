import BanyanClient
import Foundation
import Testing

/// Disks that are slow, or stand still for a moment: no fault at all.
@Suite("Slow disks", .serialized)
struct SlowDiskTests {
    /// `make disks` gives the slow ones more time.
    private static let seconds = ProcessInfo.processInfo.environment["BANYAN_DISK_SECONDS"].flatMap(Int.init) ?? 6

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
            let before = disk.syncs
            // One sync, which its next write waits for.
            disk.slow(by: 900)
            let client = witness.client
            async let put = client.put("/stalled", [3])
            #expect(await cluster.condition { disk.syncs > before })
            disk.slow(by: 0)
            _ = try await put
        }
        await witness.client.close()
    }
}
