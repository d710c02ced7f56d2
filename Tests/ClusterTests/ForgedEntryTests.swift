import BanyanClient
import Foundation
import NIOCore
import Raft
import Testing
import WireProtocol

/// Entries that no leader made: configurations without sense, commands that nobody knows, and messages of mutated bytes.
@Suite("Forged entries", .serialized)
struct ForgedEntryTests {
    typealias Named = (id: UInt64, peer: PeerID, isLearner: Bool, address: String)

    /// Configurations that can't follow from the one that there is, by their names.
    private static func configurations(_ forger: Forger, victim: Int) -> [(String, [UInt8])] {
        let real: [Named] = forger.members.map { ($0.id, $0.peer, false, "127.0.0.1:\($0.port)") }
        let stranger = { (number: UInt64) -> Named in
            (100 + number, PeerID(1000 + number), false, "127.0.0.1:\(victim)")
        }
        return [
            ("no member at all", forger.configuration([])),
            ("each member twice", forger.configuration(real + real)),
            ("one member thrice and no other", forger.configuration([real[0], real[0], real[0]])),
            ("3,000 members at one address", forger.configuration(real + (0..<3000).map(stranger))),
            ("strangers alone", forger.configuration((0..<3).map(stranger))),
            ("one of three", forger.configuration([real[0]])),
            ("learners alone", forger.configuration(real.map { ($0.id, $0.peer, true, $0.address) })),
            (
                "other directories behind all names",
                forger.configuration(real.map { ($0.id, PeerID($0.peer.rawValue ^ 1), false, $0.address) })
            ),
            (
                "outgoing voters that nobody knows",
                forger.configuration(real, outgoing: [PeerID(5), PeerID(6), PeerID(7)])
            ),
            ("outgoing voters that are none", forger.configuration(real, outgoing: [PeerID(0), PeerID(0)])),
            (
                "one directory behind two names",
                forger.configuration([real[0], (9, real[0].peer, false, real[0].address), real[1], real[2]])
            ),
            ("a member without an id", forger.configuration(real + [(0, PeerID(0), false, "127.0.0.1:\(victim)")])),
            ("another cluster's", forger.configuration(real, clusterID: 1)),
            (
                "addresses that are none",
                forger.configuration(real.map { ($0.id, $0.peer, false, String(repeating: "\n", count: 20_000)) })
            ),
            ("half of one", Array(forger.configuration(real).prefix(30))),
            ("nothing", []),
            ("one with a tail", forger.configuration(real) + [1, 2, 3]),
        ]
    }

    @Test(
        "configurations that can't follow from the one in force are refused, committed or not, and nobody is called in their name"
    )
    func configurations() async throws {
        let cluster = try await TestCluster.start(members: 3, spare: 1)
        let witness = try await Witness(of: cluster)
        let forger = try Forger(cluster)
        let victim = try RawListener(on: cluster.ports[3])
        for (number, (name, configuration)) in Self.configurations(forger, victim: cluster.ports[3]).enumerated() {
            let leader = try forger.member(try await cluster.leader())
            let members = try await witness.client.status()
            let followers = forger.members.filter { $0.id != leader.id }
            for (to, from) in [(followers[number % 2], leader)] + (Witness.isLong ? [(leader, followers[0])] : []) {
                let known = try #require(members.first { $0.id == to.id })
                for isCommitted in Witness.isLong ? [true, false] : [number % 3 != 2] {
                    try Self.append(
                        .configuration, configuration, forger, from, to, known, rise: 3, isCommitted: isCommitted)
                }
            }
            try await witness.expectRecovery(after: "a configuration: \(name)")
            var calls = 0
            while victim.accept() != nil { calls += 1 }
            #expect(calls < 10, "after a configuration, \(name), the members called a stranger \(calls) times")
        }
        await witness.client.close()
    }

    @Test("commands that no program knows, or that have no sense, end nobody")
    func commands() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        let forger = try Forger(cluster)
        let random = (0..<60).map { UInt8(truncatingIfNeeded: $0 &* 37) }
        var commands: [(String, [UInt8])] = [
            ("operation 99", Forger.command(99)), ("operation 0", Forger.command(0)),
            ("a version beyond all", Forger.command(2, version: 999)), ("version 0", Forger.command(2, version: 0)),
            ("nothing", []), ("noise", random), ("half a head", Array(Forger.command(2).prefix(20))),
        ]
        for operation in UInt8(1)...8 where Witness.isLong || operation % 3 == 2 {
            commands.append(("operation \(operation) with noise", Forger.command(operation, random)))
            commands.append(("operation \(operation) with nothing", Forger.command(operation)))
        }
        for (number, (name, command)) in commands.enumerated() {
            let leader = try forger.member(try await cluster.leader())
            let followers = forger.members.filter { $0.id != leader.id }
            let to = followers[number % 2]
            let known = try #require(try await witness.client.status().first { $0.id == to.id })
            // In the leader's own term as well: then the follower can't tell it from the leader's.
            let rise: UInt64 = number % 2 == 0 ? 2 : 0
            try Self.append(.command, command, forger, leader, to, known, rise: rise, isCommitted: true)
            try await witness.expectRecovery(after: "a command: \(name)")
        }
        await witness.client.close()
    }

    /// An entry behind the last one, whose term is not public: it is one of those that there were.
    private static func append(
        _ kind: EntryKind, _ payload: [UInt8], _ forger: Forger, _ from: Forger.Target, _ to: Forger.Target,
        _ known: MemberReport, rise: UInt64, isCommitted: Bool
    ) throws {
        let last = known.statistics["log_last_index"] ?? 0
        let term = known.term + rise
        let connection = try forger.connection(as: from, to: to, lane: .append)
        _ = try connection.frame()
        for previous in stride(from: known.term, through: max(known.term, 12) - 11, by: -1) {
            connection.say(
                Forger.append(
                    from, to: to, term: term, previous: (last, previous), commit: isCommitted ? last + 1 : 0,
                    [Forger.record(last + 1, term, kind, payload)]))
        }
        connection.finish()
    }

    @Test("mutated messages of all kinds, with sound heads, end nobody, and behind them the members agree")
    func mutants() async throws {
        let seed = ProcessInfo.processInfo.environment["BANYAN_ATTACKS_SEED"].flatMap(UInt64.init)
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        let forger = try Forger(cluster)
        for round in 0..<(Witness.isLong ? 20 : 1) {
            let seed = seed ?? UInt64.random(in: 0...UInt64.max)
            print("mutated messages: seed \(seed), round \(round)")
            var mutator = Mutator(forger: forger, generator: SeededGenerator(seed: seed))
            let end = ContinuousClock.now + .seconds(Witness.isLong ? 15 : 3)
            while ContinuousClock.now < end {
                let members = try await witness.client.status().filter { $0.isRunning }
                guard let known = members.randomElement(using: &mutator.generator) else { break }
                let to = try forger.member(Int(known.id))
                for _ in 0..<5 {
                    let from = forger.members.randomElement(using: &mutator.generator) ?? to
                    let connection = try forger.connection(as: from, to: to, lane: mutator.lane)
                    _ = try connection.frame()
                    for _ in 0..<8 { connection.say(mutator.message(from, to, known)) }
                    connection.finish()
                }
            }
            try await witness.expectRecovery(after: "mutated messages of seed \(seed)")
        }
        await witness.client.close()
    }
}

/// Makes messages whose heads are sound and whose bodies are about right.
private struct Mutator {
    let forger: Forger
    var generator: SeededGenerator

    private mutating func choose<Value>(_ values: [Value]) -> Value {
        values[Int.random(in: values.indices, using: &generator)]
    }

    var lane: Lane { mutating get { choose([.control, .append, .append, .snapshot]) } }

    private mutating func noise(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }

    private mutating func number(_ last: UInt64) -> UInt64 {
        choose([
            0, 1, last, last + 1, last - 1, last + 5, UInt64.random(in: 0...last, using: &generator), 1 << 61, 1 << 62,
            (1 << 62) - 1, 1 << 63, .max,
        ])
    }

    mutating func message(_ from: Forger.Target, _ to: Forger.Target, _ known: MemberReport) -> [UInt8] {
        let last = max(1, known.statistics["log_last_index"] ?? 1)
        let type = UInt8.random(in: 1...15, using: &generator)
        let term = choose([known.term, known.term, known.term, known.term + 1, known.term - 1, known.term + 2, 0])
        var body: [UInt8] = []
        if type == 5 {
            body = append(last, known.term, in: term)
        } else if Int.random(in: 0..<5, using: &generator) > 0 {
            for _ in 0..<Int.random(in: 0..<6, using: &generator) { body += Forger.numbers(number(last)) }
        } else {
            body = noise(Int.random(in: 0..<64, using: &generator))
        }
        if Int.random(in: 0..<20, using: &generator) == 0, !body.isEmpty {
            body[Int.random(in: body.indices, using: &generator)] ^= 0x40
        }
        return Forger.message(from, to: to, term: term, type: type, body)
    }

    private mutating func append(_ last: Index, _ present: Term, in term: Term) -> [UInt8] {
        let previous = choose([last, last - 1, last - min(last, 7), UInt64.random(in: 0...last, using: &generator)])
        let previousTerm = UInt64.random(in: max(present, 3) - 2...present, using: &generator)
        var body = Forger.numbers(previous, previousTerm, choose([0, previous, previous + 1, previous + 3, last]))
        for position in 0..<UInt64.random(in: 0..<4, using: &generator) {
            let kind = choose([EntryKind.noOperation, .noOperation, .noOperation, .command, .configuration])
            body += Forger.record(previous + 1 + position, max(term, previousTerm), kind, payload(kind))
        }
        return body
    }

    private mutating func payload(_ kind: EntryKind) -> [UInt8] {
        let real: [ForgedEntryTests.Named] = forger.members.map { ($0.id, $0.peer, false, "127.0.0.1:\($0.port)") }
        switch kind {
        case .noOperation: return choose([[], [], noise(60)])
        case .command:
            let operation = UInt8.random(in: 0..<12, using: &generator)
            return choose([
                [], noise(60),
                Forger.command(operation, version: UInt16.random(in: 0..<6, using: &generator), noise(20)),
            ])
        case .configuration:
            // A joint one that lets two of three go is a sound change: only proof of who said it can stop that.
            let members = choose([real, Array(real.prefix(1)), real + real, []])
            return forger.configuration(members, outgoing: choose([[], members.count == 1 ? [] : real.map(\.peer)]))
        }
    }
}
