import BanyanClient
import Foundation
import Testing

/// Nobody reads what a member logs: its standard error is a pipe that stands still.
@Suite("Unread logs", .serialized)
struct UnreadLogTests {
    @Test("a member whose log nobody reads serves on while strangers have it complain, and SIGTERM ends it")
    func pipe() async throws {
        let cluster = try TestCluster(members: 1)
        let unread = Pipe()
        try cluster.start(1, isNew: true, options: ["--log-level", "trace"], errors: unread.fileHandleForWriting)
        // So that what the member would wait for is not this end.
        try unread.fileHandleForWriting.close()
        _ = try await cluster.leader()
        let client = cluster.client()
        // A pipe holds 64 KiB.
        for round in 0..<20 {
            try Self.haveComplain(cluster.ports[0], times: 50)
            _ = try await client.put("/written", [UInt8(round)])
        }
        #expect(try await client.get("/written").content == [19])
        await client.close()
        let process = try cluster.process(1)
        process.terminate()
        #expect(await cluster.condition { !process.isRunning })
        #expect(process.terminationReason == .exit && process.terminationStatus == 0)
        withExtendedLifetime(unread) {}
    }

    @Test(
        "the members of a cluster on this machine serve on while the program that started them stands still, and end with it"
    )
    func local() async throws {
        let cluster = try TestCluster(members: 3)
        let program = try cluster.begin(
            "banyan",
            ["local", "--data", cluster.folder.appendingPathComponent("local").path, "--port", "\(cluster.ports[0])"])
        defer {
            kill(program.processIdentifier, SIGCONT)
            program.terminate()
        }
        let client = BanyanClient(nodes: (0..<3).map { "127.0.0.1:\(cluster.ports[0] + $0)" }, timeout: .seconds(10))
        #expect(await cluster.condition { try await client.put("/before", [1]) > 0 })
        kill(program.processIdentifier, SIGSTOP)
        for _ in 0..<10 {
            try Self.haveComplain(cluster.ports[0], times: 100)
            _ = try await client.put("/meanwhile", [2])
        }
        kill(program.processIdentifier, SIGCONT)
        _ = try await client.put("/behind", [3])
        await client.close()
        kill(program.processIdentifier, SIGINT)
        try await program.ended()
    }

    /// Says what a member logs a line of.
    private static func haveComplain(_ port: Int, times: Int) throws {
        let complaint = Array("GET /\(String(repeating: "x", count: 200)) HTTP/1.1\r\n\r\n".utf8)
        for _ in 0..<times {
            let stranger = try RawConnection(to: port)
            stranger.say(complaint)
            stranger.finish()
        }
    }
}
