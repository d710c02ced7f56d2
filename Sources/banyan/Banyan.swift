import ArgumentParser
import BanyanClient
import Console
import Foundation
import NIOCore

@main
struct Banyan: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "banyan",
        abstract: "Files in a Banyan cluster: put, get, list, move, remove.",
        discussion: """
            Paths are absolute, as in /etc/app/limits.conf. A slash at the end says that a directory is meant; '//', '.', '..' \
            and the empty path are wrong usage.

            Name the members with --nodes, or once for all with
              export BANYAN_NODES=127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403
            Any one of them will do: the client finds the leader.

            Exit codes: 0 done; 1 the operation failed; 2 wrong usage; 3 no such path; 4 a condition did not hold; \
            5 the cluster can't be reached, has no quorum, or the outcome of a write is unknown.
            """, version: Console.version,
        subcommands: [
            PutCommand.self, GetCommand.self, ListCommand.self, StatCommand.self, RemoveCommand.self,
            MakeDirectoryCommand.self, MoveCommand.self, ChangeModeCommand.self, TouchCommand.self, MirrorCommand.self,
            StatusCommand.self, LeaderCommand.self, MemberCommand.self, VerifyCommand.self, CompactCommand.self,
            SnapshotCommand.self, RecoverCommand.self,
            LocalCommand.self,
        ])

    static func main() {
        // One client, one loop: it does little, and each loop takes files and a thread.
        NIOSingletons.groupLoopCountSuggestion = 1
        Console.start(Self.self, commandFirst(Console.arguments))
    }

    /// Moves the options that stand before the command behind it: `banyan --json ls /` is `banyan ls --json /`.
    private static func commandFirst(_ arguments: [String]) -> [String] {
        var rest = arguments[...]
        var options: [String] = []
        while let option = rest.first,
            option == "--json" || option.hasPrefix("--nodes") || option.hasPrefix("--timeout")
        {
            rest.removeFirst()
            options.append(option)
            if option == "--nodes" || option == "--timeout", let value = rest.popFirst() { options.append(value) }
        }
        guard let command = rest.popFirst() else { return [] }
        var commands = [command]
        let groups: [any ParsableCommand.Type] = [
            MirrorCommand.self, LeaderCommand.self, MemberCommand.self, SnapshotCommand.self,
        ]
        if groups.contains(where: { $0.configuration.commandName == command }), let direction = rest.popFirst() {
            commands.append(direction)
        }
        return commands + options + rest
    }
}

extension CommandFailure {
    init(_ error: BanyanError, at path: String) {
        let exitCode: Int32 =
            switch error {
            case .notFound, .noSuchMember: 3
            case .conditionFailed: 4
            case .unknownOutcome, .unreachable, .memberUnreachable, .noQuorum: 5
            case .differentClusters, .noSuchHost: 2
            default: 1
            }
        self.init("\(path): \(error)", exitCode: exitCode)
    }
}

/// The options that every command takes.
struct ClusterOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Addresses of members, one at least (or BANYAN_NODES).", valueName: "host:port,..."),
        transform: NodeList.option)
    var nodes: NodeList?

    @Flag(help: "Print JSON.")
    var json = false

    @Option(help: ArgumentHelp("The longest time without progress, as in 500ms, 5s or 1m.", valueName: "duration"))
    var timeout = TimeSpan(seconds: 5)

    func validate() throws {
        guard timeout.seconds >= 0.001 else { throw ValidationError("--timeout must be positive") }
    }

    /// An event loop, standard descriptors, /proc, name look-ups, files, members that were not named, and some to spare.
    static let descriptors = 24

    /// Runs `body` with a client, and turns what it throws into one line about `path`.
    func withClient<Result: Sendable>(
        _ path: String, _ body: (BanyanClient) async throws -> Result
    ) async throws -> Result {
        let list = try NodeList.resolve(nodes, environment: ProcessInfo.processInfo.environment["BANYAN_NODES"])
        try Descriptors.require(Self.descriptors + list.addresses.count)
        let client = BanyanClient(nodes: list.addresses, timeout: timeout.duration)
        do {
            let result = try await body(client)
            await client.close()
            return result
        } catch {
            await client.close()
            guard let error = error as? BanyanError else { throw error }
            throw CommandFailure(error, at: path)
        }
    }

    /// Prints `value` as JSON, or else `text`.
    func show(_ value: some Encodable, _ text: @autoclosure () -> String) throws {
        guard json else {
            let text = text()
            if !text.isEmpty { try Console.print(text) }
            return
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try Console.print(Shown.json(String(decoding: try encoder.encode(value), as: UTF8.self)))
    }
}

/// What a read may miss.
struct ConsistencyOptions: ParsableArguments {
    enum Level: String, ExpressibleByArgument, CaseIterable { case linearizable, lease, stale }

    @Option(
        help: ArgumentHelp(
            "What a read may miss: linearizable (nothing), lease (nothing, if the members' clocks run alike), stale.",
            valueName: "level"))
    var consistency = Level.linearizable

    @Option(
        name: .customLong("max-age"),
        help: ArgumentHelp("With stale: miss nothing that is older than this, as in 2s.", valueName: "duration"))
    var maximumAge: TimeSpan?

    func validate() throws {
        if maximumAge != nil, consistency != .stale { throw ValidationError("--max-age needs --consistency stale") }
    }

    var level: Consistency {
        switch consistency {
        case .linearizable: .linearizable
        case .lease: .lease
        case .stale: .stale(maximumAge: maximumAge?.duration)
        }
    }
}

/// The condition of a write, for scripts that must not overwrite what they have not seen.
struct ConditionOptions: ParsableArguments {
    @Flag(name: .customLong("if-absent"), help: "Only if nothing is at the path; else exit with 4.")
    var ifAbsent = false

    @Option(name: .customLong("if-revision"), help: "Only if the path is at this revision; else exit with 4.")
    var ifRevision: UInt64?

    func validate() throws {
        if ifAbsent && ifRevision != nil { throw ValidationError("--if-absent and --if-revision exclude each other") }
    }

    var condition: WriteCondition { ifAbsent ? .absent : ifRevision.map { .revision($0) } ?? .always }
}
