import Console
import Foundation

/// Members as child processes, and what happens to them, line by line.
actor LocalCluster {
    private enum Happening: Sendable {
        case line(member: Int, String)
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
            try FileManager.default.createDirectory(atPath: data, withIntermediateDirectories: true)
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
                    "127.0.0.1:\(port): \(String(cString: strerror(errno))): stop what listens there, or give another --port"
                )
            }
        }
    }

    func run() async throws {
        try checkPorts()
        try keepList()
        let (happenings, continuation) = AsyncStream.makeStream(of: Happening.self)
        let signals = [SIGINT, SIGTERM, SIGHUP].map { number in
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
        say("\(nodes) members; in another terminal:  export BANYAN_NODES=\(addresses)")
        say("type help to see what can be done to them")
        for await happening in happenings {
            switch happening {
            case .line(let member, let line): report(line, of: member)
            case .ended(let member, let process, let status):
                if members[member]?.processIdentifier == process { members[member] = nil }
                say("member \(member) ended (\(status)); type 'start \(member)' to bring it back")
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
        let output = Pipe()
        process.standardError = output
        process.standardInput = FileHandle.nullDevice
        process.terminationHandler = { process in
            let how = process.terminationReason == .uncaughtSignal ? "signal" : "exit code"
            continuation.yield(
                .ended(
                    member: id, process: process.processIdentifier, status: "\(how) \(process.terminationStatus)"))
        }
        try process.run()
        members[id] = process
        let reading = output.fileHandleForReading
        Thread.detachNewThread {
            var rest = Data()
            while true {
                let bytes = reading.availableData
                if bytes.isEmpty { break }
                rest += bytes
                while let newline = rest.firstIndex(of: 10) {
                    continuation.yield(.line(member: id, String(decoding: rest[..<newline], as: UTF8.self)))
                    rest = Data(rest[(newline + 1)...])
                }
            }
        }
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

    private func stop() async {
        say("stopping")
        for process in members.values {
            kill(process.processIdentifier, SIGCONT)
            process.terminate()
        }
        for process in members.values { process.waitUntilExit() }
    }

    /// The member's log line without its time and label, or what it says when it can't start.
    private func report(_ line: String, of member: Int) {
        let isLogged = line.first?.isNumber ?? false
        let text = isLogged ? line.split(separator: " ", maxSplits: 3).last.map(String.init) ?? line : line
        say("member \(member)  \(text)")
    }

    private func say(_ text: String) {
        let time = Date().formatted(.iso8601.time(includingFractionalSeconds: false))
        // Not `print`: its buffer would have to be flushed, and C flushes one stream only after waiting for the lock of
        // standard input, which the thread that reads the commands holds.
        FileHandle.standardOutput.write(Data("\(time)  \(text)\n".utf8))
    }
}
