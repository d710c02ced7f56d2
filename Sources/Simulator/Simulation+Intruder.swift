import FileTree
import NIOCore
import Raft
import WireProtocol

/// The intruder's doings in a run.
extension Simulation {
    /// The largest step of a term that a sound cluster could take.
    private static let saneGap: Term = 1 << 24

    func intrude() throws {
        guard !isCalm, let pace = intruder?.pace else { return }
        let able = members.indices.filter { members[$0].isRunning && pausedUntil[$0] <= time }
        let target = intruder?.one(of: Array(able))
        schedule(.intrude, in: intruder?.number(0...pace * 2) ?? pace)
        guard let target, let core = members[target].core, var intruder else { return }
        let forged = intruder.kind == .insane ? insanity(core, &intruder) : mutation(core, &intruder)
        self.intruder = intruder
        guard let forged else { return }
        try take(forged, at: target)
        try checkBounds()
    }

    private func take(_ forged: ForgedFrame, at member: Int) throws {
        guard let core = members[member].core else { return }
        let verdict = Border.look(
            at: forged, member: core.id, cluster: configuration.clusterID, term: core.term)
        switch verdict {
        case .refused(let reason): refused(forged, reason, by: member)
        case .goodbye(let goodbye):
            trace("intruder > \(member + 1)  goodbye \(goodbye.code.rawValue)")
            report.intrusions.through[forged.what, default: 0] += 1
            members[member].hear(goodbye)
            // The connection is closed, and opened again after a pause.
            disconnect(member, position(of: forged.sender), for: Self.goodbyePause)
        case .message(let envelope):
            let before = (role: members[member].role, term: members[member].term)
            trace(
                "intruder as \(envelope.message.from) > \(member + 1)  \(envelope.message.term)  "
                    + envelope.message.body.summary)
            var requests = try members[member].receive(envelope, now: clock(of: member), &invariants)
            if let offence = requests.offences.first {
                refused(forged, offence.kind.rawValue, by: member)
            } else {
                report.intrusions.through[forged.what, default: 0] += 1
            }
            requests.offences = []
            try noteRole(of: member, before)
            try perform(member, requests)
        }
    }

    private static let goodbyePause: Nanoseconds = 300_000_000

    private func refused(_ forged: ForgedFrame, _ reason: String, by member: Int) {
        trace("\(member + 1) refuses \(forged.what): \(reason)")
        report.intrusions.refused[reason, default: 0] += 1
    }

    private func disconnect(_ member: Int, _ other: Int, for length: Nanoseconds) {
        guard members.indices.contains(other), other != member else { return }
        isCut[member][other] = true
        isCut[other][member] = true
        schedule(.heal(from: member, to: other), in: length)
        schedule(.heal(from: other, to: member), in: length)
    }

    /// Whatever is said, what is held for it has a bound.
    private func checkBounds() throws {
        for member in members {
            if let exceeded = member.exceededBound {
                throw Invariants.Violation(
                    invariant: "memory is bounded", detail: "member \(member.position + 1): \(exceeded)")
            }
        }
        if eventsWaiting > 100_000 {
            throw Invariants.Violation(invariant: "what happens ends", detail: "\(eventsWaiting) events wait")
        }
    }

    // MARK: what no sound cluster could have sent

    private enum Insanity: String, CaseIterable {
        case leap = "a leapt term"
        case acknowledgement = "an acknowledgement beyond the log"
        case refusal = "a refusal of what was never sent"
        case secondLeader = "a second leader"
        case overwriting = "an entry over what is committed"
        case configuration = "a configuration that does not follow"
        case operation = "an unknown operation"
        case form = "a broken frame"
        case stranger = "an answer of a stranger"
        case name = "another name than the connection's"
        case answer = "an answer to nothing"
        case goodbye = "a goodbye"
    }

    private func insanity(_ core: RaftCore, _ intruder: inout Intruder) -> ForgedFrame? {
        guard let kind = intruder.one(of: Insanity.allCases),
            let other = intruder.one(of: core.configuration.peers.filter { $0 != core.id })
        else { return nil }
        let what = kind.rawValue
        func message(_ body: Message.Body, from: PeerID? = nil, term: Term? = nil) -> Message {
            Message(from: from ?? other, to: core.id, term: term ?? core.term, body: body)
        }
        switch kind {
        case .leap:
            // A member that has no term on its disk yet has none to leap from.
            guard members[position(of: core.id)].disk.hardState.term > 0 else { return nil }
            let term = core.term + Self.saneGap + intruder.number(1...1 << intruder.number(1...60))
            if intruder.chance(8), let leader, let snapshot = try? members[leader].snapshot(for: core.id) {
                var snapshot = snapshot
                (snapshot.message.from, snapshot.message.term) = (other, term)
                return ForgedFrame(what, snapshot: snapshot)
            }
            let (body, entries) = anyBody(core, term: term, &intruder)
            return ForgedFrame(what, message(body, term: term), entries)
        case .acknowledgement:
            guard core.role == .leader else { return nil }
            let match = core.log.lastIndex + intruder.number(1...1 << intruder.number(1...61))
            return ForgedFrame(what, message(.appendResponse(.accepted(match: match))))
        case .refusal:
            guard core.role == .leader else { return nil }
            let index = core.log.lastIndex + intruder.number(1...1 << intruder.number(1...61))
            return ForgedFrame(
                what,
                message(
                    .appendResponse(.rejected(index, hintIndex: intruder.number(0...index), hintTerm: core.term))))
        case .secondLeader:
            guard let leader = core.leader,
                let other = intruder.one(of: core.configuration.peers.filter { $0 != core.id && $0 != leader })
            else { return nil }
            let last = core.log.lastIndex
            let entry = SimulatedEntry(
                header: EntryHeader(index: last + 1, term: core.term, kind: .noOperation, size: 28),
                payload: ByteBuffer())
            let bodies: [Message.Body] = [
                .heartbeat(commit: last, round: intruder.number(0...100_000)), .timeoutNow,
                .append(
                    Message.Append(
                        previousIndex: last, previousTerm: core.log.lastTerm, commit: last, entries: [entry.header])),
            ]
            guard let body = intruder.one(of: bodies) else { return nil }
            if case .append = body { return ForgedFrame(what, message(body, from: other), [entry]) }
            return ForgedFrame(what, message(body, from: other))
        case .overwriting:
            guard core.commit > core.log.compactedIndex else { return nil }
            return overwriting(core.log.compactedIndex + 1...core.commit, of: core, what, &intruder)
        case .configuration:
            // A newcomer takes its cluster's past from whoever leads: it has none to compare with.
            guard let leader = core.leader, leader != core.id, core.log.lastIndex > 0 else { return nil }
            let configuration = unrelated(to: core.configuration, &intruder)
            let payload = SimulatedEntry.payload(configuration)
            return appending(
                what, core, from: leader, kind: .configuration, payload, commits: intruder.chance(2), configuration)
        case .operation:
            guard let leader = core.leader, leader != core.id else { return nil }
            var command = ByteBuffer()
            command.writeMultipleIntegers(UInt16(1), UInt8(intruder.number(100...255)))
            command.writeRepeatingByte(0, count: intruder.chance(4) ? 10 : 45)
            return appending(what, core, from: leader, kind: .command, command, commits: intruder.chance(2))
        case .form: return ForgedFrame(what, sender: other, bytes: broken(core, from: other, &intruder))
        case .stranger:
            let stranger = PeerID(intruder.number(1 << 32...UInt64.max))
            return ForgedFrame(what, message(.appendResponse(.accepted(match: core.log.lastIndex)), from: stranger))
        case .name:
            let (body, entries) = anyBody(core, term: core.term, &intruder)
            var forged = ForgedFrame(what, message(body), entries)
            forged.sender = PeerID(other.rawValue + 100)
            return forged
        case .answer:
            let bodies: [Message.Body] = [
                .heartbeatResponse(round: core.lastRound + intruder.number(1...1 << 40)),
                .readIndexResponse(context: intruder.number(0...UInt64.max), index: core.commit),
            ]
            guard let body = intruder.one(of: bodies) else { return nil }
            return ForgedFrame(what, message(body))
        case .goodbye:
            var bytes = ByteBuffer()
            guard let code = Goodbye.Code(rawValue: UInt16(intruder.number(1...7))) else { return nil }
            Goodbye(code, "go away\n").write(to: &bytes)
            return ForgedFrame(what, sender: other, bytes: bytes)
        }
    }

    /// An append of one entry behind all that the member has, in its leader's name.
    private func appending(
        _ what: String, _ core: RaftCore, from leader: PeerID, kind: EntryKind, _ payload: ByteBuffer, commits: Bool,
        _ configuration: Configuration? = nil
    ) -> ForgedFrame {
        let last = core.log.lastIndex
        let entry = SimulatedEntry(
            header: EntryHeader(index: last + 1, term: core.term, kind: kind, size: UInt32(28 + payload.readableBytes)),
            payload: payload, configuration: configuration)
        let append = Message.Append(
            previousIndex: last, previousTerm: core.log.lastTerm, commit: commits ? last + 1 : core.commit,
            entries: [entry.header])
        return ForgedFrame(what, Message(from: leader, to: core.id, term: core.term, body: .append(append)), [entry])
    }

    /// In the leader's name, an append of another entry than the one that stands at an index of `range`.
    private func overwriting(
        _ range: ClosedRange<Index>, of core: RaftCore, _ what: String, _ intruder: inout Intruder
    ) -> ForgedFrame? {
        guard let leader = core.leader, leader != core.id else { return nil }
        let index = intruder.number(range)
        guard let term = core.log.term(at: index), let previous = core.log.term(at: index - 1) else { return nil }
        // Another term than its own that could stand there.
        let other = term < core.term ? core.term : previous
        guard other != term else { return nil }
        let entry = SimulatedEntry(
            header: EntryHeader(index: index, term: other, kind: .noOperation, size: 28), payload: ByteBuffer())
        let append = Message.Append(
            previousIndex: index - 1, previousTerm: previous, commit: core.commit, entries: [entry.header])
        return ForgedFrame(what, Message(from: leader, to: core.id, term: core.term, body: .append(append)), [entry])
    }

    /// More than one change, and not joint; or joint with others than the voters; or members from nowhere.
    private func unrelated(to old: Configuration, _ intruder: inout Intruder) -> Configuration {
        let strangers = (0..<3 as Range<UInt64>).map {
            Member(id: 900 + $0, peer: PeerID(1 << 40 + $0), address: "\($0)")
        }
        let members: [Member]
        var outgoing: [PeerID] = []
        switch intruder.number(0...3) {
        case 0: members = strangers
        case 1: members = old.members.filter { !old.voters.contains($0.peer) } + strangers.prefix(1)
        case 2:
            members = old.members + strangers
            outgoing = old.isJoint ? [] : Array(old.voters.dropFirst())
        default:
            members = old.members + strangers.prefix(2)
            outgoing = [strangers[2].peer]
        }
        return Configuration(clusterID: old.clusterID, members: members, outgoingVoters: outgoing)
    }

    private func broken(_ core: RaftCore, from peer: PeerID, _ intruder: inout Intruder) -> ByteBuffer {
        let term = core.term
        func entry(_ index: Index, _ term: Term) -> SimulatedEntry {
            SimulatedEntry(
                header: EntryHeader(index: index, term: term, kind: .noOperation, size: 28), payload: ByteBuffer())
        }
        func frame(_ entries: [SimulatedEntry], term: Term = term) -> ByteBuffer {
            let append = Message.Append(
                previousIndex: 5, previousTerm: 1, commit: 5, entries: entries.map(\.header))
            return ForgedFrame.encode(Message(from: peer, to: core.id, term: term, body: .append(append)), entries)
        }
        var bytes = frame([entry(6, max(1, term))])
        switch intruder.number(0...11) {
        case 0: bytes.setInteger(UInt8(200), at: 4)
        case 1: bytes.setInteger(UInt8(99), at: 48)
        case 2: bytes.setInteger(UInt8(1), at: 5)
        case 3: bytes.setInteger(UInt32(3), at: 0)
        case 4: bytes.setInteger(UInt32.max, at: 0)
        // Of the record, which begins at 73, the kind and the checksum.
        case 5: bytes.setInteger(UInt8(7), at: 75)
        case 6: bytes.setInteger(UInt32(intruder.number(0...UInt64(UInt32.max))), at: 97)
        case 7: return frame([entry(7, max(1, term))])
        case 8: return frame([entry(6, max(1, term)), entry(7, 0)])
        case 9: return frame([entry(6, term + 1)])
        case 10: return frame([], term: 1 << 63)
        default: bytes.setInteger(UInt32(bytes.readableBytes), at: 0)
        }
        return bytes
    }

    /// A message of any kind, with numbers near to a member's own.
    private func anyBody(
        _ core: RaftCore, term: Term, _ intruder: inout Intruder
    ) -> (Message.Body, [SimulatedEntry]) {
        let last = core.log.lastIndex
        let index = intruder.number(0...last + 3)
        switch intruder.number(0...12) {
        case 0: return (.preVote(lastIndex: last, lastTerm: term), [])
        case 1: return (.preVoteResponse(granted: intruder.chance(2)), [])
        case 2: return (.vote(lastIndex: last, lastTerm: term, isTransfer: intruder.chance(2)), [])
        case 3: return (.voteResponse(granted: intruder.chance(2)), [])
        case 4: return (.appendResponse(.accepted(match: index)), [])
        case 5: return (.appendResponse(.rejected(index, hintIndex: index / 2, hintTerm: core.log.lastTerm)), [])
        case 6: return (.heartbeat(commit: index, round: index), [])
        case 7: return (.heartbeatResponse(round: core.lastRound), [])
        case 8: return (.readIndex(context: intruder.number(0...UInt64.max)), [])
        case 9: return (.readIndexResponse(context: intruder.number(0...UInt64.max), index: index), [])
        case 10: return (.timeoutNow, [])
        default:
            let previous = min(index, last)
            let entry = SimulatedEntry(
                header: EntryHeader(index: previous + 1, term: term, kind: .noOperation, size: 28),
                payload: ByteBuffer())
            let append = Message.Append(
                previousIndex: previous, previousTerm: core.log.term(at: previous) ?? core.log.compactedTerm,
                commit: index, entries: [entry.header])
            return (.append(append), [entry])
        }
    }

    // MARK: what was heard, changed

    private func mutation(_ core: RaftCore, _ intruder: inout Intruder) -> ForgedFrame? {
        if intruder.chance(10), core.commit < core.log.lastIndex {
            let what = "another entry than the leader's"
            return overwriting(core.commit + 1...core.log.lastIndex, of: core, what, &intruder)
        }
        guard let heard = intruder.one(of: intruder.overheard) else { return nil }
        var envelope = heard
        var names = ["a message again"]
        if envelope.message.to != core.id {
            envelope.message.to = core.id
            names.append("to another")
        }
        if intruder.chance(3), let other = intruder.one(of: core.configuration.peers.filter { $0 != core.id }) {
            envelope.message.from = other
            names.append("in another name")
        }
        guard envelope.message.from != core.id else { return nil }
        if intruder.chance(3) {
            envelope.message.term = near(envelope.message.term, isTerm: true, &intruder)
            names.append("in another term")
        }
        if intruder.chance(2) {
            mutate(&envelope, core, &intruder)
            names.append("with other content")
        }
        let what = names.joined(separator: ", ")
        if envelope.snapshot != nil { return ForgedFrame(what, snapshot: envelope) }
        var forged = ForgedFrame(what, envelope.message, envelope.entries)
        if intruder.chance(8) {
            forged.what = "bytes at random"
            for _ in 0..<intruder.number(1...4) {
                let position = Int(intruder.number(0...UInt64(forged.bytes.writerIndex - 1)))
                forged.bytes.setInteger(UInt8(intruder.number(0...255)), at: position)
            }
        }
        return forged
    }

    /// The highest term that is no leap for any member.
    private var highestSaneTerm: Term {
        let terms = members.filter { !$0.isLost }.map { min($0.term ?? .max, $0.disk.hardState.term) }
        return (terms.min() ?? 0) + Self.saneGap
    }

    private func near(_ number: UInt64, isTerm: Bool = false, _ intruder: inout Intruder) -> UInt64 {
        if isTerm {
            let step = intruder.chance(10) ? Self.saneGap : 3
            let low = number - min(number, 3)
            return min(intruder.number(low...number + step), highestSaneTerm)
        }
        switch intruder.number(0...9) {
        case 0: return 0
        case 1: return intruder.number(0...PeerMessage.numberMax)
        case 2: return number + intruder.number(0...1000)
        default: return intruder.number(number - min(number, 4)...number + 4)
        }
    }

    private func mutate(_ envelope: inout SimulatedMember.Envelope, _ core: RaftCore, _ intruder: inout Intruder) {
        switch envelope.message.body {
        case .preVote(let index, let term):
            envelope.message.body = .preVote(
                lastIndex: near(index, &intruder), lastTerm: near(term, isTerm: true, &intruder))
        case .vote(let index, let term, let isTransfer):
            envelope.message.body = .vote(
                lastIndex: near(index, &intruder), lastTerm: near(term, isTerm: true, &intruder),
                isTransfer: intruder.chance(2) != isTransfer)
        case .preVoteResponse(let isGranted): envelope.message.body = .preVoteResponse(granted: !isGranted)
        case .voteResponse(let isGranted): envelope.message.body = .voteResponse(granted: !isGranted)
        case .appendResponse(.accepted(let match)):
            envelope.message.body =
                intruder.chance(3)
                ? .appendResponse(.rejected(near(match, &intruder), hintIndex: near(match, &intruder), hintTerm: 1))
                : .appendResponse(.accepted(match: near(match, &intruder)))
        case .appendResponse(.rejected(let index, let hint, let term)):
            envelope.message.body = .appendResponse(
                .rejected(
                    near(index, &intruder), hintIndex: near(hint, &intruder),
                    hintTerm: near(term, isTerm: true, &intruder)))
        case .heartbeat(let commit, let round):
            envelope.message.body =
                intruder.chance(8)
                ? .timeoutNow : .heartbeat(commit: near(commit, &intruder), round: near(round, &intruder))
        case .heartbeatResponse(let round): envelope.message.body = .heartbeatResponse(round: near(round, &intruder))
        case .readIndex(let context):
            envelope.message.body =
                intruder.chance(2)
                ? .readIndex(context: near(context, &intruder))
                : .readIndexResponse(context: context, index: near(core.commit, &intruder))
        case .readIndexResponse(let context, let index):
            envelope.message.body = .readIndexResponse(
                context: context, index: intruder.chance(4) ? nil : near(index ?? core.commit, &intruder))
        case .timeoutNow: break
        case .append(var append):
            mutate(&append, &envelope.entries, &intruder)
            envelope.message.body = .append(append)
        case .installSnapshot(var snapshot):
            switch intruder.number(0...2) {
            case 0: snapshot.index = near(snapshot.index, &intruder)
            case 1: snapshot.term = near(snapshot.term, isTerm: true, &intruder)
            default: snapshot.configuration = changed(snapshot.configuration, &intruder)
            }
            envelope.message.body = .installSnapshot(snapshot)
        }
    }

    private func mutate(_ append: inout Message.Append, _ entries: inout [SimulatedEntry], _ intruder: inout Intruder) {
        for _ in 0..<intruder.number(1...2) {
            switch intruder.number(0...7) {
            case 0: append.previousTerm = near(append.previousTerm, isTerm: true, &intruder)
            case 1, 2: append.commit = near(append.commit, &intruder)
            case 3:
                // The same entries elsewhere.
                append.previousIndex = near(append.previousIndex, &intruder)
                for position in entries.indices {
                    entries[position].header.index = append.previousIndex &+ UInt64(position) &+ 1
                }
            case 4: entries = Array(entries.prefix(Int(intruder.number(0...UInt64(entries.count)))))
            case 5:
                let term = near(entries.last?.header.term ?? append.previousTerm, isTerm: true, &intruder)
                for position in entries.indices.suffix(Int(intruder.number(1...3))) {
                    entries[position].header.term = term
                }
            case 6:
                guard let last = entries.indices.last else { break }
                let payload = SimulatedEntry.payload(changed(configuration, &intruder))
                entries[last].payload = payload
                entries[last].header.kind = .configuration
            default:
                guard let last = entries.indices.last, entries[last].payload.readableBytes > 0 else { break }
                let position = intruder.number(0...UInt64(entries[last].payload.readableBytes - 1))
                entries[last].payload.setInteger(
                    UInt8(intruder.number(0...255)), at: entries[last].payload.readerIndex + Int(position))
            }
        }
    }

    private func changed(_ old: Configuration, _ intruder: inout Intruder) -> Configuration {
        var members = old.members
        switch intruder.number(0...3) {
        case 0: members.removeLast()
        case 1: members[0].isLearner.toggle()
        case 2: members.append(Member(id: 900, peer: PeerID(1 << 40), address: "nowhere"))
        default: members[0].address = "nowhere"
        }
        return Configuration(
            clusterID: old.clusterID, members: members,
            outgoingVoters: intruder.chance(3) ? Array(old.voters.prefix(1)) : [])
    }

    // MARK: when it falls silent

    /// A write must commit, and be read, within a bounded time. Where consensus itself was forged, the way out of a lost
    /// majority must be one.
    func serveAgain() throws {
        endFaults()
        for member in members.indices { try recover(member, starts: true) }
        do {
            try serve()
            // Whoever was made to take in many terms at once takes in no more of them for a while.
            try? run(for: 5_000_000_000 + Limits.termStepPause, "level", "") { isLevel.allSatisfy { $0 } }
            report.intrusions.leftBehind = isLevel.count { !$0 }
        } catch let violation as Invariants.Violation where violation.invariant == Self.service {
            trace("no majority agrees: an operator recovers one directory")
            report.intrusions.recoveries = 1
            try startOverAlone()
            try serve()
        }
        isOver = true
    }

    private static let service = "service after the intruder"

    private func serve() throws {
        let first = history.count
        try run(for: 30_000_000_000, Self.service, "no write was acknowledged and read within 30 s") {
            guard let write = history[first...].firstIndex(where: { $0.outcome == .done }) else { return false }
            return history[write...].contains { operation in
                if case .value = operation.outcome { true } else { false }
            }
        }
    }

    /// Of each running member, whether its log is as long as the leader's, and as far committed.
    private var isLevel: [Bool] {
        let leaders = members.filter { $0.role == .leader }
        guard let leader = leaders.max(by: { $0.term ?? 0 < $1.term ?? 0 })?.core else { return [false] }
        return members.filter(\.isRunning).map { member in
            (member.core?.commit ?? 0) + 20 >= leader.commit && member.core?.log.lastTerm == leader.log.lastTerm
        }
    }

    private func startOverAlone() throws {
        let best = members.indices.filter { !members[$0].isLost }.max { left, right in
            let (left, right) = (members[left].disk, members[right].disk)
            return (left.hardState.commit, left.lastIndex) < (right.hardState.commit, right.lastIndex)
        }
        guard let best else { return }
        for member in members.indices {
            if member == best { members[member].crash(using: &generator) } else { members[member].lose() }
        }
        members[best].disk.startOver(
            alone: Configuration(
                clusterID: configuration.clusterID + 1,
                members: [Member(id: UInt64(best + 1), peer: members[best].id, address: "\(best + 1)")]))
        schedule(.restart(best), in: 1_000_000)
    }
}
