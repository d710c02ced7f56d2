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

    @Test("what the page says that shows a rule is there: a script, a test, or a mutant")
    func pageOfRules() throws {
        let root = Self.folder.deletingLastPathComponent().deletingLastPathComponent()
        let page = try String(
            contentsOf: root.appendingPathComponent("Sources/Raft/Raft.docc/Raft.md"), encoding: .utf8)
        let tests = try ["RaftScriptTests", "SanityTests"].map {
            try String(contentsOf: root.appendingPathComponent("Tests/RaftTests/\($0).swift"), encoding: .utf8)
        }.joined()
        let rows = page.split(separator: "\n").drop { !$0.hasPrefix("| rule | source | where | shown by |") }
        let table = rows.dropFirst(2).prefix { $0.hasPrefix("| ") }
        #expect(table.count > 20)
        for row in table {
            let shown = row.split(separator: "|")[3]
            let names = shown.split(separator: "`").enumerated().filter { $0.offset % 2 == 1 }.map {
                String($0.element)
            }
            #expect(!names.isEmpty || shown.contains("all seeds"), "\(row)")
            for name in names {
                let isThere =
                    Self.names.contains(name + ".txt") || Mutant(rawValue: name) != nil
                    || tests.contains("func \(name)(") || tests.contains("struct \(name) ")
                #expect(isThere, "\(name) shows nothing: \(row)")
            }
        }
    }

    /// In a script, `#` begins a comment, `>` a command; what follows a command is what it prints.
    @Test("a script's members do what it says", arguments: names)
    func scenario(name: String) throws {
        let (actual, expected) = try Self.run(name, ScriptedCluster())
        #expect(actual == expected, "\(name) went like this:\n\(actual.joined(separator: "\n"))")
    }

    @Test("a script notices a promise that leaves with another's write")
    func promisesOfOtherWrites() throws {
        var cluster = ScriptedCluster()
        cluster.releasesAllPromises = true
        let (actual, expected) = try Self.run("promises.txt", cluster)
        #expect(actual != expected)
    }

    private static func run(_ name: String, _ cluster: ScriptedCluster) throws -> (
        actual: [String], expected: [String]
    ) {
        let script = try String(contentsOf: folder.appendingPathComponent(name), encoding: .utf8)
        var cluster = cluster
        var actual: [String] = []
        var expected: [String] = []
        for line in script.split(separator: "\n", omittingEmptySubsequences: true).map(String.init) {
            if line.hasPrefix("#") { continue }
            expected.append(line)
            if line.hasPrefix("> ") { actual += [line] + (try cluster.run(String(line.dropFirst(2)))) }
        }
        return (actual, expected)
    }

    @Test("a state that another took the place of goes on from there, and log, vote and commit index stay")
    func replacedState() throws {
        let members = (1...2).map { Member(id: $0, peer: PeerID($0), address: "") }
        let log = LogView(
            compactedIndex: 3, compactedTerm: 1,
            entries: (4...9).map { EntryHeader(index: $0, term: 2, kind: .command, size: 1) },
            configurations: [
                IndexedConfiguration(index: 0, configuration: Configuration(clusterID: 1, members: members))
            ])
        let hardState = HardState(term: 2, vote: PeerID(2), commit: 8)
        var core = RaftCore(id: PeerID(1), hardState: hardState, log: log, applied: 6, seed: 1, now: 0)
        #expect(core.takeOutput().apply == 7...8)
        core.step(.applied(8), now: 1)
        core.step(.stateReplaced(4), now: 2)
        #expect(core.applied == 4)
        #expect(core.hardState == hardState && core.log.lastIndex == 9 && core.log.compactedIndex == 3)
        let output = core.takeOutput()
        #expect(output.apply == 5...8)
        #expect(output.write == nil)
        // What the log lacks can't be executed again: it is not compacted beyond the new state.
        core.step(.compact(through: 8), now: 3)
        #expect(core.log.compactedIndex == 4)
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

    @Test("a leader changes no membership before it has committed something in its term, and reads by lease no sooner")
    func newLeader() throws {
        var core = try Self.leader(entries: 2)
        #expect(core.membershipRefusal(of: [.remove(PeerID(3))]) == .notReady)
        core.step(.leaseRead(context: 1), now: 1_010_000_000)
        #expect(core.takeOutput().readStates == [ReadState(context: 1, index: nil)])
        Self.tell(&core, .heartbeatResponse(round: core.reads.lastRound), from: 2, term: 2, at: 1_010_000_000)
        Self.tell(&core, .appendResponse(.accepted(match: 3)), from: 2, term: 2, at: 1_010_000_000)
        #expect(core.membershipRefusal(of: [.remove(PeerID(3))]) == nil)
        _ = core.takeOutput()
        // The heartbeat left at 1,000 ms: the lease holds for three quarters of an election timeout.
        core.step(.leaseRead(context: 2), now: 1_187_000_000)
        #expect(core.takeOutput().readStates == [ReadState(context: 2, index: 3)])
        core.step(.leaseRead(context: 3), now: 1_188_000_000)
        #expect(core.takeOutput().readStates == [ReadState(context: 3, index: nil)])
    }

    @Test("messages of strangers, of old terms, and those that no sound member sends change nothing")
    func badMessages() throws {
        var core = Self.core(entries: 5)
        let stranger = 9 as UInt64
        let before = { (core: RaftCore) -> [UInt64] in
            [core.term, core.commit, core.log.lastIndex, core.vote?.rawValue ?? 0]
        }
        Self.tell(&core, .append(.init(previousIndex: 5, previousTerm: 1, commit: 4, entries: [])), from: 2, term: 2)
        _ = core.takeOutput()
        let state = before(core)
        let answers: [Message.Body] = [
            .voteResponse(granted: true), .preVoteResponse(granted: true), .appendResponse(.accepted(match: 99)),
            .appendResponse(.rejected(4, hintIndex: 99, hintTerm: 9)), .heartbeatResponse(round: 1 << 61),
            .readIndex(context: 1), .readIndexResponse(context: 1, index: 99),
        ]
        for body in answers {
            for sender in [stranger, 3] {
                for term in [1, 2, 1 << 61] as [Term] where sender == stranger || term == 2 {
                    Self.tell(&core, body, from: sender, term: term)
                    #expect(before(core) == state, "\(body) of \(sender) in term \(term)")
                }
            }
        }
        // A candidate whose configuration this log lacks is heard, but not while there is a leader.
        Self.tell(&core, .vote(lastIndex: 99, lastTerm: 9), from: stranger, term: 3)
        Self.tell(&core, .preVote(lastIndex: 99, lastTerm: 9), from: stranger, term: 3)
        #expect(before(core) == state)
        // What is committed stays.
        let other = [EntryHeader(index: 3, term: 2, kind: .command, size: 10)]
        _ = core.takeOutput()
        Self.tell(&core, .append(.init(previousIndex: 2, previousTerm: 1, commit: 4, entries: other)), from: 2, term: 2)
        #expect(before(core) == state)
        #expect(core.takeOutput().offences.map(\.kind) == [.overwritesCommitted])
        // Nobody else leads in a leader's term.
        var leader = Self.core(entries: 1)
        leader.step(.tick, now: 1_000_000_000)
        Self.tell(&leader, .preVoteResponse(granted: true), from: 2, term: 2, at: 1_000_000_000)
        leader.step(.saved(write: try #require(leader.takeOutput().write).number), now: 1_000_000_000)
        Self.tell(&leader, .voteResponse(granted: true), from: 2, term: 2, at: 1_000_000_000)
        _ = leader.takeOutput()
        Self.tell(&leader, .heartbeat(commit: 99, round: 1), from: 3, term: 2, at: 1_000_000_000)
        #expect(leader.role == .leader)
        #expect(leader.takeOutput().offences.map(\.kind) == [.secondLeader])
    }

    @Test("a voter that hears its leader votes for nobody, in whatever term it is, unless the leader wants it")
    func heldVote() {
        var core = Self.core(entries: 2)
        Self.tell(&core, .heartbeat(commit: 0, round: 1), from: 2, term: 2, at: 1_000_000_000)
        // A late answer of another raises its term, and its leader is forgotten.
        Self.tell(&core, .preVoteResponse(granted: false), from: 3, term: 3, at: 1_010_000_000)
        #expect(core.term == 3 && core.leader == nil)
        Self.tell(&core, .vote(lastIndex: 9, lastTerm: 2), from: 3, term: 3, at: 1_020_000_000)
        #expect(core.vote == nil)
        Self.tell(&core, .vote(lastIndex: 9, lastTerm: 2, isTransfer: true), from: 3, term: 3, at: 1_030_000_000)
        #expect(core.vote == PeerID(3))
    }

    @Test("a voter that an uncommitted configuration lets go may still be elected: nobody else could")
    func halfRemoved() {
        let members = (1...4).map { Member(id: $0, peer: PeerID($0), address: "\($0)") }
        let (four, three) = (
            Configuration(clusterID: 1, members: members),
            Configuration(clusterID: 1, members: Array(members.dropLast()))
        )
        let log = LogView(
            compactedIndex: 0, compactedTerm: 0,
            entries: [EntryHeader(index: 1, term: 1, kind: .configuration, size: 100)],
            configurations: [
                IndexedConfiguration(index: 0, configuration: four),
                IndexedConfiguration(index: 1, configuration: three),
            ])
        var core = RaftCore(id: PeerID(4), hardState: HardState(term: 1), log: log, applied: 0, seed: 1, now: 0)
        core.step(.tick, now: 1_000_000_000)
        #expect(core.role == .preCandidate)
        // Once that is committed, it may not.
        var gone = RaftCore(
            id: PeerID(4), hardState: HardState(term: 1, vote: nil, commit: 1), log: log, applied: 0, seed: 1, now: 0)
        gone.step(.tick, now: 1_000_000_000)
        #expect(gone.role == .learner)
    }

    @Test("who votes anew must be level, and the last voter stays")
    func refusedChanges() throws {
        let members = (1...3).map { Member(id: $0, peer: PeerID($0), address: "\($0)", isLearner: $0 > 1) }
        let one = Configuration(clusterID: 1, members: members)
        #expect(throws: MembershipRefusal.lastVoter) { try one.applying([.remove(PeerID(1))]) }
        #expect(throws: MembershipRefusal.alreadyMember) {
            try one.applying([.addLearner(Member(id: 4, peer: PeerID(2), address: "4"))])
        }
        #expect(throws: MembershipRefusal.alreadyMember) { try one.applying([.setAddress(PeerID(2), "3")]) }
        #expect(throws: MembershipRefusal.unknownMember) { try one.applying([.promote(PeerID(9))]) }
        let log = LogView(
            compactedIndex: 0, compactedTerm: 0, entries: [],
            configurations: [IndexedConfiguration(index: 0, configuration: one)])
        var core = RaftCore(id: PeerID(1), hardState: HardState(), log: log, applied: 0, seed: 1, now: 0)
        core.step(.tick, now: 1_000_000_000)
        for _ in 0..<2 { core.step(.saved(write: try #require(core.takeOutput().write).number), now: 1_000_000_000) }
        #expect(core.role == .leader && core.commit == 1)
        #expect(core.membershipRefusal(of: [.promote(PeerID(2))]) == .notCaughtUp)
        #expect(core.membershipRefusal(of: [.remove(PeerID(1)), .promote(PeerID(2))]) == .removesLeader)
        #expect(core.membershipRefusal(of: [.setAddress(PeerID(2), "elsewhere")]) == nil)
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

    /// A follower or leader of three, whose log holds so many entries of term 1, all durable.
    private static func core(entries: UInt64, term: Term = 1) -> RaftCore {
        let members = (1...3).map { Member(id: $0, peer: PeerID($0), address: "") }
        let headers = stride(from: 1, through: entries, by: 1).map {
            EntryHeader(index: $0, term: 1, kind: .command, size: 10)
        }
        let log = LogView(
            compactedIndex: 0, compactedTerm: 0, entries: headers,
            configurations: [
                IndexedConfiguration(index: 0, configuration: Configuration(clusterID: 1, members: members))
            ])
        return RaftCore(id: PeerID(1), hardState: HardState(term: term), log: log, applied: 0, seed: 1, now: 0)
    }

    /// A core that has just won term 2 with the vote of 2, at 1,000 ms, and has its first entry on the disk.
    private static func leader(entries: UInt64) throws -> RaftCore {
        var core = core(entries: entries)
        core.step(.tick, now: 1_000_000_000)
        tell(&core, .preVoteResponse(granted: true), from: 2, term: 2, at: 1_000_000_000)
        core.step(.saved(write: try #require(core.takeOutput().write).number), now: 1_000_000_000)
        tell(&core, .voteResponse(granted: true), from: 2, term: 2, at: 1_000_000_000)
        #expect(core.role == .leader)
        core.step(.saved(write: try #require(core.takeOutput().write).number), now: 1_000_000_000)
        return core
    }

    private static func tell(
        _ core: inout RaftCore, _ body: Message.Body, from peer: UInt64, term: Term, at now: Nanoseconds = 1
    ) {
        core.step(.message(Message(from: PeerID(peer), to: PeerID(1), term: term, body: body)), now: now)
    }

    @Test("a heartbeat commits nothing that no append of the term confirmed")
    func heartbeatCommit() {
        var core = Self.core(entries: 5)
        Self.tell(&core, .heartbeat(commit: 5, round: 0), from: 2, term: 2)
        #expect(core.commit == 0)
        let probe = Message.Append(previousIndex: 3, previousTerm: 1, commit: 5, entries: [])
        Self.tell(&core, .append(probe), from: 2, term: 2)
        #expect(core.commit == 3)
        Self.tell(&core, .heartbeat(commit: 5, round: 0), from: 3, term: 3)
        #expect(core.commit == 3)
    }

    @Test("a peer that lost what it acknowledged gets nothing more, and no commit index")
    func regressedPeer() throws {
        var core = try Self.leader(entries: 5)
        for peer in [2, 3] as [UInt64] {
            Self.tell(&core, .appendResponse(.accepted(match: 6)), from: peer, term: 2, at: 1_000_000_000)
        }
        #expect(core.commit == 6)
        // Member 3 comes back from a copy that ended at 2.
        core.step(.unreachable(peer: PeerID(3)), now: 1_100_000_000)
        Self.tell(&core, .heartbeatResponse(round: 0), from: 3, term: 2, at: 1_150_000_000)
        _ = core.takeOutput()
        // The first refusal may be an old one; the one of the probe that follows is not.
        for _ in 0..<2 {
            Self.tell(
                &core, .appendResponse(.rejected(6, hintIndex: 2, hintTerm: 1)), from: 3, term: 2, at: 1_150_000_000)
        }
        _ = core.takeOutput()
        #expect(core.peers.first { $0.peer == PeerID(3) }?.state == .regressed)
        Self.tell(&core, .heartbeatResponse(round: 0), from: 2, term: 2, at: 1_150_000_000)
        core.step(.propose(sizes: [10]), now: 1_150_000_000)
        core.step(.tick, now: 1_200_000_000)
        let messages = core.takeOutput().messages.filter { $0.to == PeerID(3) }
        #expect(!messages.isEmpty)
        #expect(
            messages.allSatisfy { message in
                if case .heartbeat(let commit, _) = message.body { commit == 0 } else { false }
            })
    }

    @Test(
        "a peer that holds something else than it acknowledged is asked again now and then, and not as fast as it refuses"
    )
    func contraryPeer() throws {
        var core = try Self.leader(entries: 5)
        for peer in [2, 3] as [UInt64] {
            Self.tell(&core, .appendResponse(.accepted(match: 6)), from: peer, term: 2, at: 1_000_000_000)
        }
        core.step(.unreachable(peer: PeerID(3)), now: 1_100_000_000)
        Self.tell(&core, .heartbeatResponse(round: 0), from: 3, term: 2, at: 1_150_000_000)
        _ = core.takeOutput()
        func appends() -> Int {
            core.takeOutput().messages.count { message in
                if case .append = message.body { message.to == PeerID(3) } else { false }
            }
        }
        // Once it says that its log is shorter, and then that it is as long as it was, and another one.
        for hint in [2] + Array(repeating: 6, count: 50) as [Index] {
            Self.tell(
                &core, .appendResponse(.rejected(6, hintIndex: hint, hintTerm: 1)), from: 3, term: 2,
                at: 1_150_000_000)
        }
        #expect(appends() == 1)
        // Three seconds on, it is alive.
        for tenth in 12...42 as ClosedRange<UInt64> {
            for peer in [2, 3] as [UInt64] {
                Self.tell(&core, .heartbeatResponse(round: 0), from: peer, term: 2, at: tenth * 100_000_000)
            }
        }
        #expect((1...10).contains(appends()))
    }

    @Test("a read whose question to the leader was lost is refused within an election timeout")
    func lostReadIndex() {
        var core = Self.core(entries: 1)
        Self.tell(&core, .heartbeat(commit: 0, round: 0), from: 2, term: 2)
        core.step(.readIndex(context: 7), now: 2)
        #expect(core.takeOutput().readStates.isEmpty)
        Self.tell(&core, .heartbeat(commit: 0, round: 0), from: 2, term: 2, at: 250_000_000)
        core.step(.tick, now: 250_000_002)
        #expect(core.takeOutput().readStates == [ReadState(context: 7, index: nil)])
    }

    @Test("an append that begins before the log's start brings what follows it")
    func overlappingAppend() {
        var core = Self.core(entries: 5)
        let probe = Message.Append(previousIndex: 5, previousTerm: 1, commit: 5, entries: [])
        Self.tell(&core, .append(probe), from: 2, term: 2)
        core.step(.applied(5), now: 1)
        core.step(.compact(through: 4), now: 1)
        let entries = (3...7).map { EntryHeader(index: $0, term: $0 > 5 ? 2 : 1, kind: .command, size: 10) }
        Self.tell(
            &core, .append(Message.Append(previousIndex: 2, previousTerm: 1, commit: 5, entries: entries)), from: 2,
            term: 2)
        #expect(core.log.lastIndex == 7)
        #expect(core.log.compactedIndex == 4)
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
