import FileTree
import Foundation
import NIOCore
import Raft
import RaftLog
import Testing
import WireProtocol

@testable import Node

@Suite("Recovery")
struct RecoveryTests {
    private static let clusterID: UInt64 = 7
    private static let incarnation: UInt64 = 10

    /// The directory of one of three members, whose last two entries nobody else has and nobody has executed. Its term was
    /// driven far beyond what any cluster can reach.
    private static func makeMember(in path: String, term: Term = 1 << 62) throws {
        let directory = try DataDirectory(path: path)
        let genesis = Configuration(
            clusterID: clusterID,
            members: (1...3).map { Member(id: $0, peer: PeerID(9 + $0), address: "127.0.0.1:\($0)") })
        let identity = Identity(
            memberID: 1, incarnation: incarnation, founders: "1=127.0.0.1:1,2=127.0.0.1:2,3=127.0.0.1:3")
        try directory.store.found(identity, genesis: genesis)
        let recovered = try directory.store.recover()
        let writer = LogWriter(
            store: directory.store, row: recovered.row, lastIndex: 1, completed: { _ in },
            failed: { Issue.record("\($0)") })
        let records = try (UInt64(2)...6).map { index in
            var record = ByteBuffer()
            var command = ByteBuffer()
            Put(path: try TreePath("/f\(index)"), content: ByteBuffer(string: "\(index)")).write(to: &command)
            let start = record.beginRecord(.command, index: index, term: 5, length: command.readableBytes)
            record.writeImmutableBuffer(command)
            record.sealRecord(at: start)
            return record
        }
        let write = Write(number: 1, hardState: HardState(term: term, vote: nil, commit: 4), entries: 2..<7)
        writer.send(LogWriter.Request(write: write, records: records))
        writer.close()
        // The state is behind the log, as after a crash.
        let tree = try DurableTree(path: directory.prepareState(recovered.row.stateNumber))
        try tree.replay(through: 3, from: directory.store) {}
        try tree.commit()
    }

    private static func folder() throws -> String {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("recovery-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        return folder.path
    }

    @Test("a member whose term leapt goes on as a new cluster, with all that it has, in a term behind its last entry's")
    func leaptTerm() throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let path = folder + "/1"
        try Self.makeMember(in: path)
        let before = try Recovery.inspect(path)
        #expect(before.term == 1 << 62 && before.lastIndex == 6 && before.clusterID == Self.clusterID)
        let after = try Recovery.forceNewCluster(path)
        #expect(after.term == 6 && after.lastTerm == 6 && after.clusterID != Self.clusterID)
        #expect(after.lastIndex > 1 << 47 && after.commit == after.lastIndex)
        #expect(after.members == "1=127.0.0.1:1")
        let directory = try DataDirectory(path: path)
        let identity = try #require(try directory.store.identity())
        #expect(identity.incarnation != Self.incarnation && identity.formerClusterID == Self.clusterID)
        #expect(identity.genesis?.members.map(\.peer) == [PeerID(identity.incarnation)])
        let recovered = try directory.store.recover()
        let tree = try DurableTree(path: directory.prepareState(recovered.row.stateNumber))
        #expect(tree.applied.index == recovered.log.compactedIndex && tree.applied.files == 5)
        try tree.replay(through: recovered.log.lastIndex, from: directory.store) {}
        #expect(tree.applied.index == after.lastIndex && tree.applied.term == 6)
    }

    @Test("two directories of one cluster are recovered, one of them twice, and begin with different revisions")
    func twoRecoveries() throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        for name in ["1", "2"] { try Self.makeMember(in: "\(folder)/\(name)") }
        let now = Clock.wall
        let second: Int64 = 1_000_000_000
        let first = try Recovery.forceNewCluster(folder + "/1", wallTime: now)
        let other = try Recovery.forceNewCluster(folder + "/2", wallTime: now + second)
        #expect(other.lastIndex >= first.lastIndex + FirstRevision.perSecond)
        #expect(other.clusterID != first.clusterID)
        // A clock that was set back gives no number a second time.
        var warnings: [String] = []
        let again = try Recovery.forceNewCluster(folder + "/1", wallTime: now - 3600 * second) { warnings.append($0) }
        #expect(again.lastIndex > first.lastIndex + FirstRevision.perSecond && again.term == first.term + 1)
        #expect(warnings.count == 1)
    }

    @Test("a state that can't be used is no ground for a new cluster, and the directory stays the old one's")
    func unusableState() throws {
        let folder = try Self.folder()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let path = folder + "/1"
        try Self.makeMember(in: path)
        try StateDamage(kind: .wrong, reason: "it was so").mark(path)
        #expect(throws: StartError.self) { try Recovery.forceNewCluster(path) }
        #expect(try Recovery.inspect(path).clusterID == Self.clusterID)
    }
}
