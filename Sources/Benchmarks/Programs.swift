import Foundation

/// Prints a line at once, wherever it goes.
func say(_ line: String) {
    print(line)
    fflush(nil)
}

/// Runs a program to its end, and answers with what it printed.
func output(of program: String, _ arguments: [String], isQuiet: Bool = false) throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments
    let output = Pipe()
    process.standardOutput = output
    if isQuiet { process.standardError = FileHandle.nullDevice }
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let text = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
        throw BenchmarkError("\(program) \(arguments.joined(separator: " ")): ended with \(process.terminationStatus)")
    }
    return String(decoding: text, as: UTF8.self)
}

/// Runs a program that may leave others running behind it. They must not inherit what Foundation's `Process` opens, or it
/// would wait for them too: a shell closes all that first.
func execute(_ program: String, _ arguments: [String]) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/bin/bash")
    let closing = #"for f in /proc/self/fd/*; do n=${f##*/}; [ $n -gt 2 ] && eval "exec $n>&-"; done; exec "$@""#
    process.arguments = ["-c", closing, "bash", program] + arguments
    process.standardError = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    process.standardInput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
        throw BenchmarkError("\(program) \(arguments.joined(separator: " ")): ended with \(process.terminationStatus)")
    }
}

struct BenchmarkError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// What a load tool, Banyan's or a peer's, printed as JSON.
struct LoadFigures: Decodable {
    let operationsPerSecond: Double
    let latencyMs: [String: Double]
    let errors: Int

    static func read(_ line: String) throws -> LoadFigures {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(LoadFigures.self, from: Data(line.utf8))
    }
}

/// Three members on loopback as processes of their own, in a new folder.
final class LocalMembers {
    let folder: Folder
    let nodes: String
    private let list: String
    private let options: [String]
    private let programs: URL
    private var processes: [Int: Process] = [:]

    /// - Parameters:
    ///   - path: is made, and removed at the end.
    ///   - port: the first of as many as there are members.
    init(_ path: String, count: Int = 3, port: Int, options: [String] = []) throws {
        folder = try Folder(path)
        self.options = options
        nodes = (0..<count).map { "127.0.0.1:\(port + $0)" }.joined(separator: ",")
        list = (0..<count).map { "\($0 + 1)=127.0.0.1:\(port + $0)" }.joined(separator: ",")
        programs = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
        for id in 1...count { try start(id, ["--id", "\(id)", "--cluster", list, "--bootstrap"]) }
        try waitForLeader()
    }

    deinit {
        for id in processes.keys { end(id, SIGKILL) }
        folder.remove()
    }

    func directory(_ id: Int) -> String { "\(folder.path)/\(id)" }

    func start(_ id: Int, _ arguments: [String] = []) throws {
        let process = Process()
        process.executableURL = programs.appendingPathComponent("banyand")
        process.arguments = ["--data", directory(id)] + options + arguments
        let log = "\(folder.path)/\(id).log"
        guard FileManager.default.createFile(atPath: log, contents: nil) else {
            throw BenchmarkError("\(log): can't be written")
        }
        process.standardError = FileHandle(forWritingAtPath: log)
        process.standardInput = FileHandle.nullDevice
        try process.run()
        processes[id] = process
    }

    /// Starts a member with an empty directory that waits to be taken in.
    func join(_ id: Int) throws { try start(id, ["--id", "\(id)", "--cluster", list, "--join"]) }

    func end(_ id: Int, _ signal: Int32 = SIGTERM) {
        guard let process = processes.removeValue(forKey: id) else { return }
        kill(process.processIdentifier, signal)
        process.waitUntilExit()
    }

    func program(_ name: String) -> URL { programs.appendingPathComponent(name) }

    /// Runs banyan with the members' addresses, or with that of one alone.
    @discardableResult
    func banyan(_ arguments: [String], to member: Int? = nil) throws -> String {
        let own = member.map { String(nodes.split(separator: ",")[$0 - 1]) }
        return try output(of: program("banyan").path, arguments + ["--nodes", own ?? nodes], isQuiet: true)
    }

    func load(_ arguments: [String]) throws -> LoadFigures {
        let tool = programs.appendingPathComponent("banyan-load").path
        return try LoadFigures.read(try output(of: tool, ["--nodes", nodes, "--json", "-"] + arguments))
    }

    func waitForLeader() throws {
        for _ in 0..<300 {
            if (try? banyan(["status"])) != nil { return }
            usleep(50_000)
        }
        throw BenchmarkError("no member leads; see \(folder.path)")
    }

    /// Waits until all members have executed the same.
    func untilLevel() throws {
        for _ in 0..<1200 {
            if let members = try? status(), Set(members.map(\.appliedIndex)).count == 1 { return }
            usleep(50_000)
        }
        throw BenchmarkError("a member does not catch up; see \(folder.path)")
    }

    struct Member: Decodable {
        let id: Int
        let role: String
        let appliedIndex: UInt64
        let statistics: [String: UInt64]
    }

    func status() throws -> [Member] {
        struct Status: Decodable { let members: [Member] }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(Status.self, from: Data(try banyan(["status", "--json"]).utf8)).members
    }

    func leaderStatistics() throws -> [String: UInt64] {
        guard let leader = try status().first(where: { $0.role == "leader" })?.statistics else {
            throw BenchmarkError("no member leads; see \(folder.path)")
        }
        return leader
    }

    /// Of the leader's log: its last index, and how often it was committed.
    func logged() throws -> (entries: Double, commits: Double) {
        let leader = try leaderStatistics()
        return (Double(leader["log_last_index"] ?? 0), Double(leader["log_commits"] ?? 0))
    }

    /// MiB that the members have of their own, LMDB's map not counted: the largest.
    func residentMebibytes() -> Int {
        processes.values.map { process in
            let status =
                (try? String(contentsOfFile: "/proc/\(process.processIdentifier)/status", encoding: .utf8)) ?? ""
            let line = status.split(separator: "\n").first { $0.hasPrefix("RssAnon") }
            return (line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? 0) >> 10
        }.max() ?? 0
    }
}

func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return sorted.isEmpty ? 0 : sorted[sorted.count / 2]
}
