import FileTree
import Foundation
import NIOCore
import Raft
import Testing

@testable import WireProtocol

/// Version 1 of the protocol is a promise: these frames never change.
@Suite("Golden frames")
struct GoldenFrameTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("fixtures/protocol")

    static var frames: [(name: String, bytes: ByteBuffer)] {
        var hello = Hello(role: .peer)
        (hello.lane, hello.clusterID, hello.memberID, hello.incarnation) = (.append, 0x0102, 3, 0x0405)
        hello.members = "1=a:1,2=b:2"
        let welcome = Welcome(
            clusterID: 0x0102, memberID: 3, incarnation: 0x0405, contentBytesMax: 1 << 20, members: "1=a:1,2=b:2")
        let status = MemberStatus(
            id: 1, term: 2, commit: 3, applied: 4, digest: 5, role: .leader, members: "1=a:1", leader: "a:1")
        var busy = status
        busy.statistics = [.init("files", 6), .init("log_bytes", 7)]
        busy.workUnderWay = [.init("sending", bytesDone: 8, of: 9)]
        let atWork = busy
        var verification = Verification()
        (verification.index, verification.digest, verification.rows, verification.bytes) = (1, 2, 3, 4)
        (verification.firstEntry, verification.lastEntry, verification.damagedEntry) = (5, 7, 6)
        (verification.milliseconds, verification.damage) = (8, "log entry 6")
        let verified = verification
        let rewrite = StateRewrite(bytesBefore: 1, bytesAfter: 2, milliseconds: 3, failure: "no")
        let vote = Message(from: PeerID(1), to: PeerID(2), term: 3, body: .vote(lastIndex: 4, lastTerm: 5))
        let refused = Message(
            from: PeerID(1), to: PeerID(2), term: 3,
            body: .appendResponse(.rejected(9, hintIndex: 8, hintTerm: 2)))
        let accepted = Message(from: PeerID(1), to: PeerID(2), term: 3, body: .appendResponse(.accepted(match: 9)))
        let configuration = Configuration(
            clusterID: 7, members: [Member(id: 1, peer: PeerID(8), address: "a:1", isLearner: true)],
            outgoingVoters: [PeerID(9)])
        return [
            ("hello", buffer { hello.write(to: &$0) }), ("welcome", buffer { welcome.write(to: &$0) }),
            ("goodbye", buffer { Goodbye(.wrongCluster, "no").write(to: &$0) }),
            ("refusal", buffer { Refusal(.notLeader, leader: "a:1").write(to: &$0, requestID: 6) }),
            ("status", buffer { status.write(to: &$0, requestID: 6) }),
            ("status-at-work", buffer { atWork.write(to: &$0, requestID: 6) }),
            ("vote", buffer { vote.writeHead(to: &$0) }),
            ("verification", buffer { verified.write(to: &$0) }), ("state-rewrite", buffer { rewrite.write(to: &$0) }),
            ("append-refused", buffer { refused.writeHead(to: &$0) }),
            ("append-accepted", buffer { accepted.writeHead(to: &$0, freeBytes: 0x0A0B) }),
            ("configuration", buffer { configuration.write(to: &$0) }),
            (
                "record",
                buffer {
                    let start = $0.beginRecord(.command, index: 0x10, term: 0x20, length: 5)
                    $0.writeString("bytes")
                    $0.sealRecord(at: start)
                }
            ),
        ]
    }

    /// What clients send. `Tests` may see the tree's commands, which the protocol carries unread.
    static func requests() throws -> [(name: String, bytes: ByteBuffer)] {
        let (a, b) = (try TreePath("/a"), try TreePath("/b"))
        let put = Put(
            path: try TreePath("/a/b"), content: ByteBuffer(string: "xyz"), mode: 0o640, mtime: -5,
            condition: .revision(9))
        let request = { (kind: Frame.Kind, write: (inout ByteBuffer) -> Void) in
            buffer { $0.writeFrame(kind, requestID: 7, deadlineMilliseconds: 5000, body: write) }
        }
        return [
            ("put", request(.write) { put.write(to: &$0) }),
            (
                "make-directory",
                request(.write) { MakeDirectory(path: a, mode: 0o755, makesParents: true).write(to: &$0) }
            ),
            ("rename", request(.write) { Rename(source: a, destination: b, condition: .absent).write(to: &$0) }),
            ("delete", request(.write) { Delete(path: a, isRecursive: true).write(to: &$0) }),
            (
                "set-attributes",
                request(.write) {
                    SetAttributes(path: a, mode: 0o640, mtime: .at(-5), condition: .revision(9)).write(to: &$0)
                }
            ),
            ("touch", request(.write) { SetAttributes(path: a, mtime: .now).write(to: &$0) }),
            ("get", request(.read) { Query.get(a).write(to: &$0) }),
            ("stat", request(.read) { Query.stat(a).write(to: &$0) }),
            ("open-session", request(.write) { OpenSession().write(to: &$0) }),
            ("close-session", request(.write) { CloseSession(0x11).write(to: &$0) }),
            ("raise-version", request(.write) { RaiseVersion(to: 2).write(to: &$0) }),
            (
                "session-put",
                request(.write) {
                    var command = ByteBuffer()
                    put.write(to: &command)
                    CommandHeader.enroll(&command, session: 0x11, sequence: 0x23, lowestUnanswered: 0x22)
                    $0.writeImmutableBuffer(command)
                }
            ),
            (
                "one-time-put",
                request(.write) {
                    var command = ByteBuffer()
                    put.write(to: &command)
                    CommandHeader.enrollOnce(&command, id: 0x1112 << 64 | 0x13, until: 0x22)
                    $0.writeImmutableBuffer(command)
                }
            ),
            ("lease-read", request(.leaseRead) { Query.get(a).write(to: &$0) }),
            (
                "stale-read",
                request(.staleRead) {
                    $0.writeInteger(UInt32(2000))
                    Query.get(a).write(to: &$0)
                }
            ),
            (
                "change-membership",
                request(.changeMembership) { MembershipRequest(.add, id: 4, address: "d:7400").write(to: &$0) }
            ),
            (
                "promote-two",
                request(.changeMembership) {
                    for id in [4, 5] as [UInt64] { MembershipRequest(.promote, id: id).write(to: &$0) }
                }
            ),
            ("open-snapshot", request(.openSnapshot) { _ in }),
            ("read-snapshot", request(.readSnapshot) { $0.writeInteger(UInt32(3)) }),
            ("verify", request(.verify) { _ in }),
            ("rewrite-state", request(.rewriteState) { _ in }),
            ("list", request(.read) { Query.list(.root, after: Array("m".utf8), limit: 100).write(to: &$0) }),
        ]
    }

    @Test("every request has the bytes that its file in fixtures/protocol shows")
    func goldenRequests() throws {
        for (name, bytes) in try Self.requests() { try expectGolden(name, bytes) }
    }

    @Test("every frame has the bytes that its file in fixtures/protocol shows", arguments: frames.map(\.name))
    func golden(name: String) throws {
        let frame = try #require(Self.frames.first { $0.name == name })
        try expectGolden(name, frame.bytes)
    }

    private func expectGolden(_ name: String, _ bytes: ByteBuffer) throws {
        let hexadecimal = bytes.readableBytesView.map { byte in
            (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }.joined()
        let file = Self.folder.appendingPathComponent("\(name).hex")
        let expected = try String(contentsOf: file, encoding: .utf8).filter { !$0.isWhitespace }
        #expect(hexadecimal == expected, "\(name)")
    }

    private static func buffer(_ write: (inout ByteBuffer) -> Void) -> ByteBuffer {
        var buffer = ByteBuffer()
        write(&buffer)
        return buffer
    }
}
