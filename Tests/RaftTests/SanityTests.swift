import Testing

@testable import Raft

@Suite("What no sound member says")
struct SanityTests {
    /// A member of three in term 7, whose log holds three entries of term 5, all durable.
    private static func follower(id: UInt64 = 1, term: Term = 7) -> RaftCore {
        let log = LogView(
            compactedIndex: 0, compactedTerm: 0, entries: (1...3).map { header($0, term: 5) },
            configurations: [IndexedConfiguration(index: 1, configuration: three)])
        return RaftCore(id: PeerID(id), hardState: HardState(term: term), log: log, applied: 0, seed: 1, now: 0)
    }

    private static let three = configuration([1, 2, 3])

    private static func configuration(_ voters: [UInt64], _ outgoing: [UInt64] = [], cluster: UInt64 = 1)
        -> Configuration
    {
        Configuration(
            clusterID: cluster, members: voters.map { Member(id: $0, peer: PeerID($0), address: "\($0)") },
            outgoingVoters: outgoing.map { PeerID($0) })
    }

    private static func header(_ index: Index, term: Term, kind: EntryKind = .command) -> EntryHeader {
        EntryHeader(index: index, term: term, kind: kind, size: 10)
    }

    private static func append(
        after index: Index, term: Term, commit: Index = 0, entries: [EntryHeader] = [],
        configurations: [IndexedConfiguration] = []
    ) -> Message.Body {
        .append(
            .init(
                previousIndex: index, previousTerm: term, commit: commit, entries: entries,
                configurations: configurations))
    }

    private static func tell(_ core: inout RaftCore, _ body: Message.Body, from peer: UInt64 = 2, term: Term = 7)
        -> [Offence.Kind]
    {
        core.step(.message(Message(from: PeerID(peer), to: core.id, term: term, body: body)), now: core.now)
        return core.takeOutput().offences.map(\.kind)
    }

    private static let everyKind: [Message.Body] = [
        .preVote(lastIndex: 9, lastTerm: 5), .preVoteResponse(granted: true), .preVoteResponse(granted: false),
        .vote(lastIndex: 9, lastTerm: 5), .vote(lastIndex: 9, lastTerm: 5, isTransfer: true),
        .voteResponse(granted: true), append(after: 3, term: 5), .appendResponse(.accepted(match: 3)),
        .appendResponse(.rejected(3, hintIndex: 2, hintTerm: 5)), .heartbeat(commit: 1, round: 1),
        .heartbeatResponse(round: 1), .readIndex(context: 1), .readIndexResponse(context: 1, index: 1), .timeoutNow,
        .installSnapshot(SnapshotMetadata(index: 9, term: 5, configuration: three)),
    ]

    @Test("a term that leaps from the one on the disk is an offence in every kind of message, and changes nothing")
    func leap() {
        for body in Self.everyKind {
            for term in [7 + Limits.termLeapMax + 1, 1 << 61, .max] as [Term] {
                var core = Self.follower()
                #expect(Self.tell(&core, body, term: term) == [.leap], "\(body) in term \(term)")
                #expect(core.term == 7 && core.role == .follower && core.vote == nil && core.takeOutput().isEmpty)
            }
        }
        // What elections can explain is believed; so is any term by a member that has none.
        var core = Self.follower()
        #expect(Self.tell(&core, .heartbeat(commit: 0, round: 1), term: 7 + Limits.termLeapMax).isEmpty)
        #expect(core.term == 7 + Limits.termLeapMax)
        // The next step counts from the disk, which does not have that term yet.
        #expect(Self.tell(&core, .heartbeat(commit: 0, round: 1), term: 8 + Limits.termLeapMax) == [.leap])
        core.step(.saved(write: 1), now: core.now)
        #expect(Self.tell(&core, .heartbeat(commit: 0, round: 1), term: 8 + Limits.termLeapMax).isEmpty)
    }

    @Test("many terms are taken in at once, and then no more of them for a while, so that nobody is left behind")
    func steps() {
        var core = Self.follower()
        let first = 7 + Limits.termLeapMax
        #expect(Self.tell(&core, .heartbeat(commit: 0, round: 1), term: first).isEmpty)
        core.step(.saved(write: 1), now: core.now)
        #expect(Self.tell(&core, .heartbeat(commit: 0, round: 1), term: first + Limits.termLeapMax) == [.leap])
        // Elections go on.
        #expect(Self.tell(&core, .heartbeat(commit: 0, round: 1), term: first + Limits.termStepMax).isEmpty)
        _ = core.takeOutput()
        core.step(.saved(write: 2), now: core.now + Limits.termStepPause)
        #expect(Self.tell(&core, .heartbeat(commit: 0, round: 1), term: first + Limits.termLeapMax).isEmpty)
        #expect(core.term == first + Limits.termLeapMax)
    }

    @Test(
        "a snapshot leaves revisions to whoever has a log, and a leader that ends before what is committed contradicts it"
    )
    func snapshotAhead() {
        for index in [Limits.snapshotIndexMax + 1, Limits.indexMax] {
            var core = Self.follower()
            let snapshot = SnapshotMetadata(index: index, term: 5, configuration: Self.three)
            #expect(Self.tell(&core, .installSnapshot(snapshot)) == [.impossibleNumber])
        }
        var core = Self.follower()
        let snapshot = SnapshotMetadata(index: Limits.snapshotIndexMax, term: 5, configuration: Self.three)
        #expect(Self.tell(&core, .installSnapshot(snapshot)).isEmpty)
        #expect(core.commit == Limits.snapshotIndexMax && core.contradictedFrom == nil)
        // The next leader's log ends elsewhere.
        #expect(Self.tell(&core, Self.append(after: 3, term: 5), from: 3, term: 8).isEmpty)
        #expect(core.contradictedFrom == Limits.snapshotIndexMax)
        #expect(Self.tell(&core, Self.append(after: 4, term: 5), from: 3, term: 8).isEmpty)
        #expect(core.contradictedFrom == Limits.snapshotIndexMax)
        let sound = Self.append(after: Limits.snapshotIndexMax, term: 5)
        #expect(Self.tell(&core, sound, from: 3, term: 8).isEmpty)
        #expect(core.contradictedFrom == nil)
    }

    @Test("a member without a term has none to leap from, but a term has an end")
    func firstTerm() {
        let log = LogView(
            compactedIndex: 0, compactedTerm: 0, entries: [],
            configurations: [IndexedConfiguration(index: 0, configuration: Self.three)])
        var core = RaftCore(id: PeerID(1), hardState: HardState(), log: log, applied: 0, seed: 1, now: 0)
        #expect(Self.tell(&core, .heartbeat(commit: 0, round: 1), term: Limits.termMax + 1) == [.leap])
        #expect(Self.tell(&core, .heartbeat(commit: 0, round: 1), term: 1 << 40).isEmpty)
        #expect(core.term == 1 << 40)
    }

    @Test("numbers that contradict each other are an offence")
    func impossibleNumbers() {
        let far = Limits.indexMax + 1
        let bodies: [Message.Body] = [
            .vote(lastIndex: 9, lastTerm: 7), .preVote(lastIndex: 9, lastTerm: 9), .vote(lastIndex: far, lastTerm: 1),
            Self.append(after: 3, term: 8), Self.append(after: far, term: 5),
            Self.append(after: 3, term: 5, commit: far),
            Self.append(after: 3, term: 5, entries: [Self.header(5, term: 7)]),
            Self.append(after: 3, term: 5, entries: [Self.header(4, term: 4)]),
            Self.append(after: 3, term: 5, entries: [Self.header(4, term: 8)]),
            Self.append(after: 3, term: 5, entries: [Self.header(4, term: 7), Self.header(5, term: 6)]),
            Self.append(after: Limits.indexMax, term: 5, entries: [Self.header(far, term: 7)]),
            .appendResponse(.accepted(match: far)), .appendResponse(.rejected(2, hintIndex: 3, hintTerm: 5)),
            .appendResponse(.rejected(3, hintIndex: 3, hintTerm: 8)), .heartbeat(commit: far, round: 1),
            .readIndexResponse(context: 1, index: far),
            .installSnapshot(SnapshotMetadata(index: far, term: 5, configuration: Self.three)),
            .installSnapshot(SnapshotMetadata(index: 9, term: 8, configuration: Self.three)),
        ]
        for body in bodies {
            var core = Self.follower()
            #expect(Self.tell(&core, body) == [.impossibleNumber], "\(body)")
            #expect(core.log.lastIndex == 3 && core.commit == 0)
        }
        var core = Self.follower()
        #expect(Self.tell(&core, .heartbeat(commit: 0, round: 1), from: 1) == [.ownName])
    }

    @Test("a second leader of a term is an offence, and what the first confirmed falls with a truncation")
    func twoLeaders() {
        var core = Self.follower()
        let long = (4...9).map { Self.header($0, term: 7) }
        #expect(Self.tell(&core, Self.append(after: 3, term: 5, entries: long)).isEmpty)
        #expect(core.confirmedIndex == 9)
        let short = Self.append(after: 3, term: 5, entries: [Self.header(4, term: 6)])
        #expect(Self.tell(&core, short, from: 3) == [.secondLeader])
        #expect(core.log.lastIndex == 9)
        // The first was silent for so long that this member asks for votes: another may have won them, it believes.
        core.step(.tick, now: 10_000_000_000)
        #expect(core.role == .preCandidate)
        #expect(Self.tell(&core, short, from: 3).isEmpty)
        #expect(core.log.lastIndex == 4 && core.confirmedIndex == 4)
        #expect(Self.tell(&core, .heartbeat(commit: 9, round: 1), from: 3).isEmpty)
        #expect(core.commit == 4)
        // A truncation by the same leader, which no sound one makes, lowers it as well.
        core = Self.follower()
        _ = Self.tell(&core, Self.append(after: 3, term: 5, entries: long))
        _ = Self.tell(&core, short)
        _ = Self.tell(&core, .heartbeat(commit: 9, round: 1))
        #expect(core.log.lastIndex == 4 && core.commit == 4)
    }

    @Test("a configuration follows from the one before, by one change or a joint one")
    func configurations() {
        func isTaken(_ configurations: [Configuration]) -> Bool {
            var core = Self.follower()
            let indexes = (0..<configurations.count).map { UInt64(4 + $0) }
            let offences = Self.tell(
                &core,
                Self.append(
                    after: 3, term: 5, entries: indexes.map { Self.header($0, term: 7, kind: .configuration) },
                    configurations: zip(indexes, configurations).map {
                        IndexedConfiguration(index: $0, configuration: $1)
                    }
                ))
            #expect(offences == (core.log.lastIndex == 3 ? [.unrelatedConfiguration] : []))
            return core.log.lastIndex > 3
        }
        #expect(isTaken([Self.three]))
        #expect(isTaken([Self.configuration([1, 2])]))
        #expect(isTaken([Self.configuration([1, 2, 3, 4]), Self.configuration([1, 2, 4])]))
        #expect(isTaken([Self.configuration([3, 4, 5], [1, 2, 3]), Self.configuration([3, 4, 5])]))
        #expect(!isTaken([Self.configuration([1])]))
        #expect(!isTaken([Self.configuration([4, 5, 6])]))
        #expect(!isTaken([Self.configuration([1, 2, 4])]))
        #expect(!isTaken([Self.configuration([3, 4, 5], [1, 2])]))
        #expect(!isTaken([Self.configuration([3, 4, 5], [1, 2, 3]), Self.configuration([3, 4])]))
        #expect(!isTaken([Self.configuration([1, 2]), Self.configuration([2]), Self.configuration([2, 9, 8])]))
        #expect(!isTaken([Self.configuration([])]))
        #expect(!isTaken([Self.configuration([1, 1, 2, 3])]))
        #expect(!isTaken([Self.configuration([1, 2], [], cluster: 2)]))
        #expect(!isTaken([Self.configuration(Array(1...65))]))
    }

    @Test("a configuration without its entry, or an entry without its configuration, is an offence")
    func configurationEntries() {
        var core = Self.follower()
        let alone = Self.append(after: 3, term: 5, entries: [Self.header(4, term: 7, kind: .configuration)])
        #expect(Self.tell(&core, alone) == [.unrelatedConfiguration])
        let unnamed = Self.append(
            after: 3, term: 5, entries: [Self.header(4, term: 7)],
            configurations: [IndexedConfiguration(index: 4, configuration: Self.three)])
        #expect(Self.tell(&core, unnamed) == [.unrelatedConfiguration])
        #expect(core.log.lastIndex == 3)
    }

    @Test(
        "a newcomer's log tells a past that its own first configuration does not follow from, and ends with a recovery")
    func newcomersPast() {
        let present = Self.configuration([3, 4], [], cluster: 2)
        let log = LogView(
            compactedIndex: 0, compactedTerm: 0, entries: [],
            configurations: [IndexedConfiguration(index: 0, configuration: present)])
        var core = RaftCore(id: PeerID(4), hardState: HardState(), log: log, applied: 0, seed: 1, now: 0)
        let past = [
            Self.three, Self.configuration([3], [], cluster: 2), Self.configuration([3, 4], [], cluster: 2),
        ]
        let offences = Self.tell(
            &core,
            Self.append(
                after: 0, term: 0, entries: (1...3).map { Self.header($0, term: 1, kind: .configuration) },
                configurations: past.enumerated().map { IndexedConfiguration(index: UInt64($0 + 1), configuration: $1) }
            ),
            from: 3, term: 1)
        #expect(offences.isEmpty)
        #expect(core.log.lastIndex == 3 && core.configuration == present)
    }

    @Test("only the leader that this member hears tells it to campaign, and not time and again")
    func timeoutNow() {
        var core = Self.follower()
        #expect(Self.tell(&core, .timeoutNow, term: 8) == [.unexpectedHandOver])
        #expect(Self.tell(&core, .timeoutNow).isEmpty)
        #expect(core.term == 7 && core.role == .follower)
        _ = Self.tell(&core, .heartbeat(commit: 0, round: 1))
        #expect(Self.tell(&core, .timeoutNow, from: 3) == [.secondLeader])
        #expect(core.role == .follower)
        var offences: [Offence.Kind] = []
        for _ in 0..<20 where offences.isEmpty {
            _ = Self.tell(&core, .heartbeat(commit: 0, round: 1), term: core.term)
            offences = Self.tell(&core, .timeoutNow, term: core.term)
        }
        #expect(offences == [.tooOften] && core.term < 20)
    }

    /// A leader of term 8 with the vote of 2, whose log of four entries is durable here and, if `isLevel`, at its peers.
    private static func leader(isLevel: Bool = true) throws -> RaftCore {
        var core = follower()
        core.step(.tick, now: 1_000_000_000)
        _ = tell(&core, .preVoteResponse(granted: true), term: 8)
        core.step(.saved(write: core.lastWrite), now: core.now)
        _ = tell(&core, .voteResponse(granted: true), term: 8)
        try #require(core.role == .leader)
        core.step(.saved(write: core.lastWrite), now: core.now)
        _ = core.takeOutput()
        for peer in [2, 3] as [UInt64] where isLevel {
            #expect(tell(&core, .appendResponse(.accepted(match: 4)), from: peer, term: 8).isEmpty)
        }
        return core
    }

    @Test("who led a term and stepped down follows nobody in it")
    func formerLeader() throws {
        var core = try Self.leader()
        core.step(.tick, now: core.now + 1_000_000_000)
        try #require(core.role == .follower && core.term == 8 && core.leader == nil)
        let forged = Self.append(after: 4, term: 8, commit: 4, entries: [Self.header(5, term: 8)])
        for body in [forged, .heartbeat(commit: 4, round: 1), .timeoutNow] {
            #expect(Self.tell(&core, body, term: 8) == [.secondLeader], "\(body)")
        }
        #expect(core.log.lastIndex == 4 && core.leader == nil && core.term == 8)
        // Of the next term another may be.
        #expect(Self.tell(&core, .heartbeat(commit: 4, round: 1), term: 9).isEmpty)
        #expect(core.leader == PeerID(2))
    }

    @Test("a leader that contradicts what is committed is answered, and keeps nobody from electing another")
    func contradiction() throws {
        var core = Self.follower()
        #expect(Self.tell(&core, Self.append(after: 3, term: 5, commit: 3)).isEmpty)
        let forged = Self.append(after: 1, term: 5, commit: 3, entries: [Self.header(2, term: 6)])
        #expect(Self.tell(&core, forged) == [.overwritesCommitted])
        #expect(core.contradictedFrom == 2 && core.log.lastIndex == 3 && core.log.term(at: 2) == 5)
        let deadline = core.electionDeadline
        core.step(.tick, now: deadline - 1)
        core.step(
            .message(Message(from: PeerID(2), to: core.id, term: 7, body: .heartbeat(commit: 3, round: 9))),
            now: core.now)
        #expect(core.takeOutput().messages.contains { $0.body == .heartbeatResponse(round: 9) })
        #expect(core.electionDeadline == deadline && core.leader == PeerID(2))
        core.step(.tick, now: deadline)
        #expect(core.role == .preCandidate)
        // What shows that the two agree ends it: the contradiction was another's.
        _ = core.takeOutput()
        #expect(Self.tell(&core, Self.append(after: 3, term: 5, commit: 3)).isEmpty)
        #expect(core.contradictedFrom == nil && core.role == .follower && core.electionDeadline > deadline)
    }

    @Test("who contradicts a snapshot of the leader's says so, and acknowledges no more than the leader has shown")
    func contradictedSnapshot() throws {
        var core = Self.follower()
        #expect(Self.tell(&core, Self.append(after: 3, term: 5, commit: 3)).isEmpty)
        let at = { (index: Index, term: Term) in
            Message.Body.installSnapshot(SnapshotMetadata(index: index, term: term, configuration: Self.three))
        }
        // Another leader of the next term has shown nothing yet.
        core.step(.message(Message(from: PeerID(3), to: core.id, term: 8, body: at(2, 5))), now: core.now)
        let answers = core.takeOutput().messagesAfterWrite.map(\.message.body)
        #expect(answers == [.appendResponse(.accepted(match: 2))])
        #expect(Self.tell(&core, at(2, 6), from: 3, term: 8) == [.overwritesCommitted])
        #expect(core.contradictedFrom == 2)
    }

    @Test("a leader shows a peer that asks for votes where it stands")
    func askedByPreVote() throws {
        var core = try Self.leader()
        core.step(
            .message(
                Message(from: PeerID(2), to: core.id, term: 9, body: .preVote(lastIndex: 4, lastTerm: 8))),
            now: core.now)
        let bodies = core.takeOutput().messages.map(\.body)
        #expect(bodies.contains(.preVoteResponse(granted: false)))
        #expect(bodies.contains(Self.append(after: 4, term: 8, commit: 4)))
    }

    @Test("a leader believes no acknowledgement of what it never sent")
    func unsentAnswers() throws {
        var core = try Self.leader()
        #expect(core.commit == 4)
        let answers: [Message.Body] = [
            .appendResponse(.accepted(match: 5)), .appendResponse(.accepted(match: Limits.indexMax)),
            .appendResponse(.rejected(5, hintIndex: 4, hintTerm: 8)), .heartbeatResponse(round: core.lastRound + 1),
        ]
        for body in answers {
            #expect(Self.tell(&core, body, term: 8) == [.answersUnsent], "\(body)")
            #expect(core.commit == 4 && core.peers.allSatisfy { $0.match == 4 && $0.state == .replicate })
        }
    }

    @Test("a leader answers no flood of read-index questions")
    func readIndexFlood() throws {
        var core = try Self.leader()
        var offences = 0
        for context in 0..<30_000 as Range<UInt64> {
            offences += Self.tell(&core, .readIndex(context: context), term: 8).count
        }
        #expect(offences == 10_000)
        // Another peer is not punished for it, and time makes good.
        #expect(Self.tell(&core, .readIndex(context: 1), from: 3, term: 8).isEmpty)
        core.step(.tick, now: core.now + 10_000_000)
        #expect(Self.tell(&core, .readIndex(context: 2), term: 8).isEmpty)
    }

    @Test("a late notice of this term is no answer to a probe")
    func lateNotice() throws {
        var core = try Self.leader(isLevel: false)
        #expect(Self.tell(&core, .appendResponse(.accepted(match: 0)), term: 8).isEmpty)
        let peer = try #require(core.peers.first { $0.peer == PeerID(2) })
        #expect(peer.state == .probe && peer.next == 4)
        #expect(Self.tell(&core, .appendResponse(.accepted(match: 4)), term: 8).isEmpty)
        #expect(core.peers.first { $0.peer == PeerID(2) }?.state == .replicate)
        #expect(core.commit == 4)
    }

    @Test("of two snapshots in one turn, the second keeps no tail that the first gave up")
    func twoSnapshots() throws {
        var core = Self.follower()
        let first = SnapshotMetadata(index: 10, term: 6, configuration: Self.three)
        #expect(Self.tellQuietly(&core, .installSnapshot(first)))
        let entries = (11...15).map { Self.header($0, term: 7) }
        #expect(Self.tellQuietly(&core, Self.append(after: 10, term: 6, entries: entries)))
        let second = SnapshotMetadata(index: 12, term: 7, configuration: Self.three)
        #expect(Self.tellQuietly(&core, .installSnapshot(second)))
        let write = try #require(core.takeOutput().write)
        #expect(write.snapshot == second && !write.keepsTail)
        // What followed the first in this turn is not on the disk yet.
        #expect(write.entries == 13..<16)
    }

    private static func tellQuietly(_ core: inout RaftCore, _ body: Message.Body) -> Bool {
        core.step(.message(Message(from: PeerID(2), to: core.id, term: 7, body: body)), now: core.now)
        return core.log.lastIndex >= 10
    }

    @Test("bytes under way stay within their limit, however often the connection breaks, until the peer has answered")
    func bytesInFlight() throws {
        var core = try Self.leader()
        var sent = 0
        var time = core.now
        for round in 0..<40 {
            time += 20_000_000
            core.step(.unreachable(peer: PeerID(2)), now: time)
            if core.proposalRefusal() == nil { core.step(.propose(sizes: [1 << 20]), now: time) }
            for peer in [2, 3] as [UInt64] {
                let answer = Message.Body.heartbeatResponse(round: core.lastRound)
                core.step(.message(Message(from: PeerID(peer), to: core.id, term: 8, body: answer)), now: time)
            }
            for message in core.takeOutput().messages where message.to == PeerID(2) {
                if case .append(let append) = message.body { sent += append.entries.reduce(0) { $0 + Int($1.size) } }
            }
            #expect(sent <= core.limits.bytesInFlightMax + core.limits.messageBytesMax, "round \(round)")
        }
    }

    @Test("a leader whose own write is late hands over to a voter whose disk works, and waits longer each time")
    func stalledDisk() throws {
        var core = try Self.leader()
        core.step(.propose(sizes: [10]), now: core.now)
        _ = core.takeOutput()
        let began = core.now
        func pass(to time: Nanoseconds, acknowledged: Index) -> [PeerID] {
            var told: [PeerID] = []
            while core.now < time {
                core.step(.tick, now: core.now + 50_000_000)
                for peer in [2, 3] as [UInt64] {
                    for body in [
                        Message.Body.heartbeatResponse(round: core.lastRound),
                        .appendResponse(.accepted(match: acknowledged)),
                    ] {
                        core.step(
                            .message(Message(from: PeerID(peer), to: core.id, term: 8, body: body)), now: core.now)
                    }
                }
                told += core.takeOutput().messages.filter { $0.body == .timeoutNow }.map(\.to)
            }
            return told
        }
        // Nobody's disk works: it stays.
        #expect(pass(to: began + 5_000_000_000, acknowledged: 4).isEmpty)
        #expect(core.commit == 4 && core.role == .leader)
        // Others have it on their disks. Each further hand-over, after one that failed, waits twice as long.
        let first = core.now
        #expect(pass(to: first + 100_000_000, acknowledged: 5).count == 1)
        #expect(core.disk.handOvers == 1 && core.commit == 5)
        #expect(pass(to: first + 30_000_000_000, acknowledged: 5).count >= 3)
        #expect(core.disk.handOvers <= 5)
        // A write that is quick clears it.
        core.step(.saved(write: core.lastWrite), now: core.now)
        core.step(.propose(sizes: [10]), now: core.now)
        _ = core.takeOutput()
        core.step(.saved(write: core.lastWrite), now: core.now)
        #expect(!core.isDiskDoubtful)
    }

    @Test("a member that gave way for its disk campaigns later than others would, and not never")
    func laterCampaign() {
        var pace = DiskPace()
        let limits = Limits()
        #expect(pace.patience(at: 1, limits) == limits.writeLateAfter)
        pace.gaveWay(at: 1)
        #expect(pace.isDoubtful && pace.patience(at: 2, limits) == 2 * limits.writeLateAfter)
        pace.completed(in: limits.writeQuickWithin, limits)
        #expect(pace.isDoubtful)
        pace.completed(in: limits.writeQuickWithin - 1, limits)
        #expect(!pace.isDoubtful)
        pace.gaveWay(at: 3)
        #expect(pace.patience(at: 4, limits) == 4 * limits.writeLateAfter)
        #expect(pace.patience(at: 700_000_000_000, limits) == limits.writeLateAfter)
        var core = Self.follower()
        core.disk.gaveWay(at: 1)
        core.resetElectionTimer()
        let timeout = core.limits.electionTimeout
        core.step(.tick, now: 2 * timeout)
        #expect(core.role == .follower)
        core.step(.tick, now: 4 * timeout + 1)
        #expect(core.role == .preCandidate)
    }
}
