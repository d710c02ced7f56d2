import BanyanClient
import Console
import Foundation

/// Members as child processes, and what happens to them, in sentences.
///
/// Their logs go to files: a pipe that this program does not read, since it is stopped or its terminal is held, would hold
/// the members up. What is told is what a client sees of them, and how they end.
actor LocalCluster {
    private enum Happening: Sendable {
        case seen([MemberReport])
        case ended(member: Int, process: Int32, status: String)
        case typed(String)
        case stop
    }

    private let nodes: Int
    private let data: String
    private let port: Int
    private let server: URL
    private var members: [Int: Process] = [:]

    init(nodes: Int, data: String, port: Int) throws {
        self.nodes = nodes
        self.data = data
        self.port = port
        guard let own = Bundle.main.executableURL?.resolvingSymlinksInPath() else {
            throw CommandFailure("can't find the folder of this program, where banyand should be")
        }
        server = own.deletingLastPathComponent().appendingPathComponent("banyand")
        guard FileManager.default.isExecutableFile(atPath: server.path) else {
            throw CommandFailure("\(server.path) is missing; build it with 'make build'")
        }
    }

    private var addresses: String { (0..<nodes).map { "127.0.0.1:\(port + $0)" }.joined(separator: ",") }

    private var list: String { (0..<nodes).map { "\($0 + 1)=127.0.0.1:\(port + $0)" }.joined(separator: ",") }

    /// Members find each other by the list that they were first started with.
    private func keepList() throws {
        let file = URL(fileURLWithPath: data).appendingPathComponent("cluster")
        if let kept = try? String(contentsOf: file, encoding: .utf8) {
            guard kept == list else {
                throw CommandFailure(
                    "\(data) holds the cluster \(kept): give the same --nodes and --port, or another --data",
                    exitCode: 2)
            }
            return
        }
        do {
            // What the members have is theirs.
            try FileManager.default.createDirectory(
                atPath: data, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
            try Data(list.utf8).write(to: file)
        } catch {
            throw CommandFailure("\(data): can't be written: \(String(cString: strerror(errno)))")
        }
    }

    /// What already listens there is another cluster's, or no member at all.
    private func checkPorts() throws {
        for port in port..<port + nodes {
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            defer { close(descriptor) }
            // As a member does: a connection that is closing is no obstacle.
            var isReused: Int32 = 1
            setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &isReused, socklen_t(MemoryLayout<Int32>.size))
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = UInt16(port).bigEndian
            address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            let isFree = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0 && listen(descriptor, 1) == 0
                }
            }
            guard isFree else {
                throw CommandFailure(
                    "127.0.0.1:\(port): \(String(cString: strerror(errno))): stop what listens there (another 'banyan local'?), or give another "
                        + "--port and another --data"
                )
            }
        }
    }

    func run() async throws {
        try checkPorts()
        try keepList()
        let (happenings, continuation) = AsyncStream.makeStream(of: Happening.self)
        let signals = Signals.ending.map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number)
            source.setEventHandler { continuation.yield(.stop) }
            source.resume()
            return source
        }
        Thread.detachNewThread {
            while let line = readLine() { continuation.yield(.typed(line)) }
        }
        for id in 1...nodes { try start(id, continuation) }
        say("their logs are \(log(1))\(nodes > 1 ? " to \(nodes).log" : ""); in another terminal:")
        say("  export BANYAN_NODES=\(addresses)")
        say("type help to see what can be done to them")
        let watcher = Task { await Self.watch(addresses.split(separator: ",").map(String.init), continuation) }
        defer { watcher.cancel() }
        var story = ClusterStory()
        for await happening in happenings {
            switch happening {
            case .seen(let reports): for line in story.tell(sights(reports)) { say(line) }
            case .ended(let member, let process, let status):
                if members[member]?.processIdentifier == process { members[member] = nil }
                say(
                    "member \(member) ended (\(status))\(lastWords(of: member)); type 'start \(member)' to bring it back"
                )
            case .typed(let line): if try !obey(line, continuation) { continuation.yield(.stop) }
            case .stop:
                await stop()
                withExtendedLifetime(signals) {}
                return
            }
        }
    }

    private func start(_ id: Int, _ continuation: AsyncStream<Happening>.Continuation) throws {
        let directory = "\(data)/\(id)"
        let process = Process()
        process.executableURL = server
        process.arguments = ["--data", directory, "--id", "\(id)", "--cluster", list, "--bootstrap"]
        process.standardError = try openLog(id)
        process.standardInput = FileHandle.nullDevice
        process.terminationHandler = { process in
            let how = process.terminationReason == .uncaughtSignal ? "signal" : "exit code"
            continuation.yield(
                .ended(
                    member: id, process: process.processIdentifier, status: "\(how) \(process.terminationStatus)"))
        }
        try process.run()
        members[id] = process
        say("member \(id) on 127.0.0.1:\(port + id - 1) is process \(process.processIdentifier)")
    }

    /// False when the cluster is to stop.
    private func obey(_ line: String, _ continuation: AsyncStream<Happening>.Continuation) throws -> Bool {
        let words = line.split(separator: " ").map(String.init)
        guard let verb = words.first else { return true }
        if verb == "quit" || verb == "exit" { return false }
        let signals: [String: (Int32, String)] = [
            "kill": (SIGKILL, "killed"), "pause": (SIGSTOP, "paused"), "resume": (SIGCONT, "resumed"),
        ]
        let id = words.count == 2 ? Int(words[1]) : nil
        if let id, (1...nodes).contains(id) {
            if let (number, word) = signals[verb] {
                guard let process = members[id] else {
                    say("member \(id) does not run")
                    return true
                }
                kill(process.processIdentifier, number)
                say("member \(id) \(word)")
                return true
            }
            if verb == "start" {
                if members[id] != nil { say("member \(id) runs already") } else { try start(id, continuation) }
                return true
            }
        }
        say("kill N, start N, pause N, resume N (N from 1 to \(nodes)), quit")
        return true
    }

    /// How long a member may take to end.
    private static let farewell = Duration.seconds(10)

    private func stop() async {
        say("stopping")
        for process in members.values {
            kill(process.processIdentifier, SIGCONT)
            process.terminate()
        }
        let end = ContinuousClock.now + Self.farewell
        while members.values.contains(where: \.isRunning), ContinuousClock.now < end {
            try? await Task.sleep(for: .milliseconds(20))
        }
        for (id, process) in members where process.isRunning {
            say("member \(id) does not end, and is killed")
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
        }
    }

    // MARK: what is seen

    private static let lookInterval = Duration.milliseconds(200)
    /// Members on this machine answer soon, unless they are stopped.
    private static let answerMax = Duration.milliseconds(500)

    private static func watch(_ addresses: [String], _ continuation: AsyncStream<Happening>.Continuation) async {
        let client = BanyanClient(nodes: addresses, timeout: .seconds(5))
        while !Task.isCancelled {
            let reports = (try? await client.status(within: answerMax)) ?? []
            continuation.yield(.seen(reports))
            try? await Task.sleep(for: lookInterval)
        }
        await client.close()
    }

    /// Of each member of the list, as it was started: whoever was added since is seen by 'banyan status'.
    private func sights(_ reports: [MemberReport]) -> [ClusterStory.Sight] {
        (1...nodes).map { id in
            let report = reports.first { $0.id == UInt64(id) && $0.isRunning }
            return ClusterStory.Sight(
                id: UInt64(id), role: report?.role, term: report?.term ?? 0, applied: report?.appliedIndex ?? 0)
        }
    }

    // MARK: logs

    private static let logBytesMax = 16 << 20

    private func log(_ id: Int) -> String { "\(data)/\(id).log" }

    /// A log that has become long begins anew.
    private func openLog(_ id: Int) throws -> FileHandle {
        var info = stat()
        let isLong = stat(log(id), &info) == 0 && info.st_size > Self.logBytesMax
        let descriptor = open(log(id), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (isLong ? O_TRUNC : 0), 0o600)
        guard descriptor >= 0 else { throw CommandFailure("\(log(id)): \(String(cString: strerror(errno)))") }
        return FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    }

    /// What a member that could not start, or go on, said last.
    private func lastWords(of id: Int) -> String {
        guard let file = FileHandle(forReadingAtPath: log(id)), let end = try? file.seekToEnd() else { return "" }
        try? file.seek(toOffset: end > 4096 ? end - 4096 : 0)
        let text = String(decoding: (try? file.readToEnd()) ?? Data(), as: UTF8.self)
        guard let line = text.split(whereSeparator: \.isNewline).last, line.hasPrefix("banyand: ") else { return "" }
        return ": \(line.dropFirst("banyand: ".count))"
    }

    private func say(_ text: String) {
        let time = Date().formatted(.iso8601.time(includingFractionalSeconds: false))
        // Not `print`: its buffer would have to be flushed, and C flushes one stream only after waiting for the lock of
        // standard input, which the thread that reads the commands holds. Whoever reads it may have gone: the members go on.
        try? Console.print("\(time)  \(text)")
    }
}
