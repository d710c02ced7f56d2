import BanyanClient
import CrashPoints
import Foundation
import Testing

/// A member ends between any two durable states, and comes back with everything that was acknowledged.
@Suite("Crashes", .serialized)
struct CrashTests {
    /// Puts files until `isEnough`, and answers with what was acknowledged last of each.
    private func put(
        _ client: BanyanClient, until isEnough: () async throws -> Bool
    ) async throws -> [String: [UInt8]] {
        var acknowledged: [String: [UInt8]] = [:]
        var number = 0
        while try await !isEnough() {
            for _ in 0..<20 {
                number += 1
                let (path, content) = ("/d\(number % 7)/f\(number % 50)", Array("\(number)".utf8))
                _ = try await client.put(path, content)
                acknowledged[path] = content
            }
        }
        return acknowledged
    }

    private func check(_ cluster: TestCluster, _ acknowledged: [String: [UInt8]]) async throws {
        let client = cluster.client()
        #expect(await cluster.membersAgree(client), "the members do not agree; see \(cluster.folder.path)")
        for (path, content) in acknowledged.sorted(by: { $0.key < $1.key }) {
            #expect(try await client.get(path).content == content, "\(path)")
        }
        await client.close()
    }

    @Test(
        "a new cluster is founded although a member ends while it is",
        arguments: [
            // The log's file first, then the state's.
            "\(CrashPoint.fileMade.rawValue):1", "\(CrashPoint.fileMade.rawValue):2",
            "\(CrashPoint.fileNamed.rawValue):1",
            "\(CrashPoint.fileNamed.rawValue):2",
        ]
            + [
                CrashPoint.logMade, .identityBefore, .identityAfter, .foundBefore, .foundAfter, .stateMade,
                .stateOpened,
            ].map(\.rawValue))
    func founding(point: String) async throws {
        let cluster = try TestCluster(members: 3)
        for id in 1...3 { try cluster.start(id, isNew: true, crashingAt: id == 2 ? point : nil) }
        #expect(await cluster.condition { !cluster.isRunning(2) }, "member 2 never came to \(point)")
        try cluster.start(2, isNew: true)
        _ = try await cluster.leader()
        let client = cluster.client()
        let acknowledged = try await put(client) { true }
        await client.close()
        try await check(cluster, acknowledged)
    }

    @Test(
        "a member that ends around a commit has what it acknowledged",
        arguments: [
            CrashPoint.logCommitBefore, .logCommitAfter, .compactionBefore, .compactionAfter, .stateCommitBefore,
            .stateCommitAfter,
        ])
    func commits(point: CrashPoint) async throws {
        let cluster = try TestCluster(members: 3, options: ["--log-tail", "100"])
        for id in 1...3 { try cluster.start(id, isNew: true, crashingAt: id == 2 ? "\(point.rawValue):3" : nil) }
        let client = cluster.client()
        let acknowledged = try await put(client) { !cluster.isRunning(2) }
        await client.close()
        try cluster.start(2)
        try await check(cluster, acknowledged)
    }

    @Test(
        "a snapshot is sent and installed although a member ends in its midst",
        arguments: [
            CrashPoint.spoolMade, .spoolWritten, .importCommitBefore, .importCommitAfter,
            .receivedBeforeSync, .receivedAfterSync, .switchBefore, .switchAfter, .stateRemoveBefore, .stateRemovePart,
            .stateRemoveAfter,
        ])
    func snapshots(point: CrashPoint) async throws {
        let cluster = try TestCluster(members: 3, options: ["--log-tail", "100"])
        let isSender = [CrashPoint.spoolMade, .spoolWritten].contains(point)
        for id in 1...3 {
            try cluster.start(id, isNew: true, crashingAt: isSender && id < 3 ? point.rawValue : nil)
        }
        _ = try await cluster.leader()
        try cluster.signal(3, SIGKILL)
        let client = cluster.client()
        // Until nobody has the entries any more that member 3 lacks.
        var last: UInt64 = 0
        let acknowledged = try await put(client) {
            let members = try await client.status()
            last = max(last, members.map(\.appliedIndex).max() ?? 0)
            return last > 2000
        }
        try cluster.start(3, crashingAt: isSender ? nil : point.rawValue)
        // Whichever of the others leads ends when it spools, and so does the next.
        let ended = isSender ? [1, 2] : [3]
        #expect(
            await cluster.condition { ended.contains { !cluster.isRunning($0) } }, "nobody came to \(point.rawValue)")
        for id in ended where !cluster.isRunning(id) { try cluster.start(id) }
        if isSender {
            #expect(
                await cluster.condition {
                    for id in ended where !cluster.isRunning(id) { try cluster.start(id) }
                    return try cluster.log(3).contains("snapshot installed")
                }, "member 3 got no snapshot")
        }
        await client.close()
        try await check(cluster, acknowledged)
    }

    @Test("a member that ends when a part of a large snapshot is on its disk gets another")
    func largeSnapshot() async throws {
        let cluster = try await TestCluster.start(members: 3, options: ["--log-tail", "10"])
        let lagging = try await cluster.leader() % 3 + 1
        try cluster.signal(lagging, SIGKILL)
        let client = cluster.client()
        // More than one transaction of the import takes.
        var content = (0..<1 << 20).map { _ in UInt8.random(in: 0...255) }
        var last: UInt64 = 0
        for number in 0..<35 {
            content[0] = UInt8(number)
            last = try await client.put("/f\(number)", content)
        }
        // A snapshot holds what is durable.
        #expect(
            await cluster.condition {
                try await client.status().filter { $0.isRunning }.allSatisfy {
                    $0.statistics["log_first_index"] ?? 0 > 20 && $0.statistics["durable_index"] ?? 0 >= last
                }
            })
        try cluster.start(lagging, crashingAt: CrashPoint.importStep.rawValue)
        #expect(await cluster.condition { !cluster.isRunning(lagging) }, "member \(lagging) got no large snapshot")
        try cluster.start(lagging)
        #expect(await cluster.membersAgree(client))
        let own = BanyanClient(nodes: [cluster.addresses[lagging - 1]], timeout: .seconds(10))
        #expect(try await own.get("/f34").content == content)
        await own.close()
        #expect(
            await cluster.condition {
                let files = try FileManager.default.contentsOfDirectory(atPath: cluster.directory(lagging))
                return files.count { $0.hasPrefix("state-") } == 1
            })
        await client.close()
    }

    @Test("a snapshot goes on at the piece where its connection was cut")
    func resumedSnapshot() async throws {
        let options = ["--log-tail", "10", "--snapshot-rate", "4MiB"]
        let cluster = try await TestCluster.start(members: 3, options: options, isProxied: true)
        let leader = try await cluster.leader()
        let lagging = leader % 3 + 1
        try cluster.signal(lagging, SIGKILL)
        let client = cluster.client()
        // Nothing that shrinks: ten pieces of a MiB.
        var content = (0..<262_144).map { _ in UInt8.random(in: 0...255) }
        for number in 0..<40 {
            content[0] = UInt8(number)
            _ = try await client.put("/f\(number)", content)
        }
        _ = try await client.put("/small", [1])
        try cluster.start(lagging)
        // It has begun, and takes two seconds more.
        let begun = cluster.directory(lagging) + "/state-2/data.mdb"
        #expect(await cluster.condition { FileManager.default.fileExists(atPath: begun) })
        cluster.rules.isolate(lagging, from: 1...3)
        #expect(await cluster.condition { try cluster.log(leader).contains("snapshot broke off") })
        cluster.rules.heal()
        #expect(await cluster.condition { try cluster.log(leader).contains("resumed_at_piece") })
        await client.close()
        try await check(cluster, ["/small": [1]])
    }

    @Test("puts are refused while a disk is nearly full, deletes go on, and puts come back by themselves")
    func fullDisk() async throws {
        // The reserve is what is free now: what the filler takes is missing, and what it gives back is enough.
        let folder = FileManager.default.temporaryDirectory.path
        let gibibyte = 1 << 30
        let filler = "\(folder)/banyan-filler-\(UUID().uuidString)"
        defer { unlink(filler) }
        let free = try #require(
            try FileManager.default.attributesOfFileSystem(forPath: folder)[.systemFreeSize] as? Int)
        let cluster = try await TestCluster.start(members: 3, options: ["--reserve", "\(free - gibibyte)"])
        let client = cluster.client()
        _ = try await client.put("/d/kept", Array("kept".utf8))
        let descriptor = open(filler, O_WRONLY | O_CREAT | O_EXCL, 0o600)
        #expect(posix_fallocate(descriptor, 0, off_t(2 * gibibyte)) == 0)
        close(descriptor)
        let isRefused = await cluster.condition {
            do {
                _ = try await client.put("/d/more", Array("more".utf8))
                return false
            } catch BanyanError.diskFull {
                return true
            }
        }
        #expect(isRefused, "puts are still taken")
        let result = try await cluster.run(
            "banyan", ["--nodes", cluster.addresses.joined(separator: ","), "mkdir", "/new"])
        #expect(result.code == 1 && result.errors.contains("nearly full"), "\(result.errors)")
        _ = try await client.remove("/d/kept")
        #expect(try await client.list("/d").entries.allSatisfy { $0.name != "kept" })
        unlink(filler)
        let isTaken = await cluster.condition {
            _ = try await client.put("/d/again", Array("again".utf8))
            return true
        }
        #expect(isTaken, "puts are not taken again")
        #expect(try await client.get("/d/again").content == Array("again".utf8))
        await client.close()
    }

    @Test("a power cut at any moment loses nothing that was acknowledged, unless the disk lies")
    func powerCut() async throws {
        let cluster = try TestCluster(members: 1)
        let arguments = ["--recoveries", "50", "--folder", cluster.folder.path]
        let result = try await cluster.run("banyan-powercut", arguments)
        #expect(result.code == 0, "\(result.output)\(result.errors)")
        #expect(result.output.contains("50 recoveries") && result.output.contains("86 restores"), "\(result.output)")
        let full = try await cluster.run("banyan-powercut", arguments + ["--full-disk"])
        #expect(full.code == 0, "\(full.output)\(full.errors)")
        // A check that can't fail is worth nothing.
        let lying = try await cluster.run("banyan-powercut", arguments + ["--lying-disk"])
        #expect(lying.code == 1 && lying.output.contains("recovery after operation"), "\(lying.output)")
        let restores = try await cluster.run("banyan-powercut", arguments + ["--lying-disk", "--restores"])
        #expect(restores.code == 1 && restores.output.contains("restore cut at"), "\(restores.output)")
    }
}
