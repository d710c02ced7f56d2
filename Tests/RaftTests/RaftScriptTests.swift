import Foundation
import Testing

@testable import Raft

@Suite("Scenarios of Raft")
struct RaftScriptTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("fixtures/raft")

    static var names: [String] {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return files.filter { $0.hasSuffix(".txt") }.sorted()
    }

    @Test("the scenarios are there")
    func scenariosAreThere() {
        #expect(Self.names.contains("figure-7.txt"))
        #expect(Self.names.contains("figure-8.txt"))
    }

    /// In a script, `#` begins a comment, `>` a command; what follows a command is what it prints.
    @Test("a script's members do what it says", arguments: names)
    func scenario(name: String) throws {
        let script = try String(contentsOf: Self.folder.appendingPathComponent(name), encoding: .utf8)
        var cluster = ScriptedCluster()
        var actual: [String] = []
        var expected: [String] = []
        for line in script.split(separator: "\n", omittingEmptySubsequences: true).map(String.init) {
            if line.hasPrefix("#") { continue }
            expected.append(line)
            if line.hasPrefix("> ") { actual += [line] + (try cluster.run(String(line.dropFirst(2)))) }
        }
        #expect(actual == expected, "\(name) went like this:\n\(actual.joined(separator: "\n"))")
    }

    @Test("an entry of an earlier term on a majority is committed only with one of the leader's own (figure 8)")
    func earlierTermsEntry() throws {
        let members = (1...3).map { Member(id: $0, peer: PeerID($0), address: "") }
        let log = LogView(
            compactedIndex: 0, compactedTerm: 0,
            entries: [1, 2].map { EntryHeader(index: $0, term: $0, kind: .command, size: 1) },
            configurations: [
                IndexedConfiguration(index: 0, configuration: Configuration(clusterID: 1, members: members))
            ])
        var core = RaftCore(
            id: PeerID(1), hardState: HardState(term: 3), log: log, applied: 0, seed: 1, now: 0)
        core.step(.tick, now: 1_000_000_000)
        let tell = { (body: Message.Body, term: Term, core: inout RaftCore) in
            core.step(
                .message(Message(from: PeerID(2), to: PeerID(1), term: term, body: body)), now: 1_000_000_000)
        }
        tell(.preVoteResponse(granted: true), 4, &core)
        let vote = try #require(core.takeOutput().write)
        #expect(vote.hardState == HardState(term: 4, vote: PeerID(1), commit: 0))
        core.step(.saved(write: vote.number), now: 1_000_000_000)
        tell(.voteResponse(granted: true), 4, &core)
        #expect(core.role == .leader)
        let append = try #require(core.takeOutput().write)
        core.step(.saved(write: append.number), now: 1_000_000_000)
        tell(.appendResponse(.accepted(match: 2)), 4, &core)
        #expect(core.commit == 0)
        tell(.appendResponse(.accepted(match: 3)), 4, &core)
        #expect(core.commit == 3)
    }

    @Test("a candidate's own vote counts when it is on the disk, and not before")
    func ownVote() throws {
        let member = Member(id: 1, peer: PeerID(1), address: "")
        let log = LogView(
            compactedIndex: 0, compactedTerm: 0, entries: [],
            configurations: [
                IndexedConfiguration(index: 0, configuration: Configuration(clusterID: 1, members: [member]))
            ])
        var core = RaftCore(id: PeerID(1), hardState: HardState(), log: log, applied: 0, seed: 1, now: 0)
        core.step(.tick, now: 1_000_000_000)
        #expect(core.role == .candidate)
        let write = try #require(core.takeOutput().write)
        core.step(.tick, now: 1_000_000_001)
        #expect(core.role == .candidate)
        core.step(.saved(write: write.number), now: 1_000_000_002)
        #expect(core.role == .leader)
    }

    @Test("a majority is more than half, and joint majorities are both")
    func quorums() {
        let members = (1...3).map { Member(id: $0, peer: PeerID($0), address: "") }
        let simple = Configuration(clusterID: 1, members: members)
        #expect(simple.isQuorum { $0.rawValue <= 2 })
        #expect(!simple.isQuorum { $0.rawValue <= 1 })
        #expect(simple.quorumValue { [5, 9, 7][Int($0.rawValue) - 1] } == 7)
        let joint = Configuration(
            clusterID: 1, members: members, outgoingVoters: [PeerID(3), PeerID(4), PeerID(5)])
        #expect(!joint.isQuorum { $0.rawValue <= 3 })
        #expect(joint.isQuorum { $0.rawValue >= 2 && $0.rawValue <= 4 })
    }

    @Test("a log forgets its prefix and its tail, and undoes a truncated configuration")
    func logView() throws {
        let first = Configuration(clusterID: 1, members: [Member(id: 1, peer: PeerID(1), address: "a")])
        let second = Configuration(clusterID: 1, members: [Member(id: 1, peer: PeerID(1), address: "b")])
        var log = LogView(
            compactedIndex: 0, compactedTerm: 0, entries: [],
            configurations: [IndexedConfiguration(index: 0, configuration: first)])
        for (offset, term) in [1, 1, 4, 4, 6].enumerated() {
            log.append(EntryHeader(index: UInt64(offset + 1), term: Term(term), kind: .command, size: 10))
        }
        log.append(IndexedConfiguration(index: 5, configuration: second))
        #expect(log.configuration == second)
        #expect(log.lastIndex(atMost: 5, termAtMost: 5) == 4)
        #expect(log.lastIndex(atMost: 5, termAtMost: 3) == 2)
        #expect(log.lastIndex(atMost: 3, termAtMost: 9) == 3)
        log.truncate(from: 5)
        #expect(log.configuration == first)
        #expect(log.lastTerm == 4)
        log.compact(through: 3)
        #expect(log.term(at: 3) == 4)
        #expect(log.term(at: 2) == nil)
        #expect(log.windowFirst == 4)
        #expect(log.lastIndex(atMost: 4, termAtMost: 3) == 3)
    }
}
