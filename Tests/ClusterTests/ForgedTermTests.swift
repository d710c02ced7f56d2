import BanyanClient
import Foundation
import NIOCore
import Raft
import Testing
import WireProtocol

/// Terms that no sound cluster reaches, and leaders that nobody elected.
@Suite("Forged terms", .serialized)
struct ForgedTermTests {
    /// Above the largest step that is believed.
    private static let leaps: [Term] = [(1 << 24) + 2, 1 << 40, (1 << 62) - 1000, 1 << 62, 1 << 63, .max]

    @Test("messages of every kind whose terms leap change nothing, whoever is their sender and addressee")
    func leaps() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        let forger = try Forger(cluster)
        for leap in Witness.isLong ? Self.leaps : [Self.leaps[0], Self.leaps[3]] {
            try await witness.expectNoEffect(of: "a leap by \(leap)") {
                let members = try await witness.client.status()
                for to in forger.members {
                    let known = try #require(members.first { $0.id == to.id })
                    for from in forger.members where from.id != to.id {
                        try Self.leap(by: leap, forger, from, to, known)
                    }
                }
            }
        }
        // Who seems to be beyond the gap is named, with the way out.
        #expect(
            await cluster.condition {
                try await witness.client.status().contains { member in
                    member.workUnderWay.contains {
                        $0.description.contains("out of reach") && $0.description.contains("member replace")
                    }
                }
            })
        await witness.client.close()
    }

    private static func leap(
        by leap: Term, _ forger: Forger, _ from: Forger.Target, _ to: Forger.Target, _ known: MemberReport
    ) throws {
        let last = known.statistics["log_last_index"] ?? 0
        let term = known.term > .max - leap ? .max : known.term + leap
        let lanes: [Lane] = Witness.isLong ? [.control, .append, .snapshot] : [.control]
        for lane in lanes {
            for body in Forger.messages(beyond: (last, known.term)) + Forger.messages(beyond: (last + 5, term - 1)) {
                try forger.tell(to, as: from, lane, Forger.message(from, to: to, term: term, body))
            }
        }
        let entries = Forger.append(
            from, to: to, term: term, previous: (last, known.term), commit: last + 1,
            [Forger.record(last + 1, term, .noOperation)])
        try forger.tell(to, as: from, .append, entries)
        let piece = SnapshotPiece(
            from: from.peer, to: to.peer, term: term, number: 0, isLast: false,
            bytes: ByteBuffer(repeating: 7, count: 100))
        try forger.tell(to, as: from, .snapshot, Forger.bytes { piece.write(to: &$0) })
    }

    @Test("steps of as many terms as are believed, in a row and to some members only, leave nobody behind")
    func steps() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        let forger = try Forger(cluster)
        let steps = [12, 6, 0]
        let tos = forger.members
        let links = try tos.indices.map { try forger.connection(as: tos[($0 + 1) % 3], to: tos[$0], lane: .control) }
        for step in 0..<12 {
            let members = try await witness.client.status()
            for position in tos.indices where step < steps[position] {
                guard let known = members.first(where: { $0.id == tos[position].id }) else { continue }
                let heartbeat = Message.Body.heartbeat(commit: 0, round: 1)
                let message = Forger.message(
                    tos[(position + 1) % 3], to: tos[position], term: known.term + Limits.termLeapMax, heartbeat)
                links[position].say(message)
            }
        }
        try await witness.expectRecovery(after: "steps of many terms")
        withExtendedLifetime(links) {}
        await witness.client.close()
    }

    /// The first leader's entries make the follower believe that it holds what the second then has it execute.
    @Test("two forged leaders of one term end nobody, and what was acknowledged stays")
    func twoLeaders() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        let forger = try Forger(cluster)
        for round in 0..<(Witness.isLong ? 8 : 2) {
            let leader = try forger.member(try await cluster.leader())
            let members = try await witness.client.status()
            for to in forger.members where to.id != leader.id || round % 2 == 1 {
                let known = try #require(members.first { $0.id == to.id })
                try Self.lead(twice: known, forger, to, distance: round < 2 ? 1 : UInt64(round * round))
            }
            try await witness.expectRecovery(after: "two leaders of one term, round \(round)")
        }
        await witness.client.close()
    }

    private static func lead(
        twice known: MemberReport, _ forger: Forger, _ to: Forger.Target, distance: UInt64
    ) throws {
        let others = forger.members.filter { $0.id != to.id }
        let (first, second) = (others[0], others[1])
        let last = known.statistics["log_last_index"] ?? 0
        let term = known.term + 4
        let one = try forger.connection(as: first, to: to, lane: .append)
        let two = try forger.connection(as: second, to: to, lane: .append)
        for connection in [one, two] { _ = try connection.frame() }
        // The last entry's term is not public; it is one of those that there were.
        for previous in stride(from: known.term, to: max(known.term, 4) - 4, by: -1) {
            let tail = (0..<10).map { Forger.record(last + 1 + $0, term, .noOperation) }
            one.say(
                Forger.append(first, to: to, term: term, previous: (last, previous), commit: 0, tail))
            two.say(
                Forger.append(
                    second, to: to, term: term, previous: (last, previous), commit: 0,
                    [Forger.record(last + 1, max(previous, term - min(distance, term)), .noOperation)]))
            two.say(Forger.message(second, to: to, term: term, .heartbeat(commit: last + 10, round: 1)))
            one.say(Forger.message(first, to: to, term: term, .heartbeat(commit: last + 10, round: 2)))
            two.say(
                Forger.append(second, to: to, term: term, previous: (last + 10, term), commit: last + 10))
        }
        one.finish()
        two.finish()
    }
}
