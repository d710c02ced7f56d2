import BanyanClient
import CrashPoints
import Foundation
import NIOCore
import Testing

@testable import FileTree
@testable import LMDB

/// Bits flip in members' files, rows vanish, states differ: it is found, never served, and repaired from the others.
@Suite("Damage", .serialized)
struct DamageTests {
    private static let marker = "a-content-that-stands-nowhere-else"

    /// Three members whose trees hold the marker as one file's content, and all of which have everything.
    private func cluster() async throws -> TestCluster {
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client()
        for number in 0..<100 { _ = try await client.put("/d/\(number)", Array("content \(number)".utf8)) }
        _ = try await client.put("/d/marked", Array(Self.marker.utf8))
        #expect(await cluster.membersAgree(client))
        await client.close()
        return cluster
    }

    /// Flips a bit in the midst of each copy of the marker in the file, and answers with how many there were.
    private func flip(_ path: String, _ marker: String = marker) throws -> Int {
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        defer { try? file.close() }
        let content = try Data(contentsOf: URL(fileURLWithPath: path))
        var flipped = 0
        var rest = content.startIndex..<content.endIndex
        while let found = content.range(of: Data(marker.utf8), in: rest) {
            let position = found.lowerBound + 7
            try file.seek(toOffset: UInt64(position))
            try file.write(contentsOf: Data([content[position] ^ 0x10]))
            flipped += 1
            rest = found.upperBound..<content.endIndex
        }
        return flipped
    }

    /// The same in the file of a running member's state, once that holds all that the member has executed.
    private func flipState(of member: Int, _ cluster: TestCluster, _ client: BanyanClient) async throws {
        let isSettled = await cluster.condition {
            let report = try await client.status().first { $0.id == UInt64(member) }
            return report.map { $0.statistics["durable_index"] ?? 0 >= $0.appliedIndex } ?? false
        }
        #expect(isSettled)
        #expect(try flip(cluster.directory(member) + "/state-1/data.mdb") > 0)
    }

    private func waitUntilRepaired(_ cluster: TestCluster, _ member: Int) async throws {
        let isRepaired = await cluster.condition { try cluster.log(member).contains("repaired") }
        #expect(isRepaired, "member \(member) was not repaired; see \(cluster.folder.path)")
        let client = cluster.client()
        #expect(await cluster.membersAgree(client))
        let own = BanyanClient(nodes: [cluster.addresses[member - 1]], timeout: .seconds(10))
        #expect(try await own.get("/d/marked", .stale(maximumAge: nil)).content == Array(Self.marker.utf8))
        await own.close()
        #expect(try await client.get("/d/99").content == Array("content 99".utf8))
        let isSound = await cluster.condition {
            try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "verify"]).code == 0
        }
        #expect(isSound)
        await client.close()
    }

    @Test("a member whose log lacks what its state has executed is refused: it forgot what it promised")
    func forgetfulLog() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let client = cluster.client()
        _ = try await client.put("/early", [1])
        let member = try await cluster.leader() % 3 + 1
        #expect(await cluster.membersAgree(client))
        try cluster.signal(member, SIGTERM)
        let (log, old) = (cluster.directory(member) + "/log", cluster.directory(member) + "/../old")
        try FileManager.default.copyItem(atPath: log, toPath: old)
        try cluster.start(member)
        for number in 0..<20 { _ = try await client.put("/late/\(number)", [2]) }
        #expect(await cluster.membersAgree(client))
        try cluster.signal(member, SIGTERM)
        try FileManager.default.removeItem(atPath: log)
        try FileManager.default.moveItem(atPath: old, toPath: log)
        let process = try cluster.start(member)
        try await process.ended()
        #expect(process.terminationStatus == 1)
        let said = try cluster.log(member)
        #expect(said.contains("member replace"), "\(said)")
        #expect(try await client.get("/late/19").content == [2])
        await client.close()
    }

    @Test("a bit that flipped in a stopped member's state is never served, and the state is replaced")
    func stateOfStoppedMember() async throws {
        let cluster = try await cluster()
        let member = try await cluster.leader() % 3 + 1
        try cluster.signal(member, SIGTERM)
        #expect(try flip(cluster.directory(member) + "/state-1/data.mdb") > 0)
        try cluster.start(member)
        let own = BanyanClient(nodes: [cluster.addresses[member - 1]], timeout: .seconds(2))
        _ = await cluster.condition {
            if let answer = try? await own.get("/d/marked", .stale(maximumAge: nil)) {
                #expect(answer.content == Array(Self.marker.utf8))
            }
            return try cluster.log(member).contains("repaired")
        }
        await own.close()
        try await waitUntilRepaired(cluster, member)
    }

    @Test("a bit that flips under a running leader is found by verify, and the leader gives way and is repaired")
    func stateOfRunningLeader() async throws {
        let cluster = try await cluster()
        let leader = try await cluster.leader()
        let early = cluster.client()
        try await flipState(of: leader, cluster, early)
        await early.close()
        let found = try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "verify"])
        #expect(found.code == 1 && found.output.contains("DAMAGED"), "\(found.output)\(found.errors)")
        try await waitUntilRepaired(cluster, leader)
        // Of one that can't be asked nothing is known, and nothing is claimed.
        try cluster.signal(leader, SIGKILL)
        let without = try await cluster.run("banyan", ["--nodes", cluster.addresses.joined(separator: ","), "verify"])
        #expect(without.code == 5 && without.output.contains("not read"), "\(without.output)\(without.errors)")
        #expect(!without.output.contains("DAMAGED"))
    }

    @Test("a damaged entry that the state has executed needs no other member: the log begins behind the state")
    func executedEntry() async throws {
        let cluster = try await cluster()
        let member = try await cluster.leader() % 3 + 1
        // A clean end leaves a state that has executed everything.
        try cluster.signal(member, SIGTERM)
        #expect(try flip(cluster.directory(member) + "/log/data.mdb") > 0)
        try cluster.start(member)
        #expect(await cluster.condition { try cluster.log(member).contains("the log begins behind a damaged entry") })
        try await waitUntilRepaired(cluster, member)
    }

    @Test("a damaged entry under a running member is found by verify, and the log begins behind it without a pause")
    func entryOfRunningMember() async throws {
        let cluster = try await cluster()
        let member = try await cluster.leader()
        #expect(try flip(cluster.directory(member) + "/log/data.mdb") > 0)
        _ = try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "verify"])
        #expect(await cluster.condition { try cluster.log(member).contains("the log begins behind a damaged entry") })
        #expect(try await cluster.leader() == member)
        try await waitUntilRepaired(cluster, member)
    }

    /// Ends a follower when it has the marker's newest content in its log and not in its state, and damages that entry.
    private func damageEntryBeyondState(_ cluster: TestCluster) async throws -> Int {
        let member = try await cluster.leader() % 3 + 1
        try cluster.signal(member, SIGTERM)
        try cluster.start(member, crashingAt: CrashPoint.stateCommitBefore.rawValue)
        let client = cluster.client()
        _ = try await client.put("/d/marked", Array(Self.marker.utf8))
        #expect(await cluster.condition { !cluster.isRunning(member) }, "member \(member) wrote no state")
        await client.close()
        #expect(try flip(cluster.directory(member) + "/log/data.mdb") > 0)
        return member
    }

    @Test("a log with a flipped bit is never cut off: the member waits for a sound copy, and keeps its tail")
    func logOfStoppedMember() async throws {
        let cluster = try await cluster()
        let member = try await damageEntryBeyondState(cluster)
        try cluster.start(member)
        #expect(await cluster.condition { try cluster.log(member).contains("taking a sound copy") })
        try await waitUntilRepaired(cluster, member)
    }

    @Test(
        "a member that ends in the midst of its log's repair begins it anew",
        arguments: [CrashPoint.repairBefore, .repairAfter])
    func interruptedRepair(point: CrashPoint) async throws {
        let cluster = try await cluster()
        let member = try await damageEntryBeyondState(cluster)
        try cluster.start(member, crashingAt: point.rawValue)
        #expect(await cluster.condition { !cluster.isRunning(member) }, "the member never came to \(point.rawValue)")
        try cluster.start(member)
        let client = cluster.client()
        #expect(await cluster.membersAgree(client))
        #expect(try await client.get("/d/marked").content == Array(Self.marker.utf8))
        await client.close()
        // After the switch there is nothing to repair.
        #expect(try cluster.log(member).contains("repaired") == (point == .repairBefore))
    }

    @Test(
        "a member that ends in the midst of its state's repair begins it anew",
        arguments: [
            CrashPoint.damageMarkBefore, .damageMarked, .importCommitAfter, .fetchedBeforeSync, .fetchedAfterSync,
            .switchBefore, .switchAfter, .damageUnmarkBefore, .damageUnmarked, .stateRemovePart,
        ])
    func interruptedStateRepair(point: CrashPoint) async throws {
        let cluster = try await cluster()
        let member = try await cluster.leader() % 3 + 1
        try cluster.signal(member, SIGTERM)
        #expect(try flip(cluster.directory(member) + "/state-1/data.mdb") > 0)
        try cluster.start(member, crashingAt: point.rawValue)
        #expect(
            await cluster.condition {
                _ = try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "verify"])
                return !cluster.isRunning(member)
            }, "the member never came to \(point.rawValue)")
        try cluster.start(member)
        let client = cluster.client()
        #expect(
            await cluster.condition {
                try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "verify"]).code == 0
            })
        #expect(await cluster.membersAgree(client))
        #expect(try await client.get("/d/marked").content == Array(Self.marker.utf8))
        await client.close()
        // A life that found the mark of the one before takes another copy.
        let mark = cluster.directory(member) + "/damaged"
        #expect(await cluster.condition { !FileManager.default.fileExists(atPath: mark) })
    }

    @Test("a leader of two with a damaged state goes on voting, gives way, and is repaired: nothing stands still")
    func leaderOfTwo() async throws {
        let cluster = try await TestCluster.start(members: 2)
        let client = cluster.client()
        _ = try await client.put("/d/marked", Array(Self.marker.utf8))
        #expect(await cluster.membersAgree(client))
        let leader = try await cluster.leader()
        try await flipState(of: leader, cluster, client)
        let process = try cluster.processID(leader)
        #expect(try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "verify"]).code == 1)
        #expect(try await client.get("/d/marked").content == Array(Self.marker.utf8))
        for number in 0..<50 { _ = try await client.put("/d/\(number)", Array("content \(number)".utf8)) }
        #expect(await cluster.condition { try cluster.log(leader).contains("repaired") })
        #expect(try cluster.processID(leader) == process)
        #expect(await cluster.membersAgree(client))
        #expect(try await client.get("/d/marked").content == Array(Self.marker.utf8))
        await client.close()
    }

    @Test("two of two with different damaged rows serve the rows that are sound")
    func bothOfTwo() async throws {
        let cluster = try await TestCluster.start(members: 2)
        let client = cluster.client()
        let markers = (1...2).map { "\(Self.marker)-\($0)-" }
        for (number, marker) in markers.enumerated() { _ = try await client.put("/d/\(number)", Array(marker.utf8)) }
        _ = try await client.put("/d/sound", [7])
        #expect(await cluster.membersAgree(client))
        for id in 1...2 {
            try cluster.signal(id, SIGTERM)
            #expect(try flip(cluster.directory(id) + "/state-1/data.mdb", markers[id - 1]) > 0)
        }
        for id in 1...2 { try cluster.start(id) }
        _ = try await cluster.leader()
        let found = try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "verify"])
        #expect(found.code == 1, "\(found.output)")
        for id in 1...2 { #expect(await cluster.condition { try cluster.log(id).contains("no sound copy yet") }) }
        #expect(try await client.get("/d/sound").content == [7])
        _ = try await client.put("/d/after", [8])
        #expect(try await client.get("/d/after").content == [8])
        // Written anew, a row is sound again.
        for number in 0..<2 {
            let stale = BanyanClient(nodes: [cluster.addresses[1 - number]], timeout: .seconds(10))
            #expect(try await stale.get("/d/\(number)", .stale(maximumAge: nil)).content == Array(markers[number].utf8))
            await stale.close()
        }
        await client.close()
    }

    @Test(
        "members none of which has a state that can be opened stay there, refuse, and take the first sound one that comes"
    )
    func nobodysState() async throws {
        let cluster = try await TestCluster.start(members: 3, options: ["--log-tail", "10"])
        let client = cluster.client(timeout: .seconds(2))
        for number in 0..<100 { _ = try await client.put("/d/\(number)", Array("content \(number)".utf8)) }
        _ = try await client.put("/d/marked", Array(Self.marker.utf8))
        #expect(await cluster.membersAgree(client))
        for id in 1...3 { try cluster.signal(id, SIGTERM) }
        let kept = cluster.folder.appendingPathComponent("kept").path
        try FileManager.default.copyItem(atPath: cluster.directory(3), toPath: kept)
        for id in 1...3 { try Self.changeDigest(of: cluster.directory(id) + "/state-1", seals: false) }
        for id in 1...3 { try cluster.start(id) }
        for id in 1...3 { #expect(await cluster.condition { try cluster.log(id).contains("no sound copy yet") }) }
        _ = try await cluster.leader()
        await #expect(throws: BanyanError.self) { try await client.put("/d/after", [1]) }
        await #expect(throws: BanyanError.self) { try await client.get("/d/marked") }
        for id in 1...3 { #expect(cluster.isRunning(id)) }
        let found = try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "verify"])
        #expect(found.code == 1 && found.output.components(separatedBy: "DAMAGED").count == 4, "\(found.output)")
        // The state that was there stays, for whoever can mend it.
        try cluster.signal(3, SIGTERM)
        let state = cluster.directory(3) + "/state-1"
        try FileManager.default.removeItem(atPath: state)
        try FileManager.default.copyItem(atPath: kept + "/state-1", toPath: state)
        try FileManager.default.removeItem(atPath: cluster.directory(3) + "/damaged")
        try cluster.start(3)
        for id in 1...2 { #expect(await cluster.condition { try cluster.log(id).contains("repaired") }) }
        #expect(await cluster.membersAgree(client))
        #expect(try await client.get("/d/marked").content == Array(Self.marker.utf8))
        await client.close()
    }

    @Test("a member of two whose state can't be opened votes, and takes the other's")
    func unreadableState() async throws {
        let cluster = try await TestCluster.start(members: 2, options: ["--log-tail", "10"])
        let client = cluster.client()
        _ = try await client.put("/d/marked", Array(Self.marker.utf8))
        for number in 0..<100 { _ = try await client.put("/d/\(number)", Array("content \(number)".utf8)) }
        #expect(await cluster.membersAgree(client))
        let member = try await cluster.leader() % 2 + 1
        try cluster.signal(member, SIGTERM)
        try Self.changeDigest(of: cluster.directory(member) + "/state-1", seals: false)
        try cluster.start(member)
        #expect(await cluster.condition { try cluster.log(member).contains("repaired") })
        #expect(await cluster.membersAgree(client))
        let own = BanyanClient(nodes: [cluster.addresses[member - 1]], timeout: .seconds(10))
        #expect(try await own.get("/d/marked", .stale(maximumAge: nil)).content == Array(Self.marker.utf8))
        await own.close()
        await client.close()
    }

    @Test("a member that was wrong about itself finds out when it looks again, with nobody to take a copy from")
    func secondLook() async throws {
        let cluster = try await TestCluster.start(members: 2)
        let client = cluster.client()
        _ = try await client.put("/d/marked", Array(Self.marker.utf8))
        await client.close()
        for id in 1...2 { try cluster.signal(id, SIGTERM) }
        let mark = cluster.directory(1) + "/damaged"
        try "rotten: a row of table 2 is damaged".write(toFile: mark, atomically: true, encoding: .utf8)
        try cluster.start(1)
        #expect(await cluster.condition { try cluster.log(1).contains("no sound copy yet") })
        #expect(FileManager.default.fileExists(atPath: mark))
        _ = try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "verify"])
        #expect(await cluster.condition { !FileManager.default.fileExists(atPath: mark) })
        #expect(try cluster.log(1).contains("a second look finds no damage"))
    }

    @Test("a lone member that meets a damaged row executes no more, says so, and lets the rest be read")
    func loneMember() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client(timeout: .seconds(3))
        _ = try await client.put("/d/marked", Array(Self.marker.utf8))
        _ = try await client.put("/d/sound", [7])
        try cluster.signal(1, SIGTERM)
        #expect(try flip(cluster.directory(1) + "/state-1/data.mdb") > 0)
        try cluster.start(1)
        _ = try await cluster.leader()
        let damaged = BanyanError.refused(
            "\(cluster.addresses[0]): its copy is damaged, or the members' copies differ; see its log")
        await #expect(throws: damaged) { try await client.get("/d/marked") }
        #expect(try await client.get("/d/sound").content == [7])
        // The command needs the row that it replaces.
        await #expect(throws: BanyanError.unknownOutcome) { try await client.put("/d/marked", [8]) }
        // Its next life comes to the same command.
        for _ in 1...2 {
            await #expect(throws: damaged) { try await client.put("/d/more", [9]) }
            await #expect(throws: damaged) { try await client.get("/d/sound") }
            #expect(try await client.get("/d/sound", .stale(maximumAge: nil)).content == [7])
            #expect(try cluster.log(1).contains("restore a backup"))
            try cluster.signal(1, SIGTERM)
            try cluster.start(1)
            #expect(await cluster.condition { try cluster.log(1).contains("restore a backup") })
        }
        await client.close()
    }

    @Test("a row that is lost is found by verify, although every checksum fits")
    func lostRow() async throws {
        let cluster = try await cluster()
        let member = try await cluster.leader() % 3 + 1
        try cluster.signal(member, SIGTERM)
        try Self.change(cluster.directory(member) + "/state-1") { transaction, database in
            var cursor = try transaction.cursor(database)
            var last: [UInt8] = []
            var isThere = try cursor.seek([StateKey.Table.entries.rawValue].span.bytes)
            while isThere, cursor.key.bigEndian(at: 0, as: UInt8.self) == StateKey.Table.entries.rawValue {
                last = cursor.key.withUnsafeBytes { Array($0) }
                isThere = try cursor.next()
            }
            return (last, nil)
        }
        try cluster.start(member)
        let found = await cluster.condition {
            let found = try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "verify"])
            return found.code == 1 && found.output.contains("do not add up")
        }
        #expect(found)
        try await waitUntilRepaired(cluster, member)
    }

    @Test("a member whose state took another course than the majority's learns it from the leader, and is repaired")
    func divergedState() async throws {
        let cluster = try await cluster()
        let member = try await cluster.leader() % 3 + 1
        try cluster.signal(member, SIGTERM)
        try Self.changeDigest(of: cluster.directory(member) + "/state-1")
        try cluster.start(member)
        let client = cluster.client()
        let isRepaired = await cluster.condition {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<100 {
                    group.addTask { _ = try await client.put("/d/\(number)", Array("content \(number)".utf8)) }
                }
                try await group.waitForAll()
            }
            return try cluster.log(member).contains("repaired")
        }
        #expect(isRepaired)
        #expect(try cluster.log(member).contains("another digest than the majority's"))
        await client.close()
        try await waitUntilRepaired(cluster, member)
    }

    @Test("with no majority for either of two states, puts are refused, and what is there stays readable")
    func alarm() async throws {
        let cluster = try await TestCluster.start(members: 2)
        let client = cluster.client()
        _ = try await client.put("/d/marked", Array(Self.marker.utf8))
        #expect(await cluster.membersAgree(client))
        let member = try await cluster.leader() % 2 + 1
        try cluster.signal(member, SIGTERM)
        try Self.changeDigest(of: cluster.directory(member) + "/state-1")
        try cluster.start(member)
        let isRefused = await cluster.condition {
            do {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for number in 0..<100 {
                        group.addTask { _ = try await client.put("/d/\(number)", Array("content \(number)".utf8)) }
                    }
                    try await group.waitForAll()
                }
                return false
            } catch BanyanError.refused(let reason) {
                return reason.contains("damaged")
            }
        }
        #expect(isRefused)
        #expect(try await client.get("/d/marked").content == Array(Self.marker.utf8))
        let logs = try (1...2).map { try cluster.log($0) }
        #expect(logs.contains { $0.contains("no majority agrees") })
        await client.close()
    }

    @Test("a member whose files are taken away stops, instead of writing what nobody will find")
    func vanishedFiles() async throws {
        let cluster = try await cluster()
        let member = try await cluster.leader()
        try FileManager.default.removeItem(atPath: cluster.directory(member))
        #expect(await cluster.condition { !cluster.isRunning(member) }, "it goes on")
        #expect(try cluster.log(member).contains("banyan member replace"))
        let client = cluster.client()
        _ = try await client.put("/d/after", [1])
        #expect(try await client.get("/d/marked").content == Array(Self.marker.utf8))
        await client.close()
    }

    /// Makes a stopped member's state one that took another course than it should have, or one that can't be opened.
    private static func changeDigest(of path: String, seals: Bool = true) throws {
        try change(path) { transaction, database in
            var bytes: [UInt8] = []
            var cursor = try transaction.cursor(database)
            let key = StateKey.applied
            if try cursor.seek(key.span.bytes) { bytes = cursor.value.withUnsafeBytes { Array($0) } }
            // The digest's last byte, and the checksum anew.
            bytes[55] ^= 1
            if seals { bytes.withUnsafeMutableBytes { RowChecksum.seal($0, of: StateKey.applied) { _ in } } }
            return (StateKey.applied, bytes)
        }
    }

    /// Changes one row of a stopped member's state behind its back.
    private static func change(
        _ path: String, _ choose: (borrowing WriteTransaction, Database) throws -> (key: [UInt8], row: [UInt8]?)
    ) throws {
        let environment = try Environment(path: path, mapSize: StateEnvironment.mapBytes, databases: 4)
        let database = try environment.database("state")
        var transaction = try environment.beginWrite()
        let (key, row) = try choose(transaction, database)
        if let row {
            try transaction.put(key.span.bytes, row.span.bytes, in: database)
        } else {
            #expect(try transaction.delete(key.span.bytes, in: database))
        }
        try transaction.commit()
    }
}
