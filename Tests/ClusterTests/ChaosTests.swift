import BanyanClient
import Foundation
import Raft
import Testing

/// Five real members, clients that write down what they see, and a schedule of all that can happen to machines. What the
/// clients saw must have an order, and everything acknowledged must be there at the end.
///
/// `make chaos` gives it more time; it prints its seed, and BANYAN_CHAOS_SEED repeats the schedule (not the timing).
@Suite("Chaos", .serialized)
struct ChaosTests {
    private enum Fault: CaseIterable {
        case kill, killLeader, stop, cutLink, isolate, isolateLeader, slowLinks, transfer, loseState, doubtState, wipe,
            exchange,
            restartAll
    }

    private static func environment(_ name: String) -> UInt64? {
        ProcessInfo.processInfo.environment[name].flatMap(UInt64.init)
    }

    @Test(
        "five members under kills, stops, cuts, lost disks, changes of membership and a hostile crowd lose nothing and never lie"
    )
    func chaos() async throws {
        let seconds = Self.environment("BANYAN_CHAOS_SECONDS") ?? 20
        let seed = Self.environment("BANYAN_CHAOS_SEED") ?? UInt64.random(in: 0...UInt64.max)
        print("chaos: seed \(seed), \(seconds) s")
        var generator = SeededGenerator(seed: seed)
        let cluster = try await TestCluster.start(members: 5, options: ["--log-tail", "500"], isProxied: true)
        let history = cluster.folder.appendingPathComponent("history.jsonl").path
        let load = try cluster.begin(
            "banyan-load",
            [
                "--nodes", cluster.addresses.joined(separator: ","), "--workload", "register", "--clients", "10",
                "--connections", "5", "--files", "5", "--duration", "\(seconds)s", "--history", history,
            ])
        let crowd = HostileCrowd(ports: cluster.ports, seed: seed)
        let end = ContinuousClock.now + .seconds(Int(seconds) - 3)
        var done: [Fault: Int] = [:]
        while ContinuousClock.now < end {
            let fault = Fault.allCases.randomElement(using: &generator) ?? .kill
            if try await begin(fault, on: cluster, load, &generator) { done[fault, default: 0] += 1 }
            await progress(cluster, load, by: UInt64.random(in: 1...40, using: &generator))
        }
        print("chaos: \(done.map { "\($0.key) \($0.value)" }.sorted().joined(separator: ", "))")
        try recover(cluster)
        try await load.ended()
        print("chaos: meanwhile \(await crowd.stop())")
        #expect(load.terminationStatus == 0, "the load tool failed; the history is in \(history)")
        let check = try await cluster.run("banyan-sim", ["--check", history])
        if check.code != 0 {
            let kept = FileManager.default.temporaryDirectory.appendingPathComponent("banyan-chaos-\(seed).jsonl")
            try? FileManager.default.copyItem(atPath: history, toPath: kept.path)
            Issue.record("seed \(seed): \(check.errors); the history is in \(kept.path)")
        }
        print("chaos: \(check.output)", terminator: "")
        // Nothing diverged: members at one index have one digest.
        let client = cluster.client()
        let isEqual = await cluster.condition {
            let members = try await client.status()
            return members.count == 5 && Set(members.map { "\($0.appliedIndex) \($0.digest)" }).count == 1
        }
        let members = try await client.status()
        #expect(isEqual, "seed \(seed): \(members)")
        await client.close()
    }

    /// `make failover` kills 50 times. No time is asserted: it is printed.
    @Test("after each kill of the leader a write is acknowledged again")
    func failover() async throws {
        let kills = Int(Self.environment("BANYAN_FAILOVER_KILLS") ?? 2)
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client(timeout: .seconds(30))
        _ = try await client.put("/failover", [])
        var gaps: [Duration] = []
        for kill in 0..<kills {
            let leader = try await cluster.leader()
            try cluster.signal(leader, SIGKILL)
            let killed = ContinuousClock.now
            _ = try await client.put("/failover", Array("\(kill)".utf8))
            gaps.append(ContinuousClock.now - killed)
            try cluster.start(leader)
            let isLevel = await cluster.condition {
                let members = try await client.status()
                return Set(members.map(\.appliedIndex)).count == 1 && members.allSatisfy { $0.isRunning }
            }
            #expect(isLevel)
        }
        gaps.sort()
        print("failover: \(kills) kills, median \(gaps[kills / 2]), worst \(gaps[kills - 1])")
        await client.close()
    }

    /// Waits until the clients' writes have moved the cluster on by some entries, or the clients are done: how long a fault
    /// lasts. All faults leave a majority, so that it must move.
    private func progress(_ cluster: TestCluster, _ load: Process, by entries: UInt64) async {
        let client = cluster.client(timeout: .seconds(2))
        var target: UInt64?
        let isMoving = await cluster.condition {
            guard load.isRunning else { return true }
            let commit = try await client.status().map(\.commitIndex).max() ?? 0
            if target == nil { target = commit + entries }
            return commit >= target ?? .max
        }
        #expect(isMoving, "a majority stands still")
        await client.close()
    }

    /// Everybody runs, and hears everybody.
    private func recover(_ cluster: TestCluster) throws {
        cluster.rules.heal()
        for id in 1...5 {
            if cluster.isRunning(id) { try cluster.signal(id, SIGCONT) } else { try cluster.start(id) }
        }
    }

    private func begin(
        _ fault: Fault, on cluster: TestCluster, _ load: Process, _ generator: inout SeededGenerator
    ) async throws -> Bool {
        let member = Int.random(in: 1...5, using: &generator)
        let entries = UInt64.random(in: 1...300, using: &generator)
        let leader = try? await cluster.leader()
        switch fault {
        case .kill, .killLeader:
            let victim = fault == .killLeader ? leader ?? member : member
            try cluster.signal(victim, SIGKILL)
            await progress(cluster, load, by: entries)
            try cluster.start(victim)
        case .stop:
            try cluster.signal(member, SIGSTOP)
            await progress(cluster, load, by: entries)
            try cluster.signal(member, SIGCONT)
        case .restartAll:
            for id in 1...5 { try cluster.signal(id, SIGKILL) }
            for id in 1...5 { try cluster.start(id) }
        case .cutLink:
            cluster.rules.cut(member, member % 5 + 1)
            await progress(cluster, load, by: entries)
            cluster.rules.heal()
        case .isolate, .isolateLeader:
            cluster.rules.isolate(fault == .isolateLeader ? leader ?? member : member, from: 1...5)
            await progress(cluster, load, by: entries)
            cluster.rules.heal()
        case .slowLinks:
            for other in 1...5 where other != member { cluster.rules.slow(other, member) }
            await progress(cluster, load, by: entries)
            cluster.rules.heal()
        case .transfer:
            let client = cluster.client(timeout: .seconds(2))
            try? await client.transferLeadership()
            await client.close()
        case .loseState, .doubtState:
            return try await damageState(of: member, of: cluster, isLost: fault == .loseState)
        case .wipe: return try await wipe(member, of: cluster)
        case .exchange: return try await exchange(member, of: cluster)
        }
        return true
    }

    /// Whether each member has all that is committed: then one of them may lose its disk.
    private func isLevel(_ client: BanyanClient) async throws -> Bool {
        let members = try await client.status()
        let commit = members.map(\.commitIndex).max() ?? 0
        return members.count == 5 && members.allSatisfy { $0.isRunning && $0.role != "learner" }
            && members.allSatisfy { $0.appliedIndex + 1000 > commit }
    }

    /// Ends a member and takes its state away, or has it believe that rows are damaged: its log and its vote are there, and go
    /// on. What it believes to be sound, it serves until another state is there.
    private func damageState(of member: Int, of cluster: TestCluster, isLost: Bool) async throws -> Bool {
        let client = cluster.client(timeout: .seconds(10))
        let isLevel = (try? await isLevel(client)) == true
        await client.close()
        // A member that was to get a state from this one is level again.
        guard isLevel else { return false }
        try cluster.signal(member, SIGKILL)
        let directory = cluster.directory(member)
        if isLost {
            for name in try FileManager.default.contentsOfDirectory(atPath: directory) where name.hasPrefix("state-") {
                try FileManager.default.removeItem(atPath: directory + "/" + name)
            }
        } else {
            try "rotten: a row".write(toFile: directory + "/damaged", atomically: true, encoding: .utf8)
        }
        try cluster.start(member)
        return true
    }

    private func wipe(_ member: Int, of cluster: TestCluster) async throws -> Bool {
        let client = cluster.client(timeout: .seconds(10))
        guard (try? await isLevel(client)) == true else {
            await client.close()
            return false
        }
        try cluster.wipe(member)
        try await cluster.join(member)
        let isBack = await cluster.condition {
            do { try await client.change(.replace(UInt64(member), address: nil)) } catch BanyanError.membershipRefused {
                // An answer that was lost may have been "done": then it is a member already, by its new directory.
            }
            return try await client.members().contains { $0.id == UInt64(member) && $0.isLearner }
        }
        let log = try cluster.log(member).suffix(500)
        #expect(isBack, "member \(member) was not taken back: \(log)")
        await promote(member, of: cluster, client)
        return true
    }

    private func promote(_ member: Int, of cluster: TestCluster, _ client: BanyanClient) async {
        let isVoter = await cluster.condition {
            try? await client.change(.promote(UInt64(member)))
            return try await client.members().contains { $0.id == UInt64(member) && !$0.isLearner }
        }
        #expect(isVoter, "member \(member) does not vote again")
        await client.close()
    }

    /// Lets a member go, and takes it in again.
    private func exchange(_ member: Int, of cluster: TestCluster) async throws -> Bool {
        let client = cluster.client(timeout: .seconds(10))
        guard (try? await isLevel(client)) == true else {
            await client.close()
            return false
        }
        let isGone = await cluster.condition {
            try? await client.change(.remove(UInt64(member)))
            return try await !client.members().contains { $0.id == UInt64(member) }
        }
        #expect(isGone, "member \(member) was not let go")
        try cluster.wipe(member)
        try await cluster.join(member)
        let address = cluster.addresses[member - 1]
        let isBack = await cluster.condition {
            try? await client.change(.add(UInt64(member), address: address))
            return try await client.members().contains { $0.id == UInt64(member) }
        }
        let log = try cluster.log(member).suffix(500)
        #expect(isBack, "member \(member) was not taken in: \(log)")
        await promote(member, of: cluster, client)
        return true
    }
}
