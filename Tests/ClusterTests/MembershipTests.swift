import BanyanClient
import Foundation
import NIOCore
import Raft
import Testing
import WireProtocol

@Suite("Membership of real members", .serialized)
struct MembershipTests {
    private static func nodes(_ cluster: TestCluster) -> [String] {
        ["--nodes", cluster.addresses.joined(separator: ","), "--timeout", "20s"]
    }

    /// Puts and gets one after the other until it is cancelled; a failed one is thrown.
    /// - Parameter hasSessions: else a write whose answer a crowded machine's election swallowed is written again by hand.
    private static func load(
        _ cluster: TestCluster, _ name: String, hasSessions: Bool = true
    ) -> Task<Int, any Error> {
        let client = cluster.client()
        return Task {
            var number = 0
            while !Task.isCancelled || number < 50 {
                let path = "/\(name)/\(number % 100)"
                while true {
                    do {
                        _ = try await client.put(path, Array("\(number)".utf8))
                        break
                    } catch BanyanError.unknownOutcome where !hasSessions {}
                }
                #expect(try await client.get(path).content == Array("\(number)".utf8))
                number += 1
            }
            await client.close()
            return number
        }
    }

    @Test("three become five, and the leader goes, and no request fails")
    func growth() async throws {
        let cluster = try await TestCluster.start(members: 3, spare: 2)
        let client = cluster.client()
        let writer = Self.load(cluster, "growth")
        for id in 4...5 {
            try await cluster.join(id)
            let added = try await cluster.run(
                "banyan", Self.nodes(cluster) + ["member", "add", "\(id)", cluster.addresses[id - 1]])
            #expect(added.code == 0, "\(added.errors)")
            #expect(added.output.contains("voter"), "\(added.output)")
        }
        #expect(try await client.members().filter { !$0.isLearner }.count == 5)
        let leader = try await cluster.leader()
        let removed = try await cluster.run("banyan", Self.nodes(cluster) + ["member", "remove", "\(leader)"])
        #expect(removed.code == 0, "\(removed.errors)")
        writer.cancel()
        #expect(try await writer.value >= 50)
        let members = try await client.members()
        #expect(members.map(\.id) == (1...5).filter { $0 != UInt64(leader) })
        // A removed member is told, shown as one, and disturbs nobody when it goes on running.
        #expect(
            await cluster.condition {
                let log = try cluster.log(leader)
                return log.contains("does not belong to the cluster") || log.contains("was removed from the cluster")
            })
        #expect(try await client.status().first { $0.id == UInt64(leader) }?.role == "removed")
        #expect(
            await cluster.condition {
                let asked = try await cluster.run(
                    "banyan", ["--nodes", cluster.addresses[leader - 1], "get", "/growth", "--timeout", "500ms"])
                return asked.code == 5 && asked.errors.contains("\(cluster.addresses[leader - 1]) was removed from")
            })
        let term = try await client.status().filter { $0.id != UInt64(leader) }.map(\.term).max()
        try cluster.signal(leader, SIGKILL)
        try cluster.start(leader)
        #expect(await cluster.condition { try cluster.log(leader).contains("does not belong to the cluster") })
        _ = try await client.put("/after", [1])
        #expect(try await client.status().filter { $0.id != UInt64(leader) }.map(\.term).max() == term)
        await client.close()
    }

    @Test("so many addresses are asked at once who is there, and no more, whoever asks for that")
    func probes() async throws {
        let cluster = try await TestCluster.start(members: 1, spare: 1)
        let mute = try RawListener(on: cluster.ports[1])
        let operators = try (0..<3).map { _ in try Forger.client(to: cluster.ports[0]) }
        for (number, asking) in operators.enumerated() {
            for request in UInt64(1)...4 {
                let add = Forger.bytes {
                    MembershipRequest(.add, id: UInt64(number) * 4 + request + 1, address: cluster.addresses[1])
                        .write(to: &$0)
                }
                asking.say(Forger.frame(Frame.Kind.changeMembership.rawValue, add, request: request, deadline: 60_000))
            }
        }
        var answers: [MembershipAnswer: Int] = [:]
        for asking in operators {
            for _ in 1...4 {
                var body = try #require(try asking.frame()).body
                answers[try #require(body.readInteger(as: UInt16.self).flatMap(MembershipAnswer.init)), default: 0] += 1
            }
        }
        #expect(answers == [.underWay: 8, .nobodyAnswers: 4])
        var calls = 0
        while mute.accept() != nil { calls += 1 }
        #expect(calls == 4)
    }

    @Test("two learners vote and two members go, each in one change")
    func together() async throws {
        let cluster = try await TestCluster.start(members: 3, spare: 2)
        let client = cluster.client()
        let writer = Self.load(cluster, "together")
        for id in 4...5 {
            try await cluster.join(id)
            try await client.change(.add(UInt64(id), address: cluster.addresses[id - 1]))
        }
        let both = try await cluster.run("banyan", Self.nodes(cluster) + ["member", "promote", "4", "5"])
        #expect(both.code == 0, "\(both.errors)")
        #expect(try await client.members().filter { !$0.isLearner }.count == 5)
        let leader = try await cluster.leader()
        let others = (1...5).filter { $0 != leader }.prefix(2).map { "\($0)" }
        let gone = try await cluster.run("banyan", Self.nodes(cluster) + ["member", "remove"] + others)
        #expect(gone.code == 0, "\(gone.errors)")
        #expect(try await client.members().count == 3)
        #expect(try cluster.log(leader).contains("joint=true"))
        writer.cancel()
        #expect(try await writer.value >= 50)
        await client.close()
    }

    @Test("the leader and another go together, and one that stays leads")
    func leaderAndAnother() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client()
        let term = try await client.status().map(\.term).max() ?? 0
        let leader = try await cluster.leader()
        for other in [leader % 3 + 1] {
            let gone = try await cluster.run(
                "banyan", Self.nodes(cluster) + ["member", "remove", "\(leader)", "\(other)"])
            #expect(gone.code == 0, "\(gone.errors)")
        }
        let stays = try await cluster.leader(other: leader)
        let own = BanyanClient(nodes: [cluster.addresses[stays - 1]], timeout: .seconds(10))
        #expect(try await own.members().map(\.id) == [UInt64(stays)])
        #expect(try await own.status().first { $0.id == UInt64(stays) }?.term == term + 1)
        await own.close()
        await client.close()
    }

    @Test("a member whose directory was lost is refused under its old name, and comes back as a new one")
    func replaced() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client()
        for number in 0..<50 { _ = try await client.put("/f/\(number)", [UInt8(number)]) }
        let lost = try await cluster.leader() % 3 + 1
        try cluster.wipe(lost)
        let refused = try cluster.start(lost, isNew: true)
        #expect(await cluster.condition { try cluster.log(lost).contains("banyan member replace \(lost)") })
        // What it was told is no order: it goes on asking, until somebody ends it.
        #expect(refused.isRunning)
        try cluster.wipe(lost)
        try await cluster.join(lost)
        let old = try await client.members().first { $0.id == UInt64(lost) }?.incarnation
        let result = try await cluster.run("banyan", Self.nodes(cluster) + ["member", "replace", "\(lost)"])
        #expect(result.code == 0, "\(result.errors)")
        let new = try await client.members().first { $0.id == UInt64(lost) }
        #expect(new?.isLearner == false)
        #expect(new?.incarnation != old)
        let own = BanyanClient(nodes: [cluster.addresses[lost - 1]], timeout: .seconds(10))
        #expect(try await own.get("/f/49").content == [49])
        await own.close()
        await client.close()
    }

    @Test("changes that can't be are refused with a reason, and change nothing")
    func refused() async throws {
        let cluster = try await TestCluster.start(members: 3, spare: 1)
        let client = cluster.client()
        let before = try await client.members()
        try await cluster.join(4)
        let nobody = try TestCluster(members: 1).addresses[0]
        let wrong: [([String], Int32, String)] = [
            (["add", "1", nobody], 1, "member already"), (["add", "5", nobody], 1, "nobody answers"),
            (["add", "5", cluster.addresses[3]], 1, "another member"),
            (["add", "5", cluster.addresses[0]], 1, "another member"), (["promote", "9"], 3, "no such"),
            (["promote", "1"], 1, "votes already"), (["remove", "9"], 3, "no such"),
            (["replace", "1"], 1, "another directory"), (["replace", "9"], 3, "no such"),
            (["set-address", "1", cluster.addresses[1]], 1, "another"),
            (["set-address", "1", nobody], 1, "nobody answers"),
            (["add", "4", "nowhere"], 2, "HOST:PORT"),
        ]
        for (arguments, code, part) in wrong {
            let result = try await cluster.run("banyan", Self.nodes(cluster) + ["member"] + arguments)
            #expect(result.code == code, "\(arguments): \(result.errors)")
            #expect(result.errors.contains(part), "\(arguments): \(result.errors)")
        }
        #expect(try await client.members() == before)
        // With one of three stopped, another can't go: of the two that would be left, one is not heard.
        let leader = try await cluster.leader()
        let (stopped, other) = (leader % 3 + 1, (leader + 1) % 3 + 1)
        try cluster.signal(stopped, SIGKILL)
        let unheard = try await cluster.run("banyan", Self.nodes(cluster) + ["member", "remove", "\(other)"])
        #expect(unheard.code == 1)
        #expect(unheard.errors.contains("no majority is heard"), "\(unheard.errors)")
        #expect(try await client.members() == before)
        await client.close()
        let alone = try await TestCluster.start(members: 1)
        let last = try await alone.run("banyan", Self.nodes(alone) + ["member", "remove", "1"])
        #expect(last.code == 1)
        #expect(last.errors.contains("last member that votes"), "\(last.errors)")
    }

    @Test("a member that moved is found at its new address")
    func moved() async throws {
        let cluster = try await TestCluster.start(members: 3, spare: 1)
        let client = cluster.client()
        let member = try await cluster.leader() % 3 + 1
        let address = cluster.addresses[3]
        try cluster.signal(member, SIGTERM)
        try cluster.start(member, options: ["--listen", address])
        #expect(await cluster.condition { try cluster.log(member).contains("listening") })
        let result = try await cluster.run(
            "banyan", Self.nodes(cluster) + ["member", "set-address", "\(member)", address])
        #expect(result.code == 0, "\(result.errors)")
        _ = try await client.put("/moved", [1])
        let moved = BanyanClient(nodes: [address], timeout: .seconds(10))
        #expect(try await moved.get("/moved").content == [1])
        await moved.close()
        // The configuration says where to listen from now on.
        try cluster.signal(member, SIGTERM)
        try cluster.start(member)
        #expect(await cluster.condition { try cluster.log(member).contains("on \(address)") })
        await client.close()
    }

    /// From the version without sessions, which has another digest too, and from the one before the newest.
    @Test(
        "members are upgraded one at a time under load, and the new version comes into force with the last",
        arguments: ["1", "4"])
    func rollingUpgrade(from version: String) async throws {
        let old = ["--cluster-version", version]
        let cluster = try await TestCluster.start(members: 3)
        // Founded by the older programs.
        let before = try TestCluster(members: 3, options: old)
        for id in 1...3 { try before.start(id, isNew: true) }
        _ = try await before.leader()
        let writer = Self.load(before, "upgrade", hasSessions: version != "1")
        for id in 1...3 {
            try before.signal(id, SIGTERM)
            try before.start(id, options: ["--cluster-version", "5"])
            // The next one goes when this one is back: a majority has to stay.
            let status = before.client()
            #expect(await before.condition { try await before.leaderAndFollowers(status) })
            await status.close()
            let logs = try (1...3).map { try before.log($0) }
            if id < 3 { #expect(!logs.contains { $0.contains("from=\(version)") }) }
        }
        let isRaised = await before.condition {
            try (1...3).contains { try before.log($0).contains("from=\(version) to=5") }
        }
        #expect(isRaised)
        writer.cancel()
        #expect(try await writer.value >= 50)
        // What is verified is what was committed last: that goes by the new version.
        let status = before.client()
        #expect(
            await before.condition {
                let members = try await status.status()
                let raised = members.allSatisfy { $0.statistics["cluster_version"] == 5 }
                return raised && members.allSatisfy { $0.statistics["durable_index"] ?? 0 >= $0.appliedIndex }
            })
        await status.close()
        let verified = try await before.run("banyan", Self.nodes(before) + ["verify"])
        #expect(verified.code == 0, "\(verified.output)\(verified.errors)")
        // A program that does not know the version can't take part any more, and says so.
        try before.signal(1, SIGTERM)
        let outdated = try before.start(1)
        #expect(await before.condition { !outdated.isRunning })
        #expect(outdated.terminationStatus == 1)
        let reason = try before.log(1).suffix(400)
        #expect(reason.contains("version"), "\(reason)")
        withExtendedLifetime(cluster) {}
    }

    @Test("members that all moved at once are started with their new addresses, which are recorded")
    func movedTogether() async throws {
        let cluster = try await TestCluster.start(members: 3, spare: 3)
        let client = cluster.client()
        _ = try await client.put("/m", [7])
        await client.close()
        for id in 1...3 { try cluster.signal(id, SIGTERM) }
        let list = (1...3).map { "\($0)=\(cluster.addresses[$0 + 2])" }.joined(separator: ",")
        for id in 1...3 { try cluster.start(id, options: ["--id", "\(id)", "--cluster", list]) }
        let nodes = Array(cluster.addresses[3...])
        let moved = BanyanClient(nodes: nodes, timeout: .seconds(20))
        #expect(try await moved.get("/m").content == [7])
        #expect(await cluster.condition { try await moved.members().map(\.address) == nodes })
        #expect(try await moved.put("/n", [8]) > 0)
        for id in 1...3 { #expect(try cluster.log(id).contains("members have moved")) }
        // It is on record: the next start needs no list, and one that is given once more changes nothing.
        for id in 1...3 { try cluster.signal(id, SIGTERM) }
        for id in 1...3 { try cluster.start(id, options: id == 1 ? ["--id", "1", "--cluster", list] : []) }
        #expect(try await moved.get("/n").content == [8])
        #expect(try await moved.members().map(\.address) == nodes)
        #expect(try !cluster.log(1).contains("members have moved"))
        await moved.close()
        // And all the way back.
        for id in 1...3 { try cluster.signal(id, SIGTERM) }
        let founders = Array(cluster.addresses[..<3])
        let first = (1...3).map { "\($0)=\(founders[$0 - 1])" }.joined(separator: ",")
        for id in 1...3 { try cluster.start(id, options: ["--id", "\(id)", "--cluster", first]) }
        let back = BanyanClient(nodes: founders, timeout: .seconds(20))
        #expect(try await back.get("/n").content == [8])
        #expect(await cluster.condition { try await back.members().map(\.address) == founders })
        await back.close()
    }

    @Test("a lost majority is recovered offline: what one member has goes on, and the others can't come back")
    func recovery() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client()
        var revision: UInt64 = 0
        for number in 0..<20 { revision = try await client.put("/r/\(number)", [UInt8(number)]) }
        // All have the last one.
        #expect(
            await cluster.condition {
                try await Set(client.status().map(\.appliedIndex)).count == 1
            })
        await client.close()
        for id in 1...3 { try cluster.signal(id, SIGKILL) }
        try FileManager.default.removeItem(atPath: cluster.directory(2))
        let kept = ["recover", "--data", cluster.directory(1)]
        let shown = try await cluster.run("banyan", kept)
        #expect(shown.code == 0, "\(shown.errors)")
        let forced = try await cluster.run("banyan", kept + ["--force-new-cluster"])
        #expect(forced.code == 0, "\(forced.errors)")
        #expect(forced.errors.contains("WARNING"))
        #expect(try await cluster.run("banyan", ["recover", "--data", cluster.folder.path]).code == 3)
        try cluster.start(1)
        let alone = BanyanClient(nodes: [cluster.addresses[0]], timeout: .seconds(20))
        #expect(try await alone.get("/r/19").content == [19])
        // No revision comes back, and what was known of one from before holds for nothing that was written since.
        #expect(try await alone.put("/r/new", [1]) > revision + 1_000_000)
        // An old member learns that its cluster was given up, says so, and ends at its operator's word alone.
        let old = try cluster.start(3)
        #expect(await cluster.condition { try cluster.log(3).contains("given up") })
        #expect(old.isRunning)
        let told = BanyanClient(nodes: [cluster.addresses[2]], timeout: .seconds(10))
        #expect(
            await cluster.condition {
                try await told.status().contains { $0.workUnderWay.contains { $0.description.contains("given up") } }
            })
        await told.close()
        try cluster.signal(3, SIGTERM)
        // New ones join.
        try await cluster.join(2)
        let added = try await cluster.run(
            "banyan", ["--nodes", cluster.addresses[0], "--timeout", "20s", "member", "add", "2", cluster.addresses[1]])
        #expect(added.code == 0, "\(added.errors)")
        let second = BanyanClient(nodes: [cluster.addresses[1]], timeout: .seconds(10))
        #expect(try await second.get("/r/new").content == [1])
        await second.close()
        await alone.close()
    }

    /// Says goodbye to whoever comes, with each code in turn, until `isOver`.
    private static func refuseAll(
        on port: Int, of cluster: TestCluster, until isOver: () async throws -> Bool
    ) async throws -> Bool {
        let listener = try RawListener(on: port)
        var code: UInt16 = 0
        return await cluster.condition {
            while let visitor = listener.accept() {
                visitor.say(Forger.goodbye(code % 9, Array("end\n\u{1b}[2J".utf8)))
                code += 1
            }
            return try await isOver()
        }
    }

    @Test("what is said at a member's address, or by who comes in, ends no member and founds no cluster")
    func hearsay() async throws {
        let cluster = try TestCluster(members: 3)
        for id in 1...2 { try cluster.start(id, isNew: true) }
        #expect(
            try await Self.refuseAll(on: cluster.ports[2], of: cluster) {
                try (1...2).allSatisfy {
                    try cluster.log($0).contains("member 3 refuses this one: end\\u{a}\\u{1b}[2J")
                }
            })
        let forger = try Forger(ports: Array(cluster.ports[..<2]))
        let members = (1...3).map { id in
            Member(
                id: UInt64(id), peer: forger.members.first { $0.id == UInt64(id) }?.peer ?? PeerID(7),
                address: cluster.addresses[id - 1])
        }
        for target in forger.members {
            let connection = try RawConnection(to: target.port)
            let text = Configuration(clusterID: 77, members: members).text
            connection.say(
                Forger.bytes { buffer in
                    var hello = Hello(role: .peer)
                    (hello.memberID, hello.incarnation, hello.members) = (3, 7, text)
                    hello.write(to: &buffer)
                    buffer.writeFrame(.genesis) { Configuration(clusterID: 77, members: members).write(to: &$0) }
                })
            connection.finish()
        }
        for id in 1...2 { #expect(try !cluster.log(id).contains("cluster founded")) }
        try cluster.start(3, isNew: true)
        _ = try await cluster.leader()
        #expect(try Forger(cluster).clusterID != 77)
        // The same, of members that run.
        try cluster.signal(3, SIGKILL)
        let client = cluster.client()
        #expect(
            try await Self.refuseAll(on: cluster.ports[2], of: cluster) {
                let rows = try await client.status().filter { $0.id != 3 }
                return rows.count == 2
                    && rows.allSatisfy { row in
                        row.workUnderWay.contains { $0.description.contains("with member 3: end\\u{a}\\u{1b}[2J") }
                    }
            })
        _ = try await client.put("/goes-on", [1])
        for id in 1...2 { #expect(cluster.isRunning(id)) }
        try cluster.start(3)
        #expect(await cluster.condition { try await client.status().allSatisfy { $0.workUnderWay.isEmpty } })
        await client.close()
    }
}

@Suite("Retries and reads of real members", .serialized)
struct ConsistencyTests {
    @Test("a write whose leader stops or dies is sent again, and takes effect once")
    func exactlyOnce() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client(timeout: .seconds(20))
        _ = try await client.put("/warm", [])
        var leader = try await cluster.leader()
        for round in 0..<4 {
            let writes = Task {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for number in 0..<200 {
                        // Applied twice, the second time would find the file there.
                        group.addTask { _ = try await client.put("/once/\(round)-\(number)", [1], if: .absent) }
                    }
                    try await group.waitForAll()
                }
            }
            try cluster.signal(leader, round % 2 == 0 ? SIGSTOP : SIGKILL)
            try await writes.value
            let old = leader
            leader = try await cluster.leader(other: old)
            if round % 2 == 0 { try cluster.signal(old, SIGCONT) } else { try cluster.start(old) }
        }
        await client.close()
    }

    @Test("reads by lease and of any age answer what they promise, and are refused when they can't")
    func consistency() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client(timeout: .seconds(2))
        _ = try await client.put("/c", [1])
        #expect(try await client.get("/c", .lease).content == [1])
        let leader = try await cluster.leader()
        let follower = leader % 3 + 1
        let near = BanyanClient(nodes: [cluster.addresses[follower - 1]], timeout: .seconds(2))
        #expect(try await near.get("/c", .stale(maximumAge: .seconds(60))).content == [1])
        #expect(try await near.get("/c", .stale(maximumAge: .milliseconds(1))).content == [1])
        for id in 1...3 where id != follower { try cluster.signal(id, SIGKILL) }
        // Whoever is left alone still says what it has, but not how new that is.
        #expect(try await near.get("/c", .stale(maximumAge: nil)).content == [1])
        #expect(try await near.get("/c", .stale(maximumAge: .seconds(3600))).content == [1])
        for consistency in [Consistency.stale(maximumAge: .milliseconds(1)), .lease] {
            await #expect {
                try await near.get("/c", consistency)
            } throws: { error in
                if case .noQuorum? = error as? BanyanError { true } else { false }
            }
        }
        let nodes = ["--nodes", cluster.addresses[follower - 1], "--timeout", "1s"]
        #expect(try await cluster.run("banyan", nodes + ["get", "/c", "--consistency", "stale"]).code == 0)
        #expect(try await cluster.run("banyan", nodes + ["get", "/c", "--consistency", "lease"]).code == 5)
        #expect(try await cluster.run("banyan", nodes + ["get", "/c", "--max-age", "1s"]).code == 2)
        await near.close()
        await client.close()
    }
}
