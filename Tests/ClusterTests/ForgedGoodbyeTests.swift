import BanyanClient
import Foundation
import NIOCore
import Raft
import Testing
import WireProtocol

/// Goodbyes, and whatever else somebody says who has a stopped member's port.
@Suite("Forged goodbyes", .serialized)
struct ForgedGoodbyeTests {
    /// A line of a log that nobody wrote, and what would colour a terminal.
    private static let reason = Array("recovered\n2026-11-27T00:00:00+0000 info banyand: all is well \u{1B}[32m".utf8)

    private static func goodbyes() -> [[UInt8]] {
        let codes: [UInt16] = Array(0...12) + [UInt16.max]
        let long = [UInt8](repeating: 0x41, count: Int(UInt16.max))
        return codes.map { Forger.goodbye($0, reason) }
            + [7, 4].flatMap {
                [Forger.goodbye($0, []), Forger.goodbye($0, [0xFF, 0xFE, 0, 0x0D]), Forger.goodbye($0, long)]
            }
    }

    /// What a listener answers to a member that calls it: each is said to one caller.
    private static func answers(_ forger: Forger, as member: Forger.Target, address: String) -> [[UInt8]] {
        var welcome = Welcome(
            clusterID: forger.clusterID, memberID: member.id, incarnation: member.peer.rawValue,
            contentBytesMax: 1 << 20,
            members: forger.members.map { "\($0.id)=127.0.0.1:\($0.port)" }.joined(separator: ","))
        let greeting = Forger.bytes { welcome.write(to: &$0) }
        welcome.incarnation &+= 1
        let stranger = Forger.bytes { welcome.write(to: &$0) }
        welcome.clusterID &+= 1
        let foreign = Forger.bytes { welcome.write(to: &$0) }
        let alone = forger.configuration([(member.id, member.peer, false, address)])
        let genesis = Forger.frame(Frame.Kind.genesis.rawValue, alone)
        return goodbyes() + goodbyes().map { greeting + $0 }
            + [greeting, stranger, foreign, genesis, greeting + genesis, greeting + greeting, stranger + goodbyes()[7]]
            + [Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8), [UInt8](repeating: 0xFF, count: 4096), []]
    }

    @Test("whatever is said at a stopped member's port, the others go on, and it comes back")
    func listener() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let forger = try Forger(cluster)
        let leader = try await cluster.leader()
        let stopped = leader % 3 + 1
        try cluster.signal(stopped, SIGKILL)
        let witness = try await Witness(of: cluster)
        let member = try forger.member(stopped)
        let answers = Self.answers(forger, as: member, address: cluster.addresses[stopped - 1])
        var listener: RawListener? = try RawListener(on: member.port)
        try await witness.expectNoEffect(of: "goodbyes at a stopped member's port") {
            // Each to another caller; who was refused pauses before it calls again.
            var rest = Witness.isLong ? answers[...] : (answers[6...8] + answers.suffix(10))
            let end = ContinuousClock.now + .seconds(Witness.isLong ? 600 : 60)
            while let answer = rest.first, ContinuousClock.now < end {
                if let caller = listener?.accept() {
                    caller.say(answer)
                    caller.finish()
                    rest.removeFirst()
                }
                await Task.yield()
            }
            #expect(rest.isEmpty, "nobody called for the last \(rest.count)")
        }
        listener = nil
        try Self.expectWholeLines(of: cluster)
        try cluster.start(stopped)
        #expect(await cluster.membersAgree(witness.client))
        // Those who heard it are started again, and go on.
        for id in 1...3 where id != stopped {
            try cluster.signal(id, SIGKILL)
            try cluster.start(id)
        }
        #expect(await cluster.membersAgree(witness.client))
        await witness.client.close()
    }

    @Test("goodbyes of every code over connections that the forger opened change nothing")
    func callers() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        let forger = try Forger(cluster)
        try await witness.expectNoEffect(of: "goodbyes from callers") {
            for to in forger.members {
                for from in forger.members where from.id != to.id {
                    for goodbye in Self.goodbyes() { try forger.tell(to, as: from, .control, goodbye) }
                }
                for goodbye in Self.goodbyes() {
                    let silent = try RawConnection(to: to.port)
                    silent.say(goodbye)
                    silent.finish()
                    let client = try Forger.client(to: to.port)
                    client.say(goodbye)
                    client.finish()
                }
            }
        }
        try Self.expectWholeLines(of: cluster)
        await witness.client.close()
    }

    @Test(
        "members that wait for their cluster hear goodbyes and foreign first entries, wait on, and found it with those of their list"
    )
    func waiting() async throws {
        let cluster = try TestCluster(members: 3)
        try cluster.start(1, isNew: true)
        try cluster.start(2, isNew: true)
        let list = cluster.addresses.enumerated().map { "\($0 + 1)=\($1)" }.joined(separator: ",")
        var listener: RawListener? = try RawListener(on: cluster.ports[2])
        // The forger was started with the same list, as far as anybody can see; and brings a cluster of its own.
        let welcome = Forger.bytes { buffer in
            var welcome = Welcome(clusterID: 0, memberID: 3, incarnation: 33, contentBytesMax: 1 << 20, members: list)
            welcome.isBootstrapping = true
            welcome.write(to: &buffer)
        }
        var answers = Self.goodbyes()[7...9] + [welcome + Self.goodbyes()[7], Self.goodbyes()[1]]
        let end = ContinuousClock.now + .seconds(60)
        while let answer = answers.first, ContinuousClock.now < end {
            if let caller = listener?.accept() {
                caller.say(answer)
                caller.finish()
                answers.removeFirst()
            }
            await Task.yield()
        }
        #expect(answers.isEmpty)
        for (position, port) in cluster.ports.prefix(2).enumerated() {
            let known = try RawConnection(to: port)
            known.say(Forger.clientHello)
            let incarnation = try Welcome(try #require(try known.frame())).incarnation
            let configuration = Forger.bytes {
                Configuration(
                    clusterID: 99,
                    members: cluster.addresses.enumerated().map {
                        let peer = PeerID($0 == position ? incarnation : UInt64($0 + 50))
                        return Member(id: UInt64($0 + 1), peer: peer, address: $1)
                    }
                ).write(to: &$0)
            }
            for isBootstrapping in [true, false] {
                let caller = try RawConnection(to: port)
                caller.say(
                    Forger.bytes { buffer in
                        var hello = Hello(role: .peer)
                        (hello.isBootstrapping, hello.memberID, hello.incarnation) = (isBootstrapping, 3, 52)
                        (hello.clusterID, hello.members) = (isBootstrapping ? 0 : 99, list)
                        hello.write(to: &buffer)
                    })
                caller.say(Forger.frame(Frame.Kind.genesis.rawValue, configuration))
                for goodbye in Self.goodbyes() { caller.say(goodbye) }
                caller.finish()
            }
        }
        listener = nil
        try cluster.start(3, isNew: true)
        _ = try await cluster.leader()
        let client = cluster.client()
        #expect(try await client.members().map(\.address) == cluster.addresses)
        #expect(try await client.put("/founded", [1]) > 0)
        let agree = await cluster.membersAgree(client)
        for id in 1...3 {
            let log = try cluster.log(id).suffix(1500)
            #expect(agree && cluster.isRunning(id), "member \(id): \(log)")
        }
        await client.close()
    }

    @Test("a member that waits to be taken in hears goodbyes and a foreign first entry, waits on, and is taken in")
    func joining() async throws {
        let cluster = try await TestCluster.start(members: 3, spare: 1)
        try await cluster.join(4)
        let port = cluster.ports[3]
        let known = try RawConnection(to: port)
        known.say(Forger.clientHello)
        let incarnation = try Welcome(try #require(try known.frame())).incarnation
        let forger = try Forger(cluster)
        let own = (id: UInt64(4), peer: PeerID(incarnation), isLearner: true, address: cluster.addresses[3])
        for from in forger.members where from.id != 4 {
            let to = Forger.Target(id: 4, peer: PeerID(incarnation), port: port)
            for goodbye in Self.goodbyes() { try forger.tell(to, as: from, .control, goodbye) }
            let foreign = forger.configuration([own, (77, PeerID(77), false, "127.0.0.1:9")], clusterID: 99)
            let caller = try RawConnection(to: port)
            caller.say(
                Forger.bytes { buffer in
                    var hello = Hello(role: .peer)
                    (hello.memberID, hello.incarnation, hello.clusterID) = (from.id, from.peer.rawValue, 99)
                    hello.write(to: &buffer)
                })
            caller.say(Forger.frame(Frame.Kind.genesis.rawValue, foreign))
            caller.finish()
        }
        let client = cluster.client()
        let isIn = await cluster.condition {
            try? await client.change(.add(4, address: cluster.addresses[3]))
            return try await client.members().contains { $0.id == 4 }
        }
        let log = try cluster.log(4).suffix(500)
        #expect(isIn, "\(log)")
        #expect(await cluster.membersAgree(client))
        await client.close()
    }

    /// No line of a log begins where a forger wanted it, and nothing colours a terminal.
    private static func expectWholeLines(of cluster: TestCluster) throws {
        for id in 1...3 {
            let log = try cluster.log(id)
            #expect(!log.contains("\u{1B}"), "member \(id)")
            let forged = log.split(whereSeparator: \.isNewline).filter { $0.hasPrefix("2026-11-27T00:00:00+0000") }
            #expect(forged.isEmpty, "member \(id): \(forged)")
            #expect(!log.contains(String(repeating: "A", count: 5000)), "member \(id)")
        }
    }
}
