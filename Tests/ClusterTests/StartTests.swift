import BanyanClient
import Foundation
import NIOCore
import Raft
import RaftLog
import Testing
import WireProtocol

/// What a member says and does that has yet to begin.
@Suite("How a member starts")
struct StartTests {
    @Test("a member that waits for its cluster says for whom, and one that waits to be taken in says how")
    func waiting() async throws {
        let cluster = try TestCluster(members: 3, spare: 1)
        try cluster.start(2, isNew: true)
        let nodes = ["--nodes", cluster.addresses[1]]
        func banyan(_ arguments: String...) async throws -> (code: Int32, output: String, errors: String) {
            try await cluster.run("banyan", arguments + nodes)
        }
        #expect(
            await cluster.condition {
                let status = try await banyan("status")
                return status.code == 5 && status.output.contains("starting")
                    && status.output.contains("member 2: it waits for members 1, 3 to be started")
            })
        try cluster.start(1, isNew: true)
        #expect(await cluster.condition { try await banyan("status").output.contains("it waits for member 3 to be") })
        let put = try await banyan("put", "/f", "/dev/null", "--timeout", "500ms")
        #expect(
            put.code == 5 && put.errors.contains("\(cluster.addresses[1]) has not begun: it waits"), "\(put.errors)")
        try cluster.start(3, isNew: true)
        _ = try await cluster.leader()
        try await cluster.join(4)
        let joining = try await cluster.run("banyan", ["--nodes", cluster.addresses[3], "status"])
        #expect(joining.output.contains("member 4: it waits to be taken in: run 'banyan member add 4"), "\(joining)")
        let client = cluster.client()
        _ = try await client.put("/f", [1])
        #expect(try await client.status().filter { !$0.isRunning }.map(\.role) == ["starting"])
        await client.close()
    }

    @Test("a port that a connection has taken is waited for, and what is left of the connection does no harm")
    func takenPort() async throws {
        let cluster = try TestCluster(members: 1)
        // As an attempt to reach a member that is not there may end: connected with itself.
        let port = cluster.ports[0]
        let held = try #require(SelfConnection(port))
        let log = Pipe()
        try cluster.start(1, isNew: true, errors: log.fileHandleForWriting)
        try log.fileHandleForWriting.close()
        // On a thread of its own: a member waits for a minute, and tests wait for each other.
        let reader = log.fileHandleForReading
        let isWaitedFor = try await blocking {
            defer { held.end() }
            var text = Data()
            while text.range(of: Data("the port belongs to a connection that ends".utf8)) == nil {
                let more = reader.availableData
                if more.isEmpty { return false }
                text += more
            }
            return true
        }
        #expect(isWaitedFor)
        #expect(try await cluster.leader() == 1)
    }

    @Test("a member whose recorded address is every address serves where clients find it, and gets a true one")
    func wildcardAddress() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        _ = try await client.put("/f", [1])
        try cluster.signal(1, SIGTERM)
        let everywhere = "0.0.0.0:\(cluster.ports[0])"
        try Self.record(everywhere, in: cluster.directory(1))
        try cluster.start(1, options: ["--listen", everywhere])
        #expect(try await client.put("/f", [2]) > 0)
        #expect(try await client.members().map(\.address) == [everywhere])
        await client.close()
        func banyan(_ arguments: String...) async throws -> (code: Int32, output: String, errors: String) {
            try await cluster.run("banyan", ["--nodes", cluster.addresses[0]] + arguments)
        }
        #expect(try await banyan("put", "/g", "/dev/null").code == 0)
        let moved = try await banyan("member", "set-address", "1", cluster.addresses[0])
        #expect(moved.code == 0 && moved.output.contains(cluster.addresses[0]), "\(moved)")
    }

    /// As programs did that took any address for one where others find a member.
    private static func record(_ address: String, in directory: String) throws {
        let store = try LogStore(path: directory + "/log")
        let recovered = try store.recover()
        let (log, term) = (recovered.log, recovered.row.hardState.term)
        let configuration = log.configuration(at: log.lastIndex)
        var members = configuration.members
        members[0].address = address
        var payload = ByteBuffer()
        Configuration(clusterID: configuration.clusterID, members: members).write(to: &payload)
        let index = log.lastIndex + 1
        let record = EntryRecord.bytes(.configuration, index: index, term: term, payload)
        let writer = LogWriter(
            store: store, row: recovered.row, lastIndex: log.lastIndex, completed: { _ in },
            failed: { Issue.record("\($0)") })
        let write = Write(
            number: 1, hardState: HardState(term: term, vote: nil, commit: log.lastIndex), entries: index..<index + 1)
        writer.send(LogWriter.Request(write: write, records: [record]))
        writer.close()
    }
}

/// A socket that is connected with itself, by the port that it has; like those of members, it leaves the port to others when
/// it has ended.
private final class SelfConnection: Sendable {
    private let descriptor: Int32

    init?(_ port: Int) {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isConnected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && connect(descriptor, $0, length) == 0
            }
        }
        guard isConnected else { return nil }
    }

    /// Ends as one of a member's does, with the option that members set on theirs.
    func end() {
        var isReused: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &isReused, socklen_t(MemoryLayout<Int32>.size))
        shutdown(descriptor, Int32(SHUT_RDWR))
    }

    deinit { close(descriptor) }
}
