import BanyanClient
import Foundation
import NIOCore
import Testing
import WireProtocol

@Suite("Bad frames", .serialized)
struct BadFrameTests {
    @Test("who says no hello, or never ends a frame, is sent away, and who is merely idle is served as before")
    func loris() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let port = cluster.ports[0]
        let idle = try Forger.client(to: port)
        let silent = try RawConnection(to: port)
        let endless = try (0..<100).map { _ in try Forger.client(to: port) }
        // More of them than may be held together.
        for connection in endless { connection.say(Forger.frame(16, [UInt8](repeating: 1, count: 1 << 20)).dropLast()) }
        #expect(await cluster.condition { endless.filter(\.isClosed).count > 40 })
        #expect(await cluster.condition { silent.isClosed && endless.allSatisfy(\.isClosed) })
        idle.say(Forger.frame(18, request: 7))
        #expect(try idle.frame()?.kind == .statusResult)
    }

    @Test("garbage, truncated, oversized and foreign frames are refused with a reason, and the member goes on")
    func frames() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let port = cluster.ports[0]
        let hello = { (change: (inout Hello) -> Void) in
            Self.bytes { buffer in
                var hello = Hello(role: .client)
                change(&hello)
                hello.write(to: &buffer)
            }
        }
        let oversized = hello { _ in } + [0x7F, 0xFF, 0xFF, 0xFF, 17]
        let unknownKind =
            hello { _ in }
            + Self.bytes { $0.writeFrame(.read) { $0.writeBytes([]) } }.enumerated().map {
                $0 == 4 ? 99 : $1
            }
        let refused: [([UInt8], Goodbye.Code)] = [
            (Array("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8), .protocolError),
            ([UInt8](repeating: 0, count: 64), .protocolError), ([UInt8](repeating: 0xFF, count: 64), .protocolError),
            (
                Self.bytes { $0.writeFrame(.hello) { $0.writeString("XNYN, and more than thirty-six bytes of it") } },
                .protocolError
            ),
            (Self.bytes { $0.writeFrame(.hello) { $0.writeString("BNYN") } }, .protocolError),
            (hello { $0.versions = 7...9 }, .noCommonVersion), (oversized, .protocolError),
            (unknownKind, .protocolError),
            (hello { ($0.role, $0.clusterID, $0.memberID) = (.peer, 1, 1) }, .wrongCluster),
            (
                hello {
                    ($0.role, $0.isBootstrapping, $0.memberID, $0.incarnation) = (.peer, true, 1, 5)
                    $0.members = "1=127.0.0.1:\(port)"
                },
                .unknownIncarnation
            ),
            (
                hello { _ in } + Self.bytes { $0.writeFrame(.peerMessage) { $0.writeInteger(UInt64(1)) } },
                .protocolError
            ),
        ]
        for (number, (bytes, code)) in refused.enumerated() {
            var answer = ByteBuffer(bytes: try Self.exchange(bytes, port: port))
            var goodbye: Goodbye?
            while let frame = try answer.readFrame(bodyBytesMax: Frame.bodyBytesMax) { goodbye = try? Goodbye(frame) }
            #expect(goodbye?.code == code, "case \(number): \(String(describing: goodbye))")
            #expect(goodbye?.reason.isEmpty == false)
        }
        // Broken off in the middle of a frame.
        _ = try Self.exchange(Array(hello { _ in }.prefix(20)), port: port, isCutOff: true)
        // A request that can't be read is answered, and the connection lives on.
        let malformed = Self.bytes { buffer in
            Hello(role: .client).write(to: &buffer)
            buffer.writeFrame(.write, requestID: 8, deadlineMilliseconds: 5000) { $0.writeString("nonsense") }
            buffer.writeFrame(.read, requestID: 9, deadlineMilliseconds: 5000) { $0.writeInteger(UInt8(77)) }
            buffer.writeFrame(.status, requestID: 10) { _ in }
            buffer.writeFrame(.hello) { $0.writeString("a second hello") }
        }
        var answer = ByteBuffer(bytes: try Self.exchange(malformed, port: port))
        var codes: [UInt64: UInt16] = [:]
        var hasStatus = false
        while var frame = try answer.readFrame(bodyBytesMax: Frame.bodyBytesMax) {
            if frame.kind == .result { codes[frame.requestID] = frame.body.readInteger() }
            if frame.kind == .statusResult { hasStatus = true }
        }
        #expect(codes[8] == 1)
        #expect(hasStatus)
        let client = cluster.client()
        _ = try await client.put("/after", Array("it all".utf8))
        #expect(try await client.get("/after").content == Array("it all".utf8))
        await client.close()
    }

    @Test("a write too long for a peer's frame is refused, and the cluster goes on")
    func oversizedCommand() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let leader = try await cluster.leader()
        let body = [UInt8](repeating: 0, count: Frame.bodyBytesMax)
        let request = Self.bytes { buffer in
            Hello(role: .client).write(to: &buffer)
            buffer.writeFrame(.write, requestID: 5, deadlineMilliseconds: 5000) { $0.writeBytes(body) }
            buffer.writeFrame(.hello) { $0.writeString("so that the member closes the connection") }
        }
        var answer = ByteBuffer(bytes: try Self.exchange(request, port: cluster.ports[leader - 1]))
        var code: UInt16?
        while var frame = try answer.readFrame(bodyBytesMax: Frame.bodyBytesMax) {
            if frame.requestID == 5 { code = frame.body.readInteger() }
        }
        #expect(code == 9)
        let client = cluster.client()
        _ = try await client.put("/after", [1])
        await client.close()
    }

    @Test("answers that a client leaves unread wait for it, and do not pile up in the member")
    func unreadAnswers() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        _ = try await client.put("/big", [UInt8](repeating: 7, count: 1 << 20))
        let reads = Self.bytes { buffer in
            Hello(role: .client).write(to: &buffer)
            for id in 1...2000 {
                buffer.writeFrame(.read, requestID: UInt64(id), deadlineMilliseconds: 60_000) { body in
                    body.writeMultipleIntegers(UInt8(1), UInt16(4))
                    body.writeString("/big")
                }
            }
        }
        try await Self.withConnection(to: cluster.ports[0]) { descriptor in
            try #require(send(descriptor, reads, reads.count, Int32(MSG_NOSIGNAL)) == reads.count)
            for _ in 0..<20 { _ = try await client.put("/other", [1]) }
            #expect(try cluster.residentBytes(1) < 300 << 20)
        }
        await client.close()
    }

    @Test("a client that asks for a snapshot's pieces and takes none in fills nobody's memory")
    func unreadPieces() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        var content = [UInt8](repeating: 0, count: 1 << 20)
        var generator = SystemRandomNumberGenerator()
        for file in 0..<3 {
            // Nothing that can be compressed.
            for position in content.indices { content[position] = UInt8.random(in: 0...255, using: &generator) }
            _ = try await client.put("/big\(file)", content)
        }
        let reads = Self.bytes { buffer in
            Hello(role: .client).write(to: &buffer)
            buffer.writeFrame(.openSnapshot, requestID: 1, deadlineMilliseconds: 60_000) { _ in }
        }
        let pieces = Self.bytes { buffer in
            for id in 2...3000 {
                buffer.writeFrame(.readSnapshot, requestID: UInt64(id), deadlineMilliseconds: 60_000) {
                    // The first that holds a large row.
                    $0.writeInteger(UInt32(2))
                }
            }
        }
        try await Self.withConnection(to: cluster.ports[0]) { descriptor in
            try #require(send(descriptor, reads, reads.count, Int32(MSG_NOSIGNAL)) == reads.count)
            // Of the welcome and of the snapshot's beginning, the last bytes.
            let begun = try Self.frames(2, from: descriptor).last
            #expect(begun?.kind == .result)
            // Who leaves so much unread for five seconds is let go: on a machine that is slow for so long it may be gone.
            let end = ContinuousClock.now + .seconds(4)
            try #require(send(descriptor, pieces, pieces.count, Int32(MSG_NOSIGNAL)) == pieces.count)
            for _ in 0..<20 { _ = try await client.put("/other", [1]) }
            #expect(try cluster.residentBytes(1) < 100 << 20)
            let isLate = ContinuousClock.now > end
            do {
                let taken = try Self.frames(1, from: descriptor)
                let refusal = try? Refusal(taken[0])
                #expect(taken[0].body.readableBytes > 1 << 19, "refused: \(String(describing: refusal))")
            } catch  where isLate {}
        }
        await client.close()
    }

    @Test("clients that hold on to snapshots leave room on the disk for two, and one that is taken goes")
    func heldSnapshots() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        let open = Self.bytes { buffer in
            Hello(role: .client).write(to: &buffer)
            buffer.writeFrame(.openSnapshot, requestID: 1, deadlineMilliseconds: 60_000) { _ in }
        }
        // Who gets no further for five seconds may lose its own: on a machine that is slow for so long nothing is to be seen.
        let end = ContinuousClock.now + .seconds(4)
        var held: [Int32] = []
        defer { for descriptor in held { close(descriptor) } }
        for number in 0..<3 {
            // Each wants more than the one before has.
            _ = try await client.put("/new", [UInt8(number)])
            let descriptor = try Self.connection(to: cluster.ports[0])
            held.append(descriptor)
            try #require(send(descriptor, open, open.count, Int32(MSG_NOSIGNAL)) == open.count)
            if number < 2 { #expect(try Self.frames(2, from: descriptor).last?.kind == .result) }
        }
        // The third waits, although all that it wants is durable by now.
        #expect(try Self.frames(1, from: held[2]).first?.kind == .welcome)
        for _ in 0..<2 {
            // Each is durable a flush later than the one before: time enough for a snapshot of what was there.
            let revision = try await client.put("/newer", [1])
            #expect(
                await cluster.condition {
                    try await client.status().allSatisfy { $0.statistics["durable_index"] ?? 0 >= revision }
                })
        }
        var byte: UInt8 = 0
        let isAnswered = recv(held[2], &byte, 1, Int32(MSG_PEEK | MSG_DONTWAIT)) != -1
        #expect(!isAnswered || ContinuousClock.now > end)
        // The first is taken to its end.
        var isLast = false
        var number: UInt32 = 0
        while !isLast {
            let read = Self.bytes { buffer in
                buffer.writeFrame(.readSnapshot, requestID: 2, deadlineMilliseconds: 60_000) { $0.writeInteger(number) }
            }
            try #require(send(held[0], read, read.count, Int32(MSG_NOSIGNAL)) == read.count)
            var body = try #require(try Self.frames(1, from: held[0]).first).body
            let code = body.readInteger(as: UInt16.self)
            #expect(code == 0 || isAnswered)
            isLast = code != 0 || body.readInteger(as: UInt8.self) == 1
            number += 1
        }
        #expect(number > 1 || isAnswered)
        #expect(try Self.frames(1, from: held[2]).first?.kind == .result)
        let saved = cluster.folder.appendingPathComponent("saved").path
        let result = try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "snapshot", "save", saved])
        #expect(result.code == 0, "\(result.errors)")
        await client.close()
    }

    @Test("a thousand requests to verify everything have it read a few times, and all are answered")
    func manyVerifications() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        for number in 0..<50 { _ = try await client.put("/d/\(number)", [1]) }
        let requests = Self.bytes { buffer in
            Hello(role: .client).write(to: &buffer)
            for id in 1...1000 {
                buffer.writeFrame(.verify, requestID: UInt64(id), deadlineMilliseconds: 60_000) { _ in }
            }
        }
        try await Self.withConnection(to: cluster.ports[0]) { descriptor in
            try #require(send(descriptor, requests, requests.count, Int32(MSG_NOSIGNAL)) == requests.count)
            let answers = try Self.frames(1001, from: descriptor).dropFirst()
            #expect(answers.allSatisfy { $0.kind == .result })
        }
        #expect(try cluster.log(1).components(separatedBy: "scrubbed").count - 1 < 50)
        await client.close()
    }

    private static func bytes(_ write: (inout ByteBuffer) -> Void) -> [UInt8] {
        var buffer = ByteBuffer()
        write(&buffer)
        return Array(buffer.readableBytesView)
    }

    /// Sends `bytes` and reads until the member closes the connection.
    private static func exchange(_ bytes: [UInt8], port: Int, isCutOff: Bool = false) throws -> [UInt8] {
        let descriptor = try connection(to: port)
        defer { close(descriptor) }
        try #require(send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count)
        if isCutOff { return [] }
        var received: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count <= 0 { return received }
            received += buffer[..<count]
        }
    }

    /// Reads so many frames.
    private static func frames(_ count: Int, from descriptor: Int32) throws -> [Frame] {
        var received = ByteBuffer()
        var frames: [Frame] = []
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            while frames.count < count, let frame = try received.readFrame(bodyBytesMax: Frame.bodyBytesMax) {
                frames.append(frame)
            }
            if frames.count == count {
                try #require(received.readableBytes == 0 || count == 1, "more came than was asked for")
                return frames
            }
            let got = recv(descriptor, &bytes, bytes.count, 0)
            guard got > 0 else { throw TestCluster.Failure(description: "the member sends no more") }
            received.writeBytes(bytes[..<got])
        }
    }

    private static func withConnection(to port: Int, _ body: (Int32) async throws -> Void) async throws {
        let descriptor = try connection(to: port)
        defer { close(descriptor) }
        try await body(descriptor)
    }

    private static func connection(to port: Int) throws -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var limit = timeval(tv_sec: 60, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        let isConnected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        try #require(isConnected)
        return descriptor
    }
}
