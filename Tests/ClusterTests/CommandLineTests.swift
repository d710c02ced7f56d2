import BanyanClient
import Foundation
import Testing

/// The command line where members are stopped, descriptors are closed or few, and nobody reads what it says.
@Suite("The command line in bad company", .serialized)
struct CommandLineTests {
    /// Runs a line of the shell in which `banyan` and the others are found.
    private func shell(_ line: String) async throws -> (code: Int32, output: String, errors: String) {
        let folder = try TestCluster.program("banyan").deletingLastPathComponent().path
        return try await TestCluster.run(URL(fileURLWithPath: "/bin/sh"), ["-c", "PATH=\(folder):$PATH; \(line)"])
    }

    @Test("a stopped member at the first address keeps nobody from the leader, and a timeout is kept by every command")
    func stopped() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let leader = try await cluster.leader()
        let mute = leader % 3 + 1
        try cluster.signal(mute, SIGSTOP)
        let nodes = "\(cluster.addresses[mute - 1]),\(cluster.addresses[leader - 1])"
        for _ in 1...3 {
            let put = try await cluster.run("banyan", ["--nodes", nodes, "put", "/x", "/dev/null"])
            #expect(put.code == 0, "\(put.errors)")
        }
        let python = try await cluster.python([nodes, "get", "/x"])
        #expect(python.code == 0, "\(python.errors)")
        for id in 1...3 { try cluster.signal(id, SIGSTOP) }
        let commands = [
            ["leader", "show"], ["status"], ["verify"], ["compact", "1"], ["compact", "--all"],
            ["snapshot", "save", cluster.folder.appendingPathComponent("s").path], ["get", "/x"],
            ["put", "/x", "/dev/null"], ["member", "list"], ["get", "/x", "--consistency", "lease"],
            ["get", "/x", "--consistency", "stale"], ["leader", "transfer"],
        ]
        for command in commands {
            let began = ContinuousClock.now
            let result = try await cluster.run(
                "banyan", ["--nodes", cluster.addresses.joined(separator: ","), "--timeout", "300ms"] + command)
            #expect(result.code == 5, "\(command): \(result.errors)")
            // What they took before was 5 s, a minute or an hour; a busy machine needs a moment to start a program.
            #expect(ContinuousClock.now - began < .seconds(10), "\(command)")
            #expect(cluster.addresses.allSatisfy(result.errors.contains), "\(command): \(result.errors)")
        }
        for id in 1...3 { try cluster.signal(id, SIGCONT) }
    }

    @Test("closed standard descriptors are /dev/null, and too few descriptors are said")
    func descriptors() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let banyan = "banyan --nodes \(cluster.addresses[0])"
        // Eight bytes are what an event loop's own descriptor takes.
        for closed in ["<&- >&-", ">&- 2>&-", ">&-", "<&- >&- 2>&-"] {
            let put = try await shell(
                "printf 12345678 > \(cluster.folder.path)/f; \(banyan) put /k \(cluster.folder.path)/f \(closed)")
            #expect(put.code == 0, "\(closed): \(put.errors)")
            #expect(try await shell("\(banyan) get /k \(closed)").code == 0, "\(closed)")
        }
        #expect(try await shell("\(banyan) get /k <&- 2>&-").output == "12345678")
        #expect(try await shell("\(banyan) put /empty - <&-").code == 0)
        for count in [10, 16, 24] {
            for line in [
                "\(banyan) get /k", "\(banyan) mirror pull / \(cluster.folder.path)/out",
                "banyan-load --nodes \(cluster.addresses[0]) --duration 0.1s",
                "banyan local --data \(cluster.folder.path)/l",
            ] {
                let result = try await shell("ulimit -n \(count); \(line)")
                #expect(result.code == 1, "\(count) \(line): \(result.errors)")
                #expect(result.errors.contains("ulimit -n"), "\(count) \(line): \(result.errors)")
                #expect(result.errors.split(separator: "\n").count == 1, "\(count) \(line): \(result.errors)")
            }
        }
        // With a few more the mirror works, if with fewer files at once.
        let (source, target) = (cluster.folder.path + "/many", cluster.folder.path + "/back")
        let files = try await shell("mkdir \(source) && for i in $(seq 120); do echo $i >\(source)/$i; done")
        #expect(files.code == 0, "\(files.errors)")
        for command in ["push \(source) /many", "pull /many \(target)"] {
            let result = try await shell("ulimit -n 28; \(banyan) mirror \(command)")
            #expect(result.code == 0, "\(command): \(result.errors)")
        }
        #expect(try await shell("diff -r \(source) \(target)").code == 0)
    }

    @Test("times are kept and shown to the nanosecond, of files and directories, as far as the file system has them")
    func nanoseconds() async throws {
        let cluster = try await TestCluster.start(members: 1)
        let banyan = "banyan --nodes \(cluster.addresses[0])"
        let folder = cluster.folder.path
        let result = try await shell(
            """
            mkdir \(folder)/s && echo 1 >\(folder)/s/f && touch -d '2001-02-03 04:05:06.123456789 UTC' \(folder)/s/f
            \(banyan) mirror push \(folder)/s /s >/dev/null && \(banyan) stat --json /s/f
            \(banyan) ls --json /s
            \(banyan) mirror pull /s \(folder)/t >/dev/null && stat -c %y \(folder)/t/f
            """)
        #expect(result.errors.isEmpty, "\(result.errors)")
        #expect(result.output.split(separator: "981173106123456789").count == 3, "\(result.output)")
        #expect(result.output.contains("06.123456789"), "\(result.output)")
    }

    @Test("a local cluster goes on while the program that shows it stands still, and tells what happens in sentences")
    func local() async throws {
        let cluster = try TestCluster(members: 1)
        let data = cluster.folder.appendingPathComponent("local").path
        let told = cluster.folder.appendingPathComponent("told")
        #expect(FileManager.default.createFile(atPath: told.path, contents: nil))
        let process = Process()
        process.executableURL = try TestCluster.program("banyan")
        process.arguments = ["local", "--nodes", "1", "--port", "\(cluster.ports[0])", "--data", data]
        process.standardInput = Pipe()
        process.standardOutput = FileHandle(forWritingAtPath: told.path)
        try process.run()
        defer { if process.isRunning { process.terminate() } }
        #expect(
            await cluster.condition {
                try String(contentsOf: told, encoding: .utf8).contains("member 1 leads term ")
            })
        kill(process.processIdentifier, SIGSTOP)
        let client = cluster.client()
        for number in 0..<200 { _ = try await client.put("/f\(number)", []) }
        await client.close()
        kill(process.processIdentifier, SIGCONT)
        process.interrupt()
        try await process.ended()
        #expect(process.terminationStatus == 0)
        #expect(try String(contentsOfFile: "\(data)/1.log", encoding: .utf8).contains("stopped"))
        // Words, no fields.
        #expect(!(try String(contentsOf: told, encoding: .utf8)).contains("role="))
    }
}
