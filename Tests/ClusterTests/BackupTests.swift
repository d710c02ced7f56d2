import BanyanClient
import Foundation
import Testing

/// Snapshots as files: out of a cluster that runs, and into a new one.
@Suite("Backups", .serialized)
struct BackupTests {
    @Test("a snapshot saved under load holds all that was acknowledged before, and becomes a new cluster")
    func saveAndRestore() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let nodes = cluster.addresses.joined(separator: ",")
        let file = cluster.folder.appendingPathComponent("saved").path
        let client = cluster.client()
        let large = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        _ = try await client.put("/large", large)
        var last = 0
        let writer = Task {
            let client = BanyanClient(nodes: nodes.split(separator: ",").map(String.init), timeout: .seconds(10))
            var number = 0
            while !Task.isCancelled {
                _ = try await client.put("/under-load/\(number % 500)", Array("\(number)".utf8))
                number += 1
            }
            await client.close()
        }
        for from in [[], ["--from", cluster.addresses[try await cluster.leader() - 1]]] {
            last += 1
            _ = try await client.put("/last", Array("\(last)".utf8))
            let saved = try await cluster.run("banyan", ["--nodes", nodes, "snapshot", "save", file] + from)
            #expect(saved.code == 0, "\(saved.errors)")
        }
        writer.cancel()
        try await writer.value
        await client.close()
        #expect(!FileManager.default.fileExists(atPath: file + ".part"))
        let inspected = try await cluster.run("banyan", ["snapshot", "inspect", file, "--json"])
        #expect(inspected.code == 0 && inspected.output.contains("\"digest\""))

        let other = try TestCluster(members: 1)
        let address = other.addresses[0]
        try other.start(1, options: ["--restore", file, "--listen", address])
        _ = try await other.leader()
        let restored = other.client()
        #expect(try await restored.get("/large").content == large)
        #expect(try await restored.get("/last").content == Array("2".utf8))
        let revision = try await restored.stat("/last").revision
        #expect(try await restored.put("/new", [1]) > revision)
        await restored.close()
        // It is a member like any other from now on, and no other snapshot goes over it.
        try other.signal(1, SIGTERM)
        let again = try await other.run("banyand", ["--data", other.directory(1), "--restore", file])
        #expect(again.code == 1 && again.errors.contains("belongs to a member already"), "\(again.errors)")
        try other.start(1)
        _ = try await other.leader()
        let after = other.client()
        #expect(try await after.get("/new").content == [1])
        await after.close()
    }

    @Test("no revision is given out twice when one backup is restored, and restored again")
    func revisionsAfterRestores() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        _ = try await client.put("/k", [0])
        let file = cluster.folder.appendingPathComponent("saved").path
        #expect(try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "snapshot", "save", file]).code == 0)
        var known: [UInt64] = []
        for number in 1...5 { known.append(try await client.put("/k", [UInt8(number)])) }
        await client.close()
        for turn in 1...2 {
            let other = try TestCluster(members: 1)
            try other.start(1, options: ["--restore", file, "--listen", other.addresses[0]])
            _ = try await other.leader()
            let restored = other.client()
            for number in 1...5 { known.append(try await restored.put("/k", [UInt8(turn), UInt8(number)])) }
            await restored.close()
            // Who holds a revision from before, of this cluster or another, must not overwrite what it has never seen.
            for revision in known.dropLast() {
                let stale = try await other.run(
                    "banyan", ["--nodes", other.addresses[0], "rm", "--if-revision", "\(revision)", "/k"])
                #expect(stale.code == 4, "\(revision): \(stale.errors)")
            }
        }
        #expect(zip(known, known.dropFirst()).allSatisfy { $0 < $1 } && known.allSatisfy { $0 < 1 << 53 }, "\(known)")
    }

    @Test("a file that is cut short, changed, continued or not a snapshot is refused, and the directory stays empty")
    func badFiles() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        for number in 0..<50 { _ = try await client.put("/f\(number)", [UInt8](repeating: UInt8(number), count: 3000)) }
        await client.close()
        let folder = cluster.folder
        let file = folder.appendingPathComponent("saved")
        #expect(
            try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "snapshot", "save", file.path]).code == 0)
        let sound = try Data(contentsOf: file)
        var changed = sound
        changed[sound.count / 2] ^= 4
        var newer = sound
        newer[9] = 9
        let bad: [(String, Data, String)] = [
            ("cut", sound.prefix(sound.count / 2), "damaged"), ("header", sound.prefix(30), "damaged"),
            ("changed", changed, "damaged"), ("continued", sound + Data([1]), "damaged"),
            ("newer", newer, "newer program"),
            ("other", Data("no snapshot at all".utf8), "not a snapshot"), ("empty", Data(), "not a snapshot"),
        ]
        for (name, bytes, reason) in bad {
            let path = folder.appendingPathComponent(name)
            try bytes.write(to: path)
            let inspected = try await cluster.run("banyan", ["snapshot", "inspect", path.path])
            #expect(inspected.code == 1 && inspected.errors.contains(reason), "\(name): \(inspected.errors)")
            let data = folder.appendingPathComponent("data-\(name)").path
            let restored = try await cluster.run("banyand", ["--data", data, "--restore", path.path])
            #expect(restored.code == 1 && restored.errors.contains(reason), "\(name): \(restored.errors)")
            #expect(!FileManager.default.fileExists(atPath: data), "\(name)")
            // Nothing of it is in the way of a sound one.
            #expect(try await cluster.run("banyand", ["--data", data, "--restore", "/none"]).code == 1)
        }
    }
}
