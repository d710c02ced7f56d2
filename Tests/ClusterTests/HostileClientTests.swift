import BanyanClient
import FileTree
import Foundation
import NIOCore
import Raft
import Testing
import WireProtocol

/// Connections that say nothing, speak slowly, ask for much and read nothing. Each member goes on as if they were not there,
/// in memory that has a bound.
@Suite("Hostile clients", .serialized)
struct HostileClientTests {
    /// What a member takes at most, whatever is done to it.
    private static let residentBytesMax = 256 << 20
    private static let count = Witness.isLong ? 1000 : 300

    /// What is held open against a leader: by name, what each connection has said, and whether it may stay: it was greeted.
    private static func openings(_ forger: Forger, _ leader: Forger.Target) -> [(String, [UInt8], Bool)] {
        let other = forger.members.first { $0.id != leader.id } ?? leader
        let hello = Forger.clientHello
        let peer = forger.peerHello(as: other, .append)
        let long = Forger.frame(Frame.Kind.read.rawValue, [UInt8](repeating: 7, count: Frame.bodyBytesMax), request: 1)
        return [
            ("nothing", [], false), ("half a hello", Array(hello.prefix(30)), false),
            ("the length of a frame", [0, 0, 64], false), ("a hello", hello, true),
            ("a peer's hello for messages", forger.peerHello(as: other, .control), true),
            ("a peer's hello for entries", peer, true),
            ("a peer's hello for snapshots", forger.peerHello(as: other, .snapshot), true),
            (
                "all but a byte of a long hello", Forger.frame(1, [UInt8](repeating: 7, count: 16 << 10)).dropLast(),
                false
            ),
            ("all but a byte of a long frame", hello + long.dropLast(), false),
            ("all but a byte of a peer's long frame", peer + long.dropLast(), false),
            ("the beginning of a long frame", hello + long.prefix(5000), false),
        ]
    }

    @Test("connections that say nothing, or begin what they never end, take nothing from anybody and don't last")
    func idle() async throws {
        RawConnection.raiseLimit()
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        let forger = try Forger(cluster)
        let openings = Self.openings(forger, forger.members[0])
        // Each kind alone, or a few of each at once.
        let attacks = Witness.isLong ? openings.map({ ($0.0, [$0]) }) : [("all sorts of things", openings)]
        for (name, kinds) in attacks {
            try await witness.expectNoEffect(of: "connections that say \(name)") {
                let leader = try forger.member(try await cluster.leader())
                var held: [(connection: RawConnection, mayStay: Bool)] = []
                for number in 0..<Self.count {
                    // Who is refused for being one too many is no less bounded.
                    guard let connection = try? RawConnection(to: leader.port) else { continue }
                    connection.say(kinds[number % kinds.count].1, waits: false)
                    held.append((connection, kinds[number % kinds.count].2))
                }
                for _ in 0..<5 { _ = try await witness.client.put("/meanwhile", [1]) }
                try Self.expectBounded(cluster, Int(leader.id), name)
                if Witness.isLong { try await Self.printPings(cluster, held.count, name) }
                #expect(await cluster.condition { held.allSatisfy { $0.mayStay || $0.connection.isClosed } }, "\(name)")
            }
        }
        await witness.client.close()
    }

    @Test(
        "a member whose descriptors are taken says so, lets its peers and its operator in, and passes over it by itself"
    )
    func descriptors() async throws {
        RawConnection.raiseLimit()
        let cluster = try await TestCluster.start(members: 3, descriptorsMax: 128)
        let witness = try await Witness(of: cluster)
        for opening in [[], Forger.clientHello] {
            let leader = try await cluster.leader()
            let held = try (0..<300).map { _ in
                let connection = try RawConnection(to: cluster.ports[leader - 1])
                connection.say(opening, waits: false)
                return connection
            }
            // Who was there is served on.
            for _ in 0..<5 { _ = try await witness.client.put("/meanwhile", [1]) }
            // Who comes later looks on.
            let late = cluster.client()
            #expect(
                await cluster.condition { try await !late.status().contains { !$0.isRunning } },
                "\(opening.count) bytes were said")
            await late.close()
            // A peer that comes back gets in.
            let follower = leader % 3 + 1
            try cluster.signal(follower, SIGKILL)
            try cluster.start(follower)
            #expect(await cluster.membersAgree(witness.client))
            withExtendedLifetime(held) {}
        }
        _ = try await witness.client.put("/behind", [3])
        await witness.client.close()
    }

    @Test("a member without a free descriptor says so, and that it takes connections in again")
    func starved() async throws {
        let cluster = try await TestCluster.start(members: 1, descriptorsMax: 40)
        let forger = try Forger(cluster)
        let target = forger.members[0]
        let lanes: [Lane] = [.control, .append, .snapshot]
        let openings = [Forger.clientHello, []] + lanes.map { forger.peerHello(as: target, $0) }
        var held: [RawConnection] = []
        #expect(
            await cluster.condition {
                if held.count < 500 {
                    held.append(try RawConnection(to: target.port))
                    held.last?.say(openings[held.count % openings.count], waits: false)
                }
                return try cluster.log(1).contains("taking in no connections; raise the limit")
            })
        held = []
        #expect(await cluster.condition { try cluster.log(1).contains("taking in connections again") })
        let client = cluster.client()
        _ = try await client.put("/behind", [3])
        await client.close()
    }

    @Test("one connection opens so many sessions in a minute, and no more; others open theirs")
    func sessions() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        _ = try await client.put("/f", [1])
        let greedy = try Forger.client(to: cluster.ports[0])
        var outcomes: [Frame.Kind: Int] = [:]
        let open = Forger.bytes { OpenSession().write(to: &$0) }
        for request in 1...100 as ClosedRange<UInt64> {
            greedy.say(Forger.frame(Frame.Kind.write.rawValue, open, request: request, deadline: 60_000))
            let answer = try #require(try greedy.frame())
            outcomes[answer.kind, default: 0] += 1
        }
        // Time passes: the next is due soon after the first.
        let opened = outcomes[.result] ?? 0
        #expect((64...66).contains(opened) && outcomes[.refusal] == 100 - opened, "\(outcomes)")
        // What another has opened is not pushed out.
        _ = try await client.put("/f", [2])
        let other = cluster.client()
        _ = try await other.put("/f", [3])
        await other.close()
        await client.close()
    }

    @Test("many who read long files at once wait for room, and all are answered")
    func longReads() async throws {
        RawConnection.raiseLimit()
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        _ = try await client.put("/big", [UInt8](repeating: 7, count: 1 << 20))
        await client.close()
        let path = try TreePath("/big")
        let query = Forger.bytes { Query.get(path).write(to: &$0) }
        let readers = try (0..<100).map { _ in try RawConnection(to: cluster.ports[0]) }
        for reader in readers { reader.say(Forger.clientHello) }
        // The first answer tells how long they are; two at once of each are more than there is room for.
        for round in [1, 2, 2] {
            var left = readers.map { _ in round }
            for reader in readers {
                for request in 1...UInt64(round) {
                    reader.say(Forger.frame(Frame.Kind.read.rawValue, query, request: request, deadline: 120_000))
                }
            }
            let areAnswered = await cluster.condition {
                for (position, reader) in readers.enumerated() {
                    while left[position] > 0, let frame = try reader.frame(waits: false) {
                        if frame.kind == .welcome { continue }
                        #expect(frame.kind == .result && frame.body.readableBytes > 1 << 20)
                        left[position] -= 1
                    }
                }
                return left.allSatisfy { $0 == 0 }
            }
            #expect(areAnswered, "\(left.reduce(0, +)) answers are missing")
        }
    }

    @Test("hellos and frames that come a byte at a time end by a deadline, and nobody waits for them")
    func slow() async throws {
        RawConnection.raiseLimit()
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        let forger = try Forger(cluster)
        try await witness.expectNoEffect(of: "slow hellos and frames") {
            let leader = try forger.member(try await cluster.leader())
            let long = Forger.frame(
                Frame.Kind.read.rawValue, [UInt8](repeating: 7, count: Frame.bodyBytesMax), request: 1)
            var speakers: [(RawConnection, [UInt8])] = []
            for number in 0..<Self.count {
                let connection = try RawConnection(to: leader.port)
                if number % 2 == 0 {
                    speakers.append((connection, Forger.clientHello))
                } else {
                    connection.say(Forger.clientHello)
                    speakers.append((connection, long))
                }
            }
            var position = 0
            // A byte a turn, each behind a write of somebody else's: they are as slow as the cluster is quick.
            let areGone = await cluster.condition {
                for (connection, bytes) in speakers where position < bytes.count - 1 {
                    connection.say(bytes[position...position], waits: false)
                }
                position += 1
                _ = try await witness.client.put("/meanwhile", [1])
                return speakers.allSatisfy { $0.0.isClosed }
            }
            #expect(areGone)
            try Self.expectBounded(cluster, Int(leader.id), "slow frames")
        }
        await witness.client.close()
    }

    /// What is asked for and never read, by its name: kind and body, and how often each connection asks.
    private static func questions() throws -> [(String, Frame.Kind, [UInt8])] {
        let query = { (query: Query) in Forger.bytes { query.write(to: &$0) } }
        let big = query(.get(try TreePath("/big")))
        let anyAge = Forger.bytes { $0.writeInteger(UInt32(0)) }
        let listing = query(.list(try TreePath("/names"), after: [], limit: 10_000))
        return [
            ("files", .read, big), ("files by lease", .leaseRead, big),
            ("files as they are here", .staleRead, anyAge + big),
            ("listings", .read, listing), ("listings as they are here", .staleRead, anyAge + listing),
            ("reports", .status, []), ("members", .listMembers, []), ("snapshots", .openSnapshot, []),
        ]
    }

    @Test("answers that nobody reads, or reads a little of, are bounded over all connections, and counted")
    func unread() async throws {
        RawConnection.raiseLimit()
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        _ = try await witness.client.put(
            "/big", (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 7) })
        for number in 0..<300 {
            _ = try await witness.client.put("/names/\(String(repeating: "n", count: 200))\(number)", [1])
        }
        for (number, (name, kind, body)) in try Self.questions().enumerated() {
            for isDripping in Witness.isLong ? [false, true] : [number % 2 == 1] {
                try await witness.expectNoEffect(of: "unread \(name)") {
                    let leader = try await cluster.leader()
                    let before = try cluster.residentBytes(leader)
                    var held: [RawConnection] = []
                    for _ in 0..<100 {
                        let connection = try Forger.client(to: cluster.ports[leader - 1], receiveBytes: 4096)
                        for id in UInt64(1)...64 {
                            connection.say(
                                Forger.frame(kind.rawValue, body, request: id, deadline: 600_000), waits: false)
                        }
                        held.append(connection)
                    }
                    for _ in 0..<10 {
                        _ = try await witness.client.put("/meanwhile", [1])
                        if isDripping { for connection in held { connection.drain(upTo: 4096) } }
                    }
                    try Self.expectBounded(cluster, leader, "unread \(name)")
                    // Memory that was held once is not all given back to the system: later attacks grow into it.
                    if number == 0, !isDripping {
                        try await Self.expectAccount(witness, cluster, leader, since: before, "unread \(name)")
                    }
                    withExtendedLifetime(held) {}
                }
            }
        }
        await witness.client.close()
    }

    @Test(
        "the longest bodies of every kind of request, behind requests that wait, are bounded for each kind, and counted"
    )
    func bodies() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        let kinds: [Frame.Kind] = [
            .read, .status, .transferLeadership, .leaseRead, .staleRead, .changeMembership, .listMembers, .openSnapshot,
            .readSnapshot, .verify, .rewriteState,
        ]
        let path = Forger.bytes { Query.get((try? TreePath("/acknowledged/0")) ?? .root).write(to: &$0) }
        for kind in Witness.isLong ? kinds : [.read, .staleRead, .changeMembership] {
            try await witness.expectNoEffect(of: "long bodies of kind \(kind.rawValue)") {
                let leader = try await cluster.leader()
                let before = try cluster.residentBytes(leader)
                var held: [RawConnection] = []
                // Two hold a snapshot each, so that a third's question for one waits.
                for number in 0..<3 {
                    _ = try await witness.client.put("/other/\(number)", [UInt8(number)])
                    let connection = try Forger.client(to: cluster.ports[leader - 1])
                    connection.say(Forger.frame(Frame.Kind.openSnapshot.rawValue, request: 1, deadline: 600_000))
                    if number < 2 { _ = try connection.frame() }
                    held.append(connection)
                }
                let body = path + [UInt8](repeating: 7, count: Frame.bodyBytesMax - path.count)
                for id in UInt64(2)...400 {
                    // Who is answered by the end of the connection was bounded as well.
                    guard held[2].say(Forger.frame(kind.rawValue, body, request: id, deadline: 600_000), waits: false)
                    else { break }
                    if id % 50 == 0 { _ = try await witness.client.put("/meanwhile", [1]) }
                }
                try Self.expectBounded(cluster, leader, "long bodies of kind \(kind.rawValue)")
                try await Self.expectAccount(
                    witness, cluster, leader, since: before, "long bodies of kind \(kind.rawValue)")
                withExtendedLifetime(held) {}
            }
        }
        await witness.client.close()
    }

    private static func expectBounded(_ cluster: TestCluster, _ id: Int, _ name: String) throws {
        let bytes = try cluster.residentBytes(id)
        #expect(bytes < residentBytesMax, "\(bytes >> 20) MiB after \(name)")
    }

    /// What the member says that its clients hold is what its memory grew by; below some MiB that can't be seen.
    private static func expectAccount(
        _ witness: Witness, _ cluster: TestCluster, _ leader: Int, since before: Int, _ name: String
    ) async throws {
        var (grown, counted) = (0, 0)
        let isTrue = await cluster.condition(within: .seconds(10)) {
            grown = try cluster.residentBytes(leader) - before
            let member = try await witness.client.status().first { $0.id == UInt64(leader) }
            counted = Int(member?.statistics["clients_bytes"] ?? 0)
            return abs(grown - counted) < max(grown / 5, 8 << 20)
        }
        #expect(isTrue, "\(name): \(counted >> 20) MiB are counted, memory grew by \(grown >> 20) MiB")
        if Witness.isLong { print("\(name): \(counted >> 10) KiB are counted, memory grew by \(grown >> 10) KiB") }
    }

    /// How long a report takes meanwhile: a figure, nothing is asserted.
    private static func printPings(_ cluster: TestCluster, _ held: Int, _ name: String) async throws {
        let client = cluster.client()
        var times: [Duration] = []
        for _ in 0..<50 {
            let began = ContinuousClock.now
            _ = try await client.status()
            times.append(ContinuousClock.now - began)
        }
        // The first waits until those that came before it at each member are taken in.
        let first = times.removeFirst()
        times.sort()
        print(
            "\(held) connections that say \(name): a report takes \(times[24]), at worst \(times[48]); the first, which "
                + "connects, \(first)")
        await client.close()
    }
}
