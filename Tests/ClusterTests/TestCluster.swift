import BanyanClient
import CrashPoints
import Foundation
import Synchronization
import Testing

/// Real members as processes of their own, in a temporary folder and on ports that nobody else has.
final class TestCluster {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    let folder: URL
    /// Where members and clients are found.
    let ports: [Int]
    /// Where the members themselves listen: there, or behind proxies that can cut their links.
    private let listenPorts: [Int]
    private let proxies: [LinkProxy]
    private var processes: [Int: Process] = [:]

    var addresses: [String] { ports.map { "127.0.0.1:\($0)" } }
    private var list: String { list(of: 1...founders) }

    private func list(of ids: some Sequence<Int>) -> String {
        ids.map { "\($0)=127.0.0.1:\(ports[$0 - 1])" }.joined(separator: ",")
    }

    /// What each member is started with, beside what it needs.
    private let options: [String]

    /// Starts a new cluster and waits until it has a leader.
    static func start(
        members: Int, spare: Int = 0, options: [String] = [], isProxied: Bool = false, hasBadDisks: Bool = false,
        descriptorsMax: Int? = nil
    ) async throws -> TestCluster {
        let cluster = try TestCluster(
            members: members, spare: spare, options: options, isProxied: isProxied, hasBadDisks: hasBadDisks,
            descriptorsMax: descriptorsMax)
        for id in 1...members { try cluster.start(id, isNew: true) }
        _ = try await cluster.leader()
        return cluster
    }

    /// - Parameters:
    ///   - spare: members more that can join later.
    ///   - hasBadDisks: each member's disk does what `disks` says.
    ///   - descriptorsMax: what the system lets each member have.
    init(
        members: Int, spare: Int = 0, options: [String] = [], isProxied: Bool = false, hasBadDisks: Bool = false,
        descriptorsMax: Int? = nil
    ) throws {
        self.options = options
        self.descriptorsMax = descriptorsMax
        founders = members
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("banyan-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let count = members + spare
        let free = try Self.freePorts(isProxied ? 2 * count : count)
        ports = Array(free[..<count])
        listenPorts = isProxied ? Array(free[count...]) : ports
        let rules = LinkRules()
        self.rules = rules
        let listen = listenPorts
        proxies =
            isProxied
            ? try (0..<count).map { try LinkProxy(of: $0 + 1, on: free[$0], to: listen[$0], rules) } : []
        guard hasBadDisks else { return }
        for id in 1...count {
            disks[id] = try BadDisk(
                for: folder.appendingPathComponent("\(id)").path,
                control: folder.appendingPathComponent("\(id).disk").path)
        }
    }

    private let descriptorsMax: Int?

    /// The members' disks, where a test plays them.
    private var disks: [Int: BadDisk] = [:]

    func disk(_ id: Int) throws -> BadDisk {
        guard let disk = disks[id] else { throw Failure(description: "member \(id) has no bad disk") }
        return disk
    }

    /// What happens to the links between members.
    let rules: LinkRules
    private let founders: Int

    deinit {
        for proxy in proxies { proxy.close() }
        // Of one that has ended, the number may be another test's member's by now.
        for process in processes.values where process.isRunning {
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
        }
        try? FileManager.default.removeItem(at: folder)
    }

    /// The folder of the built programs.
    static func program(_ name: String) throws -> URL {
        let folders = [Bundle.main.bundleURL, Bundle.main.executableURL?.deletingLastPathComponent()].compactMap { $0 }
        let argument = CommandLine.arguments.first.map { URL(fileURLWithPath: $0).deletingLastPathComponent() }
        for folder in folders + [argument].compactMap({ $0 }) {
            let program = folder.appendingPathComponent(name)
            if FileManager.default.isExecutableFile(atPath: program.path) { return program }
        }
        throw Failure(description: "\(name) was not built")
    }

    /// What the member has logged since it was last started.
    func log(_ id: Int) throws -> String {
        try String(contentsOf: folder.appendingPathComponent("\(id).log"), encoding: .utf8)
    }

    /// Memory of its own, LMDB's map not counted.
    func residentBytes(_ id: Int) throws -> Int {
        guard let process = processes[id] else { throw Failure(description: "member \(id) does not run") }
        let file = open("/proc/\(process.processIdentifier)/status", O_RDONLY | O_CLOEXEC)
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 16 << 10)
        let count = max(0, read(file, &bytes, bytes.count))
        let status = String(decoding: bytes[..<count], as: UTF8.self)
        guard let match = status.firstMatch(of: /RssAnon:\s+(\d+) kB/), let kibibytes = Int(match.1) else {
            throw Failure(description: "the system does not say how much memory member \(id) has")
        }
        return kibibytes << 10
    }

    func directory(_ id: Int) -> String { folder.appendingPathComponent("\(id)").path }

    @discardableResult
    func start(
        _ id: Int, isNew: Bool = false, options own: [String] = [], crashingAt point: String? = nil,
        errors: FileHandle? = nil, environment more: [String: String] = [:]
    ) throws -> Process {
        var arguments = ["--data", directory(id)] + options + own
        if isNew { arguments += ["--id", "\(id)", "--cluster", list, "--bootstrap"] }
        if listenPorts != ports { arguments += ["--listen", "127.0.0.1:\(listenPorts[id - 1])"] }
        var environment = try more.merging(disks[id]?.environment() ?? [:]) { $1 }
        if let point { environment[CrashPoint.variable] = point }
        let process = try launch(
            "banyand", arguments, log: "\(id).log", errors: errors, descriptorsMax: descriptorsMax,
            environment: environment)
        processes[id] = process
        return process
    }

    /// Starts a member with an empty directory that waits to be taken in, and waits until it listens.
    func join(_ id: Int, options own: [String] = []) async throws {
        let others = (1...founders).contains(id) ? Array(1...founders) : Array(1...founders) + [id]
        try start(id, options: own + ["--id", "\(id)", "--cluster", list(of: others), "--join"])
        guard await condition({ try log(id).contains("waiting to be taken in") }) else {
            throw Failure(description: "member \(id) does not wait to be taken in: \(try log(id))")
        }
    }

    /// Ends a member without a word, and deletes what it had.
    func wipe(_ id: Int) throws {
        try signal(id, SIGKILL)
        try FileManager.default.removeItem(atPath: directory(id))
    }

    func isRunning(_ id: Int) -> Bool { processes[id]?.isRunning ?? false }

    func process(_ id: Int) throws -> Process {
        guard let process = processes[id], process.isRunning else {
            throw Failure(description: "member \(id) does not run")
        }
        return process
    }

    func processID(_ id: Int) throws -> Int32 { try process(id).processIdentifier }

    func signal(_ id: Int, _ number: Int32) throws {
        guard let process = processes[id] else { throw Failure(description: "member \(id) does not run") }
        if !process.isRunning || kill(process.processIdentifier, number) != 0 {
            let end = (try? log(id).suffix(1500)) ?? ""
            Issue.record("member \(id) has ended by itself: \(end)")
        }
        if number == SIGKILL || number == SIGTERM {
            process.waitUntilExit()
            processes[id] = nil
        }
    }

    func client(timeout: Duration = .seconds(10)) -> BanyanClient {
        BanyanClient(nodes: addresses, timeout: timeout)
    }

    /// Asks until a member leads, 30 s at most, and answers with its id.
    func leader(other than: Int = 0) async throws -> Int {
        let client = client(timeout: .seconds(1))
        var leader: UInt64?
        _ = await condition(within: .seconds(30)) {
            leader = try await client.status().first { $0.role == "leader" && $0.id != than }?.id
            return leader != nil
        }
        await client.close()
        guard let leader else { throw Failure(description: "no member leads; see \(folder.path)") }
        return Int(leader)
    }

    /// Whether one member leads and all others follow it.
    func leaderAndFollowers(_ client: BanyanClient) async throws -> Bool {
        let members = try await client.status()
        return members.count(where: { $0.role == "leader" }) == 1 && Set(members.map(\.term)).count == 1
            && members.allSatisfy { $0.role == "leader" || $0.role == "follower" }
    }

    /// Waits until all members have executed the same commands, with the same effect.
    func membersAgree(_ client: BanyanClient) async -> Bool {
        await condition {
            let members = try await client.status()
            return members.count == ports.count && Set(members.map(\.appliedIndex)).count == 1
                && Set(members.map(\.digest)).count == 1 && !members.contains { !$0.isRunning }
        }
    }

    /// Asks until `holds` is true; false when it is not so in the end.
    func condition(within limit: Duration = .seconds(60), _ holds: () async throws -> Bool) async -> Bool {
        let end = ContinuousClock.now + limit
        while true {
            // Asked once more behind the end: tests that block their threads may have kept this one from asking at all.
            let isOver = ContinuousClock.now >= end
            if (try? await holds()) == true { return true }
            if isOver { return false }
            await Task.yield()
        }
    }

    /// Runs a program to its end.
    func run(_ name: String, _ arguments: [String]) async throws -> (code: Int32, output: String, errors: String) {
        try await Self.run(Self.program(name), arguments)
    }

    /// Runs a program to its end that may write only what its files' modes let it write, as they let anyone but root.
    func runUnprivileged(
        _ name: String, _ arguments: [String]
    ) async throws -> (code: Int32, output: String, errors: String) {
        guard geteuid() == 0 else { return try await run(name, arguments) }
        let command = [
            "setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override", "--",
            try Self.program(name).path,
        ]
        return try await Self.run(URL(fileURLWithPath: "/usr/bin/env"), command + arguments)
    }

    /// Runs the client in Python.
    func python(_ arguments: [String]) async throws -> (code: Int32, output: String, errors: String) {
        let client = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("fixtures/protocol/client.py")
        return try await Self.run(URL(fileURLWithPath: "/usr/bin/env"), ["python3", client.path] + arguments)
    }

    static func run(
        _ program: URL, _ arguments: [String]
    ) async throws -> (code: Int32, output: String, errors: String) {
        try await blocking {
            let process = Process()
            process.executableURL = program
            process.arguments = arguments
            process.standardInput = FileHandle.nullDevice
            let (output, errors) = (Pipe(), Pipe())
            process.standardOutput = output
            process.standardError = errors
            try process.run()
            let text = output.fileHandleForReading.readDataToEndOfFile()
            let complaint = errors.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return (
                process.terminationStatus, String(decoding: text, as: UTF8.self),
                String(decoding: complaint, as: UTF8.self)
            )
        }
    }

    /// Starts a program that goes on beside the test.
    func begin(_ name: String, _ arguments: [String]) throws -> Process {
        try launch(name, arguments, log: "\(name).log")
    }

    private func launch(
        _ name: String, _ arguments: [String], log: String, errors: FileHandle? = nil,
        descriptorsMax: Int? = nil, environment: [String: String] = [:]
    ) throws -> Process {
        let path = folder.appendingPathComponent(log).path
        guard FileManager.default.createFile(atPath: path, contents: nil) else {
            throw Failure(description: "\(path) can't be made")
        }
        let process = Process()
        process.executableURL = try Self.program(name)
        process.arguments = arguments
        if let descriptorsMax {
            let command = "ulimit -n \(descriptorsMax) && exec \"$0\" \"$@\""
            process.arguments = ["-c", command, try Self.program(name).path] + arguments
            process.executableURL = URL(fileURLWithPath: "/bin/sh")
        }
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.standardInput = FileHandle.nullDevice
        // What it prints is not the test's.
        process.standardOutput = FileHandle.nullDevice
        process.standardError = errors ?? FileHandle(forWritingAtPath: path)
        try process.run()
        return process
    }

    private static let nextPort = Mutex(Int.random(in: 10_000..<30_000))

    /// Ports that are free and that nobody else in this process gets. They lie below those that the system takes for
    /// connections (from 32768): one of these could take a port before its member listens there.
    private static func freePorts(_ count: Int) throws -> [Int] {
        try nextPort.withLock { port in
            var free: [Int] = []
            for _ in 0..<20_000 where free.count < count {
                if canListen(port) { free.append(port) }
                port = port < 29_999 ? port + 1 : 10_000
            }
            guard free.count == count else { throw Failure(description: "there is no free port from 10000 to 29999") }
            return free
        }
    }

    private static func canListen(_ port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }
}

/// Does what blocks on a thread of its own: tests share as many threads as there are processors, and others wait on them.
func blocking<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread { continuation.resume(with: .init(catching: work)) }
    }
}

extension Process {
    /// Waits for the end of a program that runs beside the test.
    func ended() async throws {
        try await blocking { self.waitUntilExit() }
    }
}
