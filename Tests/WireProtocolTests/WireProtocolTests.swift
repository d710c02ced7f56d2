import NIOCore
import Raft
import Testing

@testable import WireProtocol

/// The value, or a failure of the test. (The macro of that kind can't read from a buffer, which changes it.)
private func required<Value>(_ value: Value?) throws -> Value { try #require(value) }

@Suite("The protocol")
struct WireProtocolTests {
    @Test("an address is a host and a decimal port, and what is wrong with another text is named")
    func addresses() {
        for text in ["127.0.0.1:7400", "a-b_c.example:1", "[::1]:65535", "[fe80::1%eth0]:7400", "localhost:07400"] {
            #expect(Address(text) != nil, "\(text)")
        }
        #expect(Address("[::1]:7400")?.description == "[::1]:7400")
        let wrong: [(String, Address.Fault)] = [
            ("", .noPort), ("host", .noPort), ("host:", .noPort), ("[::1]", .noPort), (":7400", .noHost),
            ("h:0", .port("0")), ("h:65536", .port("65536")), ("h:+7400", .port("+7400")), ("h:-1", .port("-1")),
            ("h: 7400", .port(" 7400")), ("h:7400 ", .port("7400 ")), ("h:٧", .port("٧")),
            ("h:000007400", .port("000007400")),
            (" h:1", .host(" h")), ("::1:7400", .host("::1")), ("http://h:7400", .host("http://h")),
            ("1=h:7400", .host("1=h")), ("[]:1", .host("[]")), ("[h]:1", .host("[h]")), ("[::1]x:1", .host("[::1]x")),
            ("é:1", .host("é")), ("h\n:1", .host("h\n")),
        ]
        for (text, fault) in wrong { #expect(throws: fault, "\(text)") { try Address(parsing: text) } }
    }

    @Test("an address that stands for all of a machine's is none to connect to")
    func wildcards() {
        for host in ["0.0.0.0", "0", "0.0", "0x0", "[::]", "[0:0::0]", "[::0.0.0.0]", "[::ffff:0.0.0.0]", "[::%lo]"] {
            #expect(Address("\(host):1")?.isWildcard == true, "\(host)")
            var request = ByteBuffer()
            MembershipRequest(.add, id: 2, address: "\(host):1").write(to: &request)
            #expect(MembershipRequest.readAll(from: request) == nil, "\(host)")
        }
        for host in ["127.0.0.1", "[::1]", "a", "0.0.0.1", "00a", "[::ffff:1.0.0.0]"] {
            #expect(Address("\(host):1")?.isWildcard == false, "\(host)")
        }
    }

    @Test("a frame's length is checked before anything is waited for")
    func lengths() throws {
        var long = ByteBuffer(bytes: [0xFF, 0xFF, 0xFF, 0xFF])
        #expect(throws: ProtocolError.frameTooLong(0xFFFF_FFFF)) {
            _ = try long.readFrame(bodyBytesMax: Frame.bodyBytesMax)
        }
        var short = ByteBuffer(bytes: [0, 0, 0, 3])
        #expect(throws: ProtocolError.frameTooShort(3)) { _ = try short.readFrame(bodyBytesMax: 10) }
    }

    @Test("a frame that has not wholly arrived is waited for, byte by byte")
    func partialFrames() throws {
        var whole = ByteBuffer()
        whole.writeFrame(.read, requestID: 7, deadlineMilliseconds: 9) { $0.writeString("body") }
        for count in 0..<whole.readableBytes {
            var part = try #require(whole.getSlice(at: 0, length: count))
            let incomplete = try part.readFrame(bodyBytesMax: 100)
            #expect(incomplete == nil)
        }
        let frame = try required(try whole.readFrame(bodyBytesMax: 100))
        #expect(frame == Frame(kind: .read, requestID: 7, deadlineMilliseconds: 9, body: ByteBuffer(string: "body")))
    }

    @Test("hello, welcome, goodbye, refusal and status come back as they were written")
    func roundTrips() throws {
        var hello = Hello(role: .peer)
        (hello.lane, hello.clusterID, hello.memberID, hello.incarnation) = (.append, 1, 2, 3)
        hello.members = "1=a:1"
        #expect(try Hello(frame { hello.write(to: &$0) }) == hello)
        let welcome = Welcome(clusterID: 1, memberID: 2, incarnation: 3, contentBytesMax: 4, members: "1=a:1")
        #expect(try Welcome(frame { welcome.write(to: &$0) }) == welcome)
        let goodbye = Goodbye(.wrongCluster, "why")
        #expect(try Goodbye(frame { goodbye.write(to: &$0) }) == goodbye)
        let refusal = Refusal(.notLeader, leader: "a:1")
        #expect(try Refusal(frame { refusal.write(to: &$0, requestID: 1) }) == refusal)
        var status = MemberStatus(
            id: 1, term: 2, commit: 3, applied: 4, digest: 5, role: .leader, members: "1=a:1", leader: "a:1")
        #expect(try MemberStatus(frame { status.write(to: &$0, requestID: 1) }) == status)
        status.statistics = [.init("files", 6)]
        status.workUnderWay = [.init("sending", bytesDone: 8)]
        #expect(try MemberStatus(frame { status.write(to: &$0, requestID: 1) }) == status)
    }

    @Test("a connection that does not begin with the magic, or shares no version, is told apart")
    func magicAndVersions() throws {
        var buffer = ByteBuffer()
        buffer.writeFrame(.hello) { $0.writeString("GET / HTTP/1.1") }
        let foreign = try required(try buffer.readFrame(bodyBytesMax: 100))
        #expect(throws: ProtocolError.wrongMagic) { _ = try Hello(foreign) }
        var newer = Hello(role: .client)
        newer.versions = 2...5
        #expect(newer.commonVersion == nil)
    }

    @Test("an append's records are checked: checksum, order, terms")
    func appendRecords() throws {
        let message = { (indexes: [UInt64]) in
            Message(
                from: PeerID(1), to: PeerID(2), term: 3,
                body: .append(.init(previousIndex: indexes[0] - 1, previousTerm: 1, commit: 0, entries: [])))
        }
        let encode = { (indexes: [UInt64], term: UInt64, flip: Bool) throws -> Frame in
            var records = ByteBuffer()
            for index in indexes {
                let start = records.beginRecord(.command, index: index, term: term, length: 3)
                records.writeString("abc")
                records.sealRecord(at: start)
            }
            if flip { records.setString("abd", at: records.writerIndex - 3) }
            return try frame { buffer in
                message(indexes).writeHead(to: &buffer, recordBytes: records.readableBytes)
                buffer.writeImmutableBuffer(records)
            }
        }
        let sound = try PeerMessage(encode([5, 6], 2, false))
        guard case .append(let append) = sound.message.body else {
            Issue.record("not an append")
            return
        }
        #expect(append.entries.map(\.index) == [5, 6])
        #expect(throws: ProtocolError.corruptRecord(index: 6)) { _ = try PeerMessage(encode([5, 6], 2, true)) }
        #expect(throws: ProtocolError.malformedBody(.peerMessage)) { _ = try PeerMessage(encode([5, 7], 2, false)) }
        #expect(throws: ProtocolError.malformedBody(.peerMessage)) { _ = try PeerMessage(encode([5, 6], 4, false)) }
    }

    @Test("terms and indexes that no sound member has are refused, before arithmetic could overflow")
    func absurdNumbers() throws {
        let bodies: [Message.Body] = [
            .vote(lastIndex: .max, lastTerm: 1), .preVote(lastIndex: 1, lastTerm: .max),
            .append(.init(previousIndex: .max - 1, previousTerm: 1, commit: 0, entries: [])),
            .append(.init(previousIndex: 1, previousTerm: 1, commit: .max, entries: [])),
            .appendResponse(.accepted(match: .max)),
            .appendResponse(.rejected(.max, hintIndex: 1, hintTerm: 1)), .heartbeat(commit: .max, round: 0),
        ]
        for body in bodies {
            let message = Message(from: PeerID(1), to: PeerID(2), term: 1, body: body)
            #expect(throws: ProtocolError.malformedBody(.peerMessage), "\(body)") {
                _ = try PeerMessage(frame { message.writeHead(to: &$0) })
            }
        }
        let future = Message(from: PeerID(1), to: PeerID(2), term: .max, body: .voteResponse(granted: true))
        #expect(throws: ProtocolError.malformedBody(.peerMessage)) {
            _ = try PeerMessage(frame { future.writeHead(to: &$0) })
        }
    }

    private func frame(_ write: (inout ByteBuffer) -> Void) throws -> Frame {
        var buffer = ByteBuffer()
        write(&buffer)
        return try required(try buffer.readFrame(bodyBytesMax: Frame.bodyBytesMax))
    }
}
