import BanyanClient
import Foundation
import Testing

/// What a write costs the log, for whoever writes once.
@Suite("One put, one entry")
struct OneEntryTests {
    private static func lastIndex(_ cluster: TestCluster, _ client: BanyanClient) async throws -> UInt64 {
        let leader = try await client.status().first { $0.role == "leader" }
        return try #require(leader?.statistics["log_last_index"])
    }

    /// Puts that would be noticed if one happened twice, one after the other.
    private static func put(_ addresses: [String], _ name: String, count: Int) async throws -> [Int32] {
        let nodes = ["--nodes", addresses.joined(separator: ","), "--timeout", "20s"]
        let banyan = try TestCluster.program("banyan")
        var codes: [Int32] = []
        for number in 0..<count {
            let path = "/once/\(name)-\(number)"
            let arguments = nodes + ["put", "--if-absent", path, "/etc/hostname"]
            codes.append(try await TestCluster.run(banyan, arguments).code)
        }
        return codes
    }

    @Test("a put from the command line is one entry of the log, and happens once though leaders are killed")
    func puts() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client(timeout: .seconds(20))
        #expect(
            await cluster.condition { try await client.status().allSatisfy { $0.statistics["cluster_version"] == 5 } })
        let term = try await client.status().map(\.term).max()
        let before = try await Self.lastIndex(cluster, client)
        let codes = try await Self.put(cluster.addresses, "quiet", count: 20)
        #expect(codes.allSatisfy { $0 == 0 }, "\(codes)")
        let entries = try await Self.lastIndex(cluster, client) - before
        // Who was elected meanwhile has an entry of its own.
        if try await client.status().map(\.term).max() == term { #expect(entries == 20) }
        for round in 0..<3 {
            let leader = try await cluster.leader()
            let addresses = cluster.addresses
            async let putting = Self.put(addresses, "round-\(round)", count: 10)
            try cluster.signal(leader, SIGKILL)
            try cluster.start(leader)
            let codes = try await putting
            #expect(codes.allSatisfy { $0 == 0 }, "\(codes)")
            #expect(await cluster.membersAgree(client))
        }
        #expect(try await client.list("/once").entries.count == 50)
        // A client that writes more has a session for the rest.
        let one = try await Self.lastIndex(cluster, client)
        let many = cluster.client(timeout: .seconds(20))
        for number in 0..<10 as Range<UInt8> { _ = try await many.put("/many", [number]) }
        await many.close()
        #expect(await cluster.condition { try await Self.lastIndex(cluster, client) >= one + 12 })
        await client.close()
    }
}
