import BanyanClient
import Foundation
import Testing

@Suite("Bad input", .serialized)
struct BadInputTests {
    // MARK: the command line

    @Test("what the tree forbids gets the exit code of its kind, and changes nothing")
    func treeErrors() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        let revision = try await client.put("/d/file", Array("content".utf8))
        func tree() async throws -> String {
            try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "ls", "-lR", "/"]).output
        }
        let before = try await tree()
        let big = cluster.folder.appendingPathComponent("big")
        try Data(count: (1 << 20) + 1).write(to: big)
        let longName = "/" + String(repeating: "n", count: 256)
        let longPath = String(repeating: "/n", count: 2049)
        let null = "/dev/null"
        let wrong: [([String], Int32, String)] = [
            (["put", "relative", null], 2, "not a valid path"), (["put", "/a//b", null], 2, "not a valid path"),
            (["put", "/a/../b", null], 2, "not a valid path"), (["put", "/a/./b", null], 2, "not a valid path"),
            (["put", longPath, null], 1, "not a valid path"), (["put", longName, null], 1, "255 bytes"),
            (["put", "/d", null], 1, "directory"), (["put", "/d/file/below", null], 1, "is a file"),
            (["put", "/", null], 1, "directory"), (["put", "/big", big.path], 1, "1 MiB"),
            (["put", "/x", "/no/such/file"], 1, "can't be read"), (["get", "/d"], 1, "directory"),
            (["get", "/none"], 3, "no such"), (["stat", "/none"], 3, "no such"), (["ls", "/none"], 3, "no such"),
            (["put", "", null], 2, "not a valid path"), (["put", "/x", ""], 2, "empty"),
            (["put", "/x"], 2, "put PATH -"),
            (["get", "/d/file", "-o", ""], 2, "empty"), (["mirror", "push", "", "/x"], 2, "empty"),
            (["mirror", "push", "/tmp", ""], 2, "not a valid path"), (["rm", "-r", "/d//"], 2, "not a valid path"),
            (["get", "/d/file/"], 1, "a directory is needed"), (["rm", "/d/file/"], 1, "a directory is needed"),
            (["put", "/x/", null], 1, "it is a directory"), (["mv", "/d/file", "/none/"], 3, "no such"),
            (["mv", "/d/file", "/d/file/"], 1, "a directory is needed"), (["mv", "/d/file/", "/x"], 1, "a directory"),
            (["ls", "/d/file/"], 1, "a directory is needed"), (["rm", "/none"], 3, "no such"),
            (["rm", "/d"], 1, "rm -r"),
            (["rm", "-r", "/"], 1, "root"), (["mkdir", "/d"], 1, "already"), (["mkdir", "/p/q"], 3, "no such"),
            (["mv", "/none", "/x"], 3, "no such"), (["mv", "/d", "/d/x"], 1, "into itself"),
            (["mv", "/d/file", "/none/x"], 3, "no such"),
            (["put", "/d/file", null, "--if-absent"], 4, "at revision \(revision)"),
            (["put", "/d/file", null, "--if-revision", "1"], 4, "at revision \(revision)"),
            (["put", "/d/none", null, "--if-revision", "1"], 4, "absent"),
            (["rm", "/d/file", "--if-revision", "1"], 4, "at revision \(revision)"),
            (["mv", "/d/file", "/d/x", "--if-revision", "1"], 4, "at revision \(revision)"),
        ]
        for (arguments, code, part) in wrong {
            let result = try await cluster.run("banyan", ["--nodes", cluster.addresses[0]] + arguments)
            #expect(result.code == code, "banyan \(arguments.joined(separator: " ").prefix(60)): \(result.errors)")
            #expect(result.errors.contains(part), "\(result.errors)")
            #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)")
        }
        #expect(try await tree() == before)
        await client.close()
    }

    @Test("wrong usage of any program is one line and exit code 2, and nobody there is 5")
    func usage() async throws {
        let cluster = try TestCluster(members: 1)
        let nobody = cluster.addresses[0]
        let wrong: [(String, [String], Int32)] = [
            ("banyan", ["ls", "--no-such-option"], 2), ("banyan", ["frobnicate"], 2),
            ("banyan", ["--nodes", "x y:", "ls"], 2), ("banyan", ["--nodes", "127.0.0.1:x", "ls"], 2),
            ("banyan", [], 2), ("banyan", ["mirror"], 2), ("banyan", ["member"], 2), ("banyan", ["--json"], 2),
            ("banyan", ["member", "lst"], 2), ("banyan", ["--timeout", "never", "ls"], 2),
            ("banyan", ["put", "/x", "--if-absent", "--if-revision", "1"], 2),
            ("banyan", ["--nodes", nobody, "--timeout", "300ms", "ls", "/"], 5),
            ("banyan", ["--nodes", nobody, "--timeout", "300ms", "status"], 5), ("banyand", [], 2),
            ("banyand", ["--data", cluster.directory(1), "--join", "--bootstrap"], 2),
            ("banyand", ["--data", cluster.directory(1), "--cluster-version", "0"], 2),
            ("banyand", ["--data", cluster.directory(1), "--join"], 2),
            ("banyand", ["--data", cluster.directory(1), "--id", "3", "--cluster", "1=a:1,2=b:2", "--bootstrap"], 2),
            ("banyand", ["--data", cluster.directory(1), "--id", "1", "--cluster", "1=a:1,2=a:1", "--bootstrap"], 2),
            ("banyand", ["--data", cluster.directory(1), "--admin", "127.0.0.1:1"], 2),
            ("banyand", ["--data", cluster.directory(1), "--cluster", "1=nowhere"], 2),
            ("banyand", ["--data", cluster.directory(1), "--id", "1", "--cluster", "1=127.0.0.1:0", "--bootstrap"], 2),
            ("banyand", ["--data", cluster.directory(1), "--id", "0", "--cluster", "0=127.0.0.1:1", "--bootstrap"], 2),
            ("banyand", ["--data", cluster.directory(1), "--id", "1", "--cluster", "1=0.0.0.0:1", "--bootstrap"], 2),
            ("banyand", ["--data", cluster.directory(1), "--listen", "127.0.0.1:0"], 2),
            ("banyand", ["--data", cluster.directory(1), "--listen", "0.0.0.0:1", "--bootstrap"], 2),
            ("banyan", ["member", "add", "2", "0.0.0.0:1"], 2), ("banyan", ["member", "add", "2", "127.0.0.1:+1"], 2),
            ("banyan", ["member", "add", "2", "127.0.0.1:0"], 2),
            ("banyand", ["--no-such-option"], 2), ("banyan-load", ["--no-such-option"], 2),
            ("banyan-load", ["--clients", "0"], 2), ("banyan", ["--nodes", "1=127.0.0.1:1", "ls"], 2),
        ]
        for (program, arguments, code) in wrong {
            let result = try await cluster.run(program, arguments)
            #expect(result.code == code, "\(program) \(arguments): \(result.errors)")
            #expect(result.errors.split(separator: "\n").count == 1, "\(program) \(arguments): \(result.errors)")
            #expect(result.errors.hasPrefix("\(program): "), "\(result.errors)")
        }
    }

    @Test("a path that is not UTF-8 is refused, and not written under another name")
    func encoding() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let program = try TestCluster.program("banyan").path
        let put = Process()
        put.executableURL = URL(fileURLWithPath: "/bin/bash")
        put.arguments = ["-c", "\(program) --nodes \(cluster.addresses[0]) put $'/bad\\xff' /dev/null 2>&1; echo $?"]
        let output = Pipe()
        put.standardOutput = output
        try put.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        #expect(text.contains("not UTF-8") && text.hasSuffix("2\n"), "\(text)")
        let client = cluster.client()
        #expect(try await client.list("/").entries.isEmpty)
        await client.close()
    }

    // MARK: directories and ports

    @Test("a directory that is another's, in use, empty or not Banyan's is refused in one line, and stays as it was")
    func directories() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let used = cluster.directory(1)
        let foreign = cluster.folder.appendingPathComponent("foreign")
        try FileManager.default.createDirectory(at: foreign, withIntermediateDirectories: true)
        try Data("mine".utf8).write(to: foreign.appendingPathComponent("thesis.txt"))
        let empty = cluster.folder.appendingPathComponent("empty").path
        let list = "1=127.0.0.1:1,2=127.0.0.1:2"
        let wrong: [([String], String)] = [
            (["--data", used], "another process"), (["--data", foreign.path], "thesis.txt"),
            (["--data", empty, "--id", "1", "--cluster", list], "--bootstrap"),
            (["--data", "/proc/none"], "can't be made"),
            (["--data", empty], "--bootstrap"), (["--data", empty, "--id", "1", "--cluster", "1=a:1"], "--bootstrap"),
            (["--data", empty, "--listen", cluster.addresses[0], "--bootstrap"], "can't listen"),
        ]
        for (arguments, part) in wrong {
            let result = try await cluster.run("banyand", arguments)
            #expect(result.code == 1, "\(arguments): \(result.errors)")
            #expect(result.errors.contains(part), "\(arguments): \(result.errors)")
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: foreign.path) == ["thesis.txt"])
        // What was refused before anything was begun left nothing.
        let nothing = cluster.folder.appendingPathComponent("nothing").path
        #expect(try await cluster.run("banyand", ["--data", nothing]).code == 1)
        #expect(!FileManager.default.fileExists(atPath: nothing))
        try cluster.signal(1, SIGTERM)
        let otherID = try await cluster.run("banyand", ["--data", used, "--id", "2", "--cluster", list])
        #expect(otherID.code == 1)
        #expect(otherID.errors.contains("belongs to member 1"), "\(otherID.errors)")
        // A log that is not one.
        let log = URL(fileURLWithPath: used).appendingPathComponent("log/data.mdb")
        try Data(repeating: 0x55, count: 1 << 16).write(to: log)
        let damaged = try await cluster.run("banyand", ["--data", used])
        #expect(damaged.code == 1)
        #expect(damaged.errors.contains("not a log of Banyan's"), "\(damaged.errors)")
    }

    @Test(
        "a member's files are its own, also those that stood there with other modes, and a file system's are no obstacle"
    )
    func privateFiles() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let member = cluster.directory(1)
        let modes = {
            try ([""] + FileManager.default.subpathsOfDirectory(atPath: member).map { "/" + $0 }).map { path in
                let attributes = try FileManager.default.attributesOfItem(atPath: member + path)
                let isDirectory = attributes[.type] as? FileAttributeType == .typeDirectory
                let mode = attributes[.posixPermissions] as? Int ?? 0
                return mode == (isDirectory ? 0o700 : 0o600) ? "" : "\(path) \(String(mode, radix: 8))"
            }.filter { !$0.isEmpty }
        }
        #expect(try modes() == [])
        try cluster.signal(1, SIGTERM)
        for path in [""] + (try FileManager.default.subpathsOfDirectory(atPath: member)).map({ "/" + $0 }) {
            let isDirectory = (try? FileManager.default.contentsOfDirectory(atPath: member + path)) != nil
            try FileManager.default.setAttributes(
                [.posixPermissions: isDirectory ? 0o755 : 0o644], ofItemAtPath: member + path)
        }
        let foreign = ["/.fuse_hidden0000002a00000001", "/.nfs00000000004a", "/lost+found"]
        for name in foreign {
            #expect(FileManager.default.createFile(atPath: member + name, contents: nil))
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: member + name)
        }
        try cluster.start(1)
        _ = try await cluster.leader()
        #expect(try modes() == [])
    }

    @Test("a directory that can't be written to is refused, and stays as it was")
    func unwritableDirectory() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        _ = try await client.put("/kept", [1, 2, 3])
        let member = cluster.directory(1)
        try cluster.signal(1, SIGTERM)
        let files = try FileManager.default.subpathsOfDirectory(atPath: member).sorted()
        let contents = { files.map { try? Data(contentsOf: URL(fileURLWithPath: member + "/" + $0)) } }
        let before = contents()
        let change = { (paths: [String], directory: Int16, file: Int16) in
            for path in paths {
                let isDirectory = try URL(fileURLWithPath: member + path).resourceValues(forKeys: [.isDirectoryKey])
                try FileManager.default.setAttributes(
                    [.posixPermissions: isDirectory.isDirectory == true ? directory : file], ofItemAtPath: member + path
                )
            }
        }
        // All of it, or the log alone.
        for paths in [[""] + files.map { "/" + $0 }, ["/log", "/log/data.mdb", "/log/lock.mdb"]] {
            try change(paths, 0o555, 0o444)
            defer { try? change(paths, 0o755, 0o644) }
            for path in paths.contains("") ? [member, member + "/new"] : [member] {
                let result = try await cluster.runUnprivileged("banyand", ["--data", path])
                #expect(result.code == 1, "\(result.errors)")
                #expect(result.errors.contains(path), "\(result.errors)")
                #expect(
                    result.errors.contains("can't be") && result.errors.contains("Permission denied"),
                    "\(result.errors)")
            }
        }
        #expect(try FileManager.default.subpathsOfDirectory(atPath: member).sorted() == files)
        #expect(contents() == before)
        try cluster.start(1)
        #expect(try await client.get("/kept").content == [1, 2, 3])
        await client.close()
    }

    @Test("a first start that failed can be repeated, and a member that waited goes on waiting for the same ones")
    func repeatedFirstStart() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let data = cluster.folder.appendingPathComponent("again").path
        for _ in 0..<2 {
            let result = try await cluster.run(
                "banyand", ["--data", data, "--listen", cluster.addresses[0], "--bootstrap"])
            #expect(result.code == 1)
            #expect(result.errors.contains("can't listen"), "\(result.errors)")
        }
        let three = try TestCluster(members: 3)
        try three.start(1, isNew: true)
        #expect(await three.condition { try three.log(1).contains("waiting for the other members") })
        try three.signal(1, SIGTERM)
        let other = try await three.run(
            "banyand", ["--data", three.directory(1), "--id", "1", "--cluster", "1=127.0.0.1:1,2=127.0.0.1:2"])
        #expect(other.code == 1)
        #expect(other.errors.contains("was started for --cluster"), "\(other.errors)")
        for id in 1...3 { try three.start(id, isNew: id > 1) }
        _ = try await three.leader()
    }

    @Test("members of two clusters in one list are refused, in whatever order")
    func twoClusters() async throws {
        let (first, second) = (try await TestCluster.start(members: 1), try await TestCluster.start(members: 1))
        for cluster in [first, second] {
            let client = cluster.client()
            _ = try await client.put("/who", Array(cluster.addresses[0].utf8))
            await client.close()
        }
        let list = [first.addresses[0], second.addresses[0]]
        for nodes in [list, list.reversed()] {
            let result = try await first.run("banyan", ["--nodes", nodes.joined(separator: ","), "get", "/who"])
            #expect(result.code == 2 && result.output.isEmpty, "\(result.output)\(result.errors)")
            #expect(
                list.allSatisfy(result.errors.contains) && result.errors.contains("another cluster"), "\(result.errors)"
            )
        }
        // One that was not to be heard at first is found out later.
        try first.signal(1, SIGKILL)
        let client = BanyanClient(nodes: list, timeout: .seconds(5))
        #expect(try await client.get("/who").content == Array(second.addresses[0].utf8))
        try first.start(1)
        try second.signal(1, SIGKILL)
        let error = await #expect(throws: BanyanError.self) {
            while true {
                do { _ = try await client.get("/who") } catch BanyanError.unreachable {}
            }
        }
        #expect("\(try #require(error))".contains("another cluster"))
        await client.close()
    }

    @Test("the load tool reports what failed, and ends with 5 when nobody is there")
    func loadWithoutCluster() async throws {
        let cluster = try TestCluster(members: 1)
        for workload in ["put", "get"] {
            let result = try await cluster.run(
                "banyan-load",
                ["--nodes", cluster.addresses[0], "--workload", workload, "--duration", "1s", "--warmup", "0s"])
            #expect(result.code == 5, "\(result.errors)")
        }
    }

    @Test("a pipe is written into, and a reader that has seen enough is no crash")
    func pipes() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let client = cluster.client()
        let content = [UInt8](repeating: 65, count: 1 << 20)
        _ = try await client.put("/big", content)
        let program = try TestCluster.program("banyan").path
        let head = Process()
        head.executableURL = URL(fileURLWithPath: "/bin/bash")
        head.arguments = [
            "-c", "\(program) --nodes \(cluster.addresses[0]) get /big | head -c 1 >/dev/null; echo ${PIPESTATUS[0]}",
        ]
        let output = Pipe()
        head.standardOutput = output
        try head.run()
        let code = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        #expect(["0\n", "1\n"].contains(code))
        let link = cluster.folder.appendingPathComponent("link").path
        let file = cluster.folder.appendingPathComponent("file")
        try Data("old".utf8).write(to: file)
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: file.path)
        #expect(
            try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "get", "/big", "-o", link]).code == 0)
        #expect(try Data(contentsOf: file) == Data(content))
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link) == file.path)
        let full = try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "get", "/big", "-o", "/dev/full"])
        #expect(full.code == 1)
        #expect(full.errors.contains("No space left"), "\(full.errors)")
        // A file that is there keeps its mode.
        #expect(chmod(file.path, 0o600) == 0)
        #expect(
            try await cluster.run("banyan", ["--nodes", cluster.addresses[0], "get", "/big", "-o", file.path]).code == 0
        )
        let attributes = try FileManager.default.attributesOfItem(atPath: file.path)
        #expect(attributes[.posixPermissions] as? Int == 0o600)
        await client.close()
    }
}
