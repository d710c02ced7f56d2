import FileTree
import NIOCore
import NIOPosix
import Testing
import WireProtocol

@testable import BanyanClient

/// A client, and what stands at the addresses that it is given: on loopback, in this process.
@Suite("What stands at the addresses")
struct AddressTests {
    /// A server that greets as a member and answers for a leader of one, or does something else.
    private final class Fake: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        enum Manner: Sendable {
            case mute
            case web
            /// Leads a cluster of this id.
            case leads(cluster: UInt64)
            /// Leads, and lists entries of these names wherever it is asked.
            case lists([String])
            /// Says that the one at the address leads.
            case follows(String, cluster: UInt64)
        }

        private let manner: Manner
        private var bytes = ByteBuffer()

        init(_ manner: Manner) { self.manner = manner }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var new = unwrapInboundIn(data)
            bytes.writeBuffer(&new)
            var out = ByteBuffer()
            let (cluster, leader): (UInt64, String?)
            switch manner {
            case .mute: return
            case .web:
                // It answers a request's end, and nothing before.
                guard bytes.readableBytesView.contains(10) else { return }
                context.writeAndFlush(
                    NIOAny(ByteBuffer(string: "HTTP/1.1 400 Bad Request\r\n\r\n")), promise: nil)
                return context.close(promise: nil)
            case .leads(let id): (cluster, leader) = (id, nil)
            case .lists: (cluster, leader) = (1, nil)
            case .follows(let address, let id): (cluster, leader) = (id, address)
            }
            while let frame = try? bytes.readFrame(bodyBytesMax: Frame.bodyBytesMax) {
                switch frame.kind {
                case .hello:
                    Welcome(clusterID: cluster, memberID: 1, incarnation: 1, contentBytesMax: 1, members: "")
                        .write(to: &out)
                case .status:
                    MemberStatus(
                        id: 1, term: 1, commit: 1, applied: 1, digest: 0, role: leader == nil ? .leader : .follower,
                        members: "1=10.0.0.1:7400", leader: leader ?? "10.0.0.1:7400"
                    ).write(to: &out, requestID: frame.requestID)
                case .read:
                    guard case .lists(let names) = manner else { break }
                    out.writeFrame(.result, requestID: frame.requestID) { body in
                        body.writeMultipleIntegers(UInt16(0), UInt8(0), UInt32(names.count))
                        for name in names {
                            body.writeInteger(UInt8(name.utf8.count))
                            body.writeString(name)
                            body.writeMetadata(
                                Metadata(
                                    kind: .file, place: .inline, mode: 0o644, inode: 2, revision: 1, mtime: 0, size: 0))
                        }
                    }
                case .write:
                    out.writeFrame(.result, requestID: frame.requestID) {
                        $0.writeMultipleIntegers(UInt16(0), UInt64(7))
                    }
                default: break
                }
            }
            context.writeAndFlush(NIOAny(out), promise: nil)
        }
    }

    /// Runs `body` with the addresses of servers of these manners.
    private func with(
        _ manners: [Fake.Manner], _ body: ([String]) async throws -> Void
    ) async throws {
        var servers: [any Channel] = []
        for manner in manners {
            servers.append(
                try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                    .childChannelInitializer { channel in
                        channel.eventLoop.makeCompletedFuture {
                            try channel.pipeline.syncOperations.addHandler(Fake(manner))
                        }
                    }
                    .bind(host: "127.0.0.1", port: 0).get())
        }
        var outcome = Result<Void, any Error>.success(())
        do { try await body(servers.map { "127.0.0.1:\($0.localAddress?.port ?? 0)" }) } catch {
            outcome = .failure(error)
        }
        for server in servers { try? await server.close() }
        try outcome.get()
    }

    private func put(_ nodes: [String], timeout: Duration = .seconds(60)) async throws -> UInt64 {
        let client = BanyanClient(nodes: nodes, timeout: timeout)
        do {
            let revision = try await client.put("/x", [1])
            await client.close()
            return revision
        } catch {
            await client.close()
            throw error
        }
    }

    /// What a put at these addresses fails with in the end, in words: a machine that is busy needs longer to find out.
    private func failure(_ nodes: [String], saying part: String) async throws -> String {
        var (words, timeout) = ("", Duration.milliseconds(200))
        while !words.contains(part), timeout < .seconds(30) {
            let error = await #expect(throws: BanyanError.self) { try await put(nodes, timeout: timeout) }
            words = "\(try #require(error))"
            timeout *= 2
        }
        #expect(words.contains(part), "\(words)")
        return words
    }

    @Test(
        "names that no directory holds, or that come in no order, are no listing",
        arguments: [
            ["a", "b"], ["..", "a"], ["."], [""], ["a/b"], ["/"], ["a\0b"], ["b", "a"], ["a", "a"],
        ])
    func names(_ names: [String]) async throws {
        try await with([.lists(names)]) { addresses in
            let client = BanyanClient(nodes: addresses, timeout: .seconds(60))
            var listed: [String]?
            var failure: BanyanError?
            do { listed = try await client.list("/").entries.map(\.name) } catch { failure = error as? BanyanError }
            await client.close()
            if names == ["a", "b"] {
                #expect(listed == names, "\(String(describing: failure))")
            } else {
                #expect(listed == nil && failure == .protocolViolation("an answer can't be read"))
            }
        }
    }

    @Test("a write finds the leader behind mute addresses and web servers, in any number")
    func found() async throws {
        try await with([.mute, .web, .mute, .leads(cluster: 1)]) { addresses in
            let revision = try await put(addresses)
            #expect(revision == 7)
        }
    }

    @Test("the leader's own address is used where the one that members have of it leads nowhere")
    func translated() async throws {
        // Port 1 refuses.
        try await with([.follows("127.0.0.1:1", cluster: 1), .leads(cluster: 1)]) { addresses in
            let revision = try await put(addresses)
            #expect(revision == 7)
            // Without it the words say what was tried, and who gave it.
            let words = try await failure([addresses[0]], saying: "connection refused")
            #expect(words.contains("\(addresses[0]) says that 127.0.0.1:1 leads"), "\(words)")
        }
    }

    @Test("what is no member is named as what it is, and soon")
    func strangers() async throws {
        try await with([.web]) { addresses in
            _ = try await failure(addresses, saying: "\(addresses[0]): a web server answers there")
        }
        _ = try await failure(["127.0.0.1:1"], saying: "127.0.0.1:1: connection refused")
    }

    @Test("addresses of different clusters are refused, whichever answers first")
    func mixture() async throws {
        try await with([.leads(cluster: 1), .leads(cluster: 2)]) { addresses in
            for nodes in [addresses, addresses.reversed()] {
                let words = try await failure(nodes, saying: "another cluster")
                #expect(addresses.allSatisfy(words.contains), "\(words)")
            }
        }
    }

    @Test("a write that nobody took did not happen, and the words name who is silent")
    func unanswered() async throws {
        try await with([.mute]) { addresses in
            _ = try await failure(addresses, saying: "no member can be reached: \(addresses[0]) does not answer")
        }
    }
}
