import BanyanClient
import Foundation
import Testing

@Suite("Three real members", .serialized)
struct ClusterTests {
    @Test("a put through any member is read from every member")
    func putAndGetAnywhere() async throws {
        let cluster = try await TestCluster.start(members: 3)
        for (number, address) in cluster.addresses.enumerated() {
            let client = BanyanClient(nodes: [address], timeout: .seconds(10))
            _ = try await client.put("/etc/app/\(number).conf", Array("value \(number)".utf8))
            await client.close()
        }
        for address in cluster.addresses {
            let client = BanyanClient(nodes: [address], timeout: .seconds(10))
            for number in 0..<3 {
                let (content, _) = try await client.get("/etc/app/\(number).conf")
                #expect(content == Array("value \(number)".utf8))
            }
            await client.close()
        }
    }

    @Test("after the leader is killed, every acknowledged put is there and new ones go on")
    func killedLeader() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client()
        let leader = try await cluster.leader()
        var acknowledged: [String] = []
        for number in 0..<200 {
            if number == 100 { try cluster.signal(leader, SIGKILL) }
            do {
                _ = try await client.put("/f/\(number)", Array("\(number)".utf8))
                acknowledged.append("\(number)")
            } catch BanyanError.unknownOutcome {
                // The answer was on its way when the leader died: either is right.
            }
        }
        #expect(acknowledged.count >= 190)
        try cluster.start(leader)
        for name in acknowledged {
            let (content, _) = try await client.get("/f/\(name)")
            #expect(content == Array(name.utf8))
        }
        try await expectEqualDigests(cluster, client)
        await client.close()
    }

    @Test("without a majority a put ends with exit code 5, and works again when one member is back")
    func lostMajority() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let leader = try await cluster.leader()
        let others = [1, 2, 3].filter { $0 != leader }
        try cluster.signal(leader, SIGKILL)
        try cluster.signal(others[0], SIGKILL)
        let nodes = cluster.addresses.joined(separator: ",")
        let put = ["--nodes", nodes, "--timeout", "2s", "put", "/a", "/proc/self/cmdline"]
        let refused = try await cluster.run("banyan", put)
        #expect(refused.code == 5, "\(refused.errors)")
        try cluster.start(others[0])
        _ = try await cluster.leader()
        let done = try await cluster.run(
            "banyan", ["--nodes", nodes, "--timeout", "10s", "put", "/a", "/proc/self/cmdline"])
        #expect(done.code == 0, "\(done.errors)")
    }

    @Test("all members killed at once in the middle of puts keep every acknowledged one")
    func allKilled() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client(timeout: .seconds(30))
        let acknowledged = await withTaskGroup(of: Int?.self) { group in
            for number in 0..<2000 {
                group.addTask {
                    let path = "/all/\(number)"
                    return (try? await client.put(path, Array(path.utf8))) == nil ? nil : number
                }
            }
            var done: [Int] = []
            var isKilled = false
            for await number in group {
                if let number { done.append(number) }
                if done.count == 100, !isKilled {
                    isKilled = true
                    for id in 1...3 { try? cluster.signal(id, SIGKILL) }
                    for id in 1...3 { _ = try? cluster.start(id) }
                }
            }
            return done
        }
        #expect(acknowledged.count >= 100)
        for number in acknowledged {
            let path = "/all/\(number)"
            #expect(try await client.get(path).content == Array(path.utf8))
        }
        await client.close()
    }

    @Test("a stopped follower that comes back disturbs no term, and catches up")
    func stoppedFollower() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        try await witness.expectNoEffect(of: "a follower's stop") {
            let follower = try await cluster.leader() % 3 + 1
            try cluster.signal(follower, SIGSTOP)
            // Long enough for it to believe that its leader is gone: several election timeouts.
            let since = ContinuousClock.now
            var number = 0
            while ContinuousClock.now - since < .seconds(2) {
                _ = try await witness.client.put("/while-stopped/\(number % 100)", Array("\(number)".utf8))
                number += 1
            }
            try cluster.signal(follower, SIGCONT)
            try await expectEqualDigests(cluster, witness.client)
        }
        await witness.client.close()
    }

    @Test("leadership goes to the named member, and to another when the leader is told to end, and no request fails")
    func transfer() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client()
        var leader = try await cluster.leader()
        let writer = Task {
            var number = 0
            while !Task.isCancelled || number < 50 {
                _ = try await client.put("/t/\(number % 100)", Array("\(number)".utf8))
                #expect(try await client.get("/t/\(number % 100)").content == Array("\(number)".utf8))
                number += 1
            }
            return number
        }
        let nodes = ["--nodes", cluster.addresses.joined(separator: ",")]
        for _ in 0..<6 {
            let target = leader % 3 + 1
            let result = try await cluster.run("banyan", nodes + ["leader", "transfer", "\(target)"])
            #expect(result.code == 0, "\(result.errors)")
            #expect(result.output.hasPrefix("member \(target) "), "\(result.output)")
            leader = target
        }
        #expect(try await cluster.run("banyan", nodes + ["leader", "transfer", "9"]).code == 3)
        writer.cancel()
        #expect(try await writer.value >= 50)
        let term = try await client.status().map(\.term).max() ?? 0
        try cluster.signal(leader, SIGTERM)
        let next = try await cluster.leader(other: leader)
        #expect(try await client.status().first { $0.id == UInt64(next) }?.term == term + 1)
        #expect(try cluster.log(next).contains("role=leader term=\(term + 1)"))
        await client.close()
    }

    @Test("a member that was away until the log was compacted past it catches up by a snapshot while writes go on")
    func snapshot() async throws {
        let cluster = try await TestCluster.start(members: 3, options: ["--log-tail", "100", "--log-level", "debug"])
        let client = cluster.client()
        let leader = try await cluster.leader()
        let away = leader % 3 + 1
        let put = { (number: Int) in
            let content = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: number % 5 * 1000)
            _ = try await client.put("/s/\(number % 7)/\(number)", content)
        }
        for number in 0..<50 { try await put(number) }
        try cluster.signal(away, SIGKILL)
        // The state commits once a second, and the log follows it: write until it no longer reaches back.
        let writer = Task {
            var number = 50
            while !Task.isCancelled {
                try await put(number)
                number += 1
            }
            return number
        }
        #expect(
            await cluster.condition {
                try cluster.log(leader).matches(of: /index=(\d+) .*log compacted/).contains { Int($0.1) ?? 0 > 60 }
            })
        try cluster.start(away)
        #expect(await cluster.condition { try cluster.log(away).contains("snapshot installed") })
        writer.cancel()
        let count = try await writer.value
        try await expectEqualDigests(cluster, client)
        #expect(try cluster.log(leader).contains("snapshot sent"))
        // What it got survives its own end, and is served when it leads or is asked.
        try cluster.signal(away, SIGKILL)
        try cluster.start(away)
        let asked = BanyanClient(nodes: [cluster.addresses[away - 1]], timeout: .seconds(10))
        for number in 0..<count {
            let (content, _) = try await asked.get("/s/\(number % 7)/\(number)")
            #expect(content == [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: number % 5 * 1000))
        }
        try await expectEqualDigests(cluster, client)
        for client in [client, asked] { await client.close() }
    }

    @Test("a member whose directory was wiped is refused, with and without --bootstrap")
    func wipedMember() async throws {
        let cluster = try await TestCluster.start(members: 3)
        try cluster.signal(2, SIGKILL)
        try FileManager.default.removeItem(atPath: cluster.directory(2))
        let list = cluster.ports.enumerated().map { "\($0 + 1)=127.0.0.1:\($1)" }.joined(separator: ",")
        let arguments = ["--data", cluster.directory(2), "--id", "2", "--cluster", list]
        let bare = try await cluster.run("banyand", arguments)
        #expect(bare.code == 1)
        #expect(bare.errors.contains("--bootstrap"))
        // It asks on, since a refusal may be anybody's; nobody takes it in, and its log says why and what to do.
        let wiped = try cluster.start(2, options: ["--id", "2", "--cluster", list, "--bootstrap"])
        #expect(await cluster.condition { try cluster.log(2).contains("another directory") })
        #expect(wiped.isRunning)
        let others = BanyanClient(nodes: [cluster.addresses[0], cluster.addresses[2]], timeout: .seconds(10))
        _ = try await others.put("/x", [1])
        await others.close()
    }

    @Test("a stopped leader that comes back serves no old read, and disturbs no term")
    func stoppedLeader() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client()
        _ = try await client.put("/x", Array("old".utf8))
        let old = try await cluster.leader()
        try cluster.signal(old, SIGSTOP)
        let others = BanyanClient(
            nodes: cluster.addresses.enumerated().filter { $0.offset != old - 1 }.map(\.element), timeout: .seconds(10))
        _ = try await others.put("/x", Array("new".utf8))
        let term = try await others.status().map(\.term).max()
        // The read waits in the stopped leader's socket, and is the first thing that it sees when it goes on.
        let returned = BanyanClient(nodes: [cluster.addresses[old - 1]], timeout: .seconds(10))
        async let read = returned.get("/x")
        try cluster.signal(old, SIGCONT)
        #expect(try await read.content == Array("new".utf8))
        try await expectEqualDigests(cluster, client)
        #expect(try await others.status().map(\.term).max() == term)
        for client in [client, others, returned] { await client.close() }
    }

    @Test(
        "a mirror whose leader is killed in the middle ends by itself, and reads back byte for byte from every member")
    func mirror() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let source = cluster.folder.appendingPathComponent("source")
        for number in 0..<400 {
            let folder = source.appendingPathComponent("d\(number % 7)/e\(number % 3)")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            let content = Data((0..<number * 37).map { UInt8(truncatingIfNeeded: $0 &* number) })
            try content.write(to: folder.appendingPathComponent("\(number)"))
        }
        let leader = try await cluster.leader()
        let client = cluster.client()
        let nodes = cluster.addresses.joined(separator: ",")
        let push = try cluster.begin("banyan", ["--nodes", nodes, "mirror", "push", source.path, "/mirror"])
        while (try? await client.stat("/mirror/d0/e0")) == nil, push.isRunning { await Task.yield() }
        try cluster.signal(leader, SIGKILL)
        try await push.ended()
        #expect(push.terminationStatus == 0)
        try cluster.start(leader)
        try await expectEqualDigests(cluster, client)
        for (number, address) in cluster.addresses.enumerated() {
            let copy = cluster.folder.appendingPathComponent("copy-\(number)")
            let pull = try await cluster.run("banyan", ["--nodes", address, "mirror", "pull", "/mirror", copy.path])
            #expect(pull.code == 0, "\(pull.errors)")
            #expect(FileManager.default.contentsEqual(atPath: source.path, andPath: copy.path))
        }
        await client.close()
    }

    @Test("a client in Python, of the standard library alone, puts, gets, lists and removes through a follower")
    func otherLanguage() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let leader = try await cluster.leader()
        let follower = cluster.addresses[leader % 3]
        let client = cluster.client()
        for name in ["a", "b", "c"] { _ = try await client.put("/py/\(name)", Array("of \(name)".utf8)) }
        #expect(try await cluster.python(["\(follower)", "get", "/py/b"]).output == "of b")
        let list = try await cluster.python([follower, "ls", "/py"]).output.split(separator: "\n")
        #expect(list.map { $0.split(separator: " ").first } == ["a", "b", "c"])
        #expect(try await cluster.python([follower, "put", "/py/empty"]).code == 0)
        #expect(try await client.get("/py/empty").content == [])
        #expect(try await cluster.python([follower, "rm", "/py/b"]).code == 0)
        #expect(try await cluster.python([follower, "get", "/py/b"]).errors == "result code 4\n")
        await client.close()
    }

    @Test("the command line's exit codes tell what happened")
    func exitCodes() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let nodes = ["--nodes", cluster.addresses[0]]
        let expected: [([String], Int32)] = [
            (["put", "/d/f", "/proc/self/cmdline"], 0), (["put", "/d/f", "/proc/self/cmdline", "--if-absent"], 4),
            (["get", "/none"], 3), (["rm", "/d"], 1), (["mkdir", "/d"], 1), (["put", "relative", "/dev/null"], 2),
            (["ls", "--no-such-option"], 2), (["mv", "/d/f", "/d/g"], 0), (["stat", "/d/g"], 0),
            (["ls", "/d/"], 0), (["member", "add", "4", "nowhere"], 2), (["member", "add", "0", "a:1"], 2),
            (["snapshot", "save", "-"], 2), (["snapshot", "save", "/dev/null"], 1),
            (["snapshot", "save", "/tmp"], 1), (["snapshot", "save", "s", "--from", "9"], 3),
            (["snapshot", "save", "s", "--from", "x"], 2),
            (["rm", "-r", "/d"], 0),
        ]
        for (arguments, code) in expected {
            let result = try await cluster.run("banyan", nodes + arguments)
            #expect(result.code == code, "banyan \(arguments): \(result.errors)")
        }
    }

    /// Waits until all members have applied the same index, and compares what they hold.
    private func expectEqualDigests(_ cluster: TestCluster, _ client: BanyanClient) async throws {
        var members: [MemberReport] = []
        let isLevel = await cluster.condition {
            members = try await client.status()
            return members.count == 3 && Set(members.map(\.appliedIndex)).count == 1
                && members.allSatisfy { $0.isRunning }
        }
        #expect(isLevel, "the members did not reach the same index; see \(cluster.folder.path)")
        #expect(Set(members.map(\.digest)).count == 1, "\(members)")
    }
}
