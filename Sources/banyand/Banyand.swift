import ArgumentParser
import Console
import Glibc
import Logging
import MemberLog
import NIOCore
import NIOPosix
import Node
import ServiceLifecycle
import Transport
import WireProtocol

@main
struct Banyand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "banyand",
        abstract: "A member of Banyan, a Raft-replicated file server.",
        discussion: """
            One member on this machine, at its first start:
              banyand --data DIR --bootstrap

            Three members; on the first start of each, with the same list:
              banyand --data DIR1 --id 1 --cluster 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT --bootstrap
            and from then on, since the directory knows its cluster:
              banyand --data DIR1

            A fourth, which a running cluster takes in with 'banyan member add 4 HOST:PORT':
              banyand --data DIR4 --id 4 --cluster 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT,4=HOST:PORT --join

            A member's address in --cluster is recorded, and given to the others and to clients. To listen elsewhere, as on all
            addresses of a machine, say both:
              banyand --data DIR --id 1 --cluster 1=HOST:PORT --listen 0.0.0.0:PORT --bootstrap

            Members that all moved at once, as to another subnet, are started with their new addresses; these are used, and
            recorded as soon as there is a leader (of one that moved alone, say 'banyan member set-address'):
              banyand --data DIR1 --id 1 --cluster 1=NEW:PORT,2=NEW:PORT,3=NEW:PORT
            A list that a script repeats says nothing of a member whose address the cluster has recorded since.

            A directory belongs to one member of one cluster, and to the user who runs it (mode 700). An empty one is taken for
            nothing else: without --bootstrap, --join or --restore it is refused. SIGTERM and SIGINT end a member cleanly.
            """, version: Console.version)

    @Option(help: "The directory of this member's log and state; made when it is missing.")
    var data: String

    @Option(help: "Which member of --cluster this is.")
    var id: UInt64?

    @Option(
        help: "All members as ID=HOST:PORT,... Needed on the first start, and when all have moved.",
        transform: Cluster.parse)
    var cluster: Cluster = Cluster(members: [])

    @Flag(help: "This is the first start of a new cluster's members, or of its only one.")
    var bootstrap = false

    @Flag(help: "This is the first start of a member that a running cluster will take in: see 'banyan member --help'.")
    var join = false
    @Option(help: ArgumentHelp("Serve administration over HTTP.", visibility: .hidden)) var admin: String?
    @Option(help: ArgumentHelp("Read these options from a file.", visibility: .hidden)) var config: String?

    @Option(help: "First make the empty directory that of a new cluster, from a file of 'banyan snapshot save'.")
    var restore: String?

    @Option(
        help: "Where to listen, as HOST:PORT, if not at this member's address in --cluster.", transform: Address.parse)
    var listen: Address?

    @Option(
        name: .customLong("log-tail"),
        help: "How many executed entries the log keeps for members that are a little behind.")
    var logTail: UInt64 = ServerOptions.defaultLogTail

    @Option(
        help: ArgumentHelp(
            "Refuse puts, and still take deletes, while less than this is free on the leader's disk or a majority's.",
            valueName: "size"))
    var reserve: ByteSize = ByteSize(bytes: ServerOptions.defaultReserve)

    @Option(
        name: .customLong("snapshot-rate"),
        help: ArgumentHelp("Send at most so much of a snapshot in a second to each member.", valueName: "size"))
    var snapshotRate: ByteSize = ByteSize(bytes: UInt64(ServerOptions.defaultSnapshotRate))

    @Option(
        name: .customLong("scrub-rate"),
        help: ArgumentHelp(
            "Read at most so much in a second of what is kept, in search of damage.", valueName: "size"))
    var scrubRate = ByteSize(bytes: 64 << 20)

    @Option(
        name: .customLong("scrub-interval"),
        help: ArgumentHelp("Seconds from one search for damage to the next; 0: never.", valueName: "seconds"))
    var scrubInterval: UInt32 = 3600

    @Option(
        name: .customLong("cluster-version"),
        help: "Act as a program that knows this cluster version and no later one: to rehearse an upgrade.")
    var clusterVersion: UInt16 = ServerOptions.newestVersion

    @Option(name: .customLong("log-level"), help: "trace, debug, info, notice, warning, error or critical.")
    var logLevel: Logger.Level = .info

    enum LogFormat: String, ExpressibleByArgument, CaseIterable { case text, json }

    @Option(name: .customLong("log-format"), help: "Log lines as text for people or as JSON objects.")
    var logFormat = LogFormat.text

    static func main() {
        Descriptors.raiseLimit()
        _ = ServerService.inherited
        Console.start(Self.self)
    }

    func validate() throws {
        if join, cluster.members.count < 2 {
            throw ValidationError("--join needs --cluster with a member of the cluster to join, and this one")
        }
        if let id, !cluster.members.isEmpty, !cluster.members.contains(where: { $0.id == id }) {
            throw ValidationError("--id \(id) is not one of the ids of --cluster")
        }
        if restore != nil, join || bootstrap || cluster.members.count > 1 {
            throw ValidationError(
                "--restore makes a cluster of one, without --bootstrap, --join and others in --cluster; those come with "
                    + "'banyan member add'")
        }
        if cluster.members.isEmpty, let listen, listen.isWildcard, bootstrap || restore != nil {
            throw ValidationError(
                "--listen \(listen) is no address that clients can connect to; say theirs too: --id 1 --cluster "
                    + "1=HOST:\(listen.port)")
        }
        if data.isEmpty { throw ValidationError("--data is empty: name a directory") }
        if restore?.isEmpty == true { throw ValidationError("--restore is empty: name a snapshot's file") }
        if let id, id == 0 { throw ValidationError("a member's id is at least 1") }
        if join, bootstrap { throw ValidationError("--join and --bootstrap exclude each other") }
        guard (1...ServerOptions.newestVersion).contains(clusterVersion) else {
            throw ValidationError("--cluster-version must be from 1 to \(ServerOptions.newestVersion)")
        }
        if admin != nil { throw ValidationError("--admin is not served by this version: use 'banyan status'") }
        if config != nil {
            throw ValidationError("--config is not served by this version: give the options themselves")
        }
        if !cluster.members.isEmpty, id == nil {
            throw ValidationError("--cluster needs --id: which of its members is this?")
        }
    }

    /// Its own files, its links, and a client's connection or two.
    private static let descriptorsMin = 32

    func run() async throws {
        try Descriptors.require(Self.descriptorsMin)
        let (level, format) = (logLevel, logFormat)
        let output = LogOutput(format: format == .json ? .json : .text)
        defer { output.flush() }
        LoggingSystem.bootstrap { label in
            var handler = MemberLogHandler(label: label, format: format == .json ? .json : .text, output: output)
            handler.logLevel = level
            return handler
        }
        var logger = Logger(label: "banyand")
        if let id { logger[metadataKey: "member"] = "\(id)" }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        var options = ServerOptions(
            data: data, id: id, cluster: cluster.members, isBootstrap: bootstrap, isJoin: join, listen: listen,
            logTailMax: logTail, reserve: reserve.bytes, snapshotRate: Int(snapshotRate.bytes),
            knownVersion: clusterVersion)
        options.scrubRate = Int(scrubRate.bytes)
        options.scrubInterval = UInt64(scrubInterval) * 1_000_000_000
        if let restore {
            let address = cluster.members.first?.address ?? listen ?? ServerOptions.defaultAddress
            do {
                let contents = try Restore.restore(restore, to: data, id: id ?? 1, address: address) {
                    logger.warning("\($0)")
                }
                logger.notice(
                    "restored",
                    metadata: [
                        "files": "\(contents.applied.files)", "bytes": "\(contents.applied.bytes)",
                        "index": "\(contents.metadata.index)",
                    ])
            } catch { throw CommandFailure("\(error)") }
        }
        let service = ServerService(options: options, loop: loop, logger: logger, output: output)
        do {
            try await service.prepare()
        } catch {
            throw CommandFailure("\(error)")
        }
        let lifecycle = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: [service], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
        try await lifecycle.run()
        try await group.shutdownGracefully()
    }
}

/// The server as a service: it runs until it is told to stop.
final class ServerService: Service {
    private let options: ServerOptions
    private let loop: any EventLoop
    private let logger: Logger
    private let server: EventLoopFuture<NIOLoopBound<Server>>

    init(options: ServerOptions, loop: any EventLoop, logger: Logger, output: LogOutput) {
        self.options = options
        self.loop = loop
        self.logger = logger
        server = loop.submit {
            let server = try Server(
                options, on: loop, logger: logger,
                fatal: { reason in
                    logger.critical("this member stops", metadata: ["reason": "\(reason)"])
                    output.say("banyand: \(Shown.line(reason))")
                    output.flush()
                    // Nothing is left to be saved: what was not synced was not acknowledged.
                    exit(1)
                },
                restart: { reason in
                    logger.notice("starting again", metadata: ["reason": "\(reason)"])
                    // On the loop, which so takes in no connection that nobody would answer.
                    output.flush()
                    loop.execute { Self.startAgain() }
                })
            return NIOLoopBound(server, eventLoop: loop)
        }
    }

    private static let descriptorsMax = Int32(clamping: min(sysconf(Int32(_SC_OPEN_MAX)), 65_536))
    /// What was open when the process began: whoever started it may watch it by that.
    static let inherited = Set((3..<descriptorsMax).filter { fcntl($0, F_GETFD) >= 0 })

    /// In the environment of a process that began anew by itself.
    private static let startedAgain = "BANYAN_STARTED_AGAIN"

    /// The same program takes this one's place, in the same process: it begins with what is on the disk, as after a crash.
    private static func startAgain() -> Never {
        for descriptor in 3..<Self.descriptorsMax where !Self.inherited.contains(descriptor) {
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        }
        var arguments = CommandLine.arguments
        // Done already.
        if let position = arguments.firstIndex(where: { $0 == "--restore" }) {
            arguments.removeSubrange(position..<min(position + 2, arguments.count))
        }
        arguments.removeAll { $0.hasPrefix("--restore=") }
        setenv(Self.startedAgain, "1", 1)
        var pointers = arguments.map { strdup($0) } + [nil]
        execv("/proc/self/exe", &pointers)
        Console.complain("banyand", "can't start again: \(String(cString: strerror(errno)))")
        exit(1)
    }

    /// Opens the directory and the port.
    func prepare() async throws {
        do { try await server.flatMap { $0.value.start() }.get() } catch let error as StartError where error.isFull {
            // Whoever started it learns that at once; nobody is there to start it once more when it began by itself.
            guard getenv(Self.startedAgain) != nil else { throw error }
            logger.critical("this member waits until there is room on its disk", metadata: ["reason": "\(error)"])
            try await Room.wait(in: options.data)
            Self.startAgain()
        }
        let description = try await server.map { $0.value.description }.get()
        logger.info("listening", metadata: ["as": "\(description)"])
    }

    func run() async throws {
        try await gracefulShutdown()
        try await server.flatMap { $0.value.handOver() }.get()
        let finish = try await server.map { $0.value.stop() }.get()
        finish()
        logger.info("stopped")
    }
}

/// `1=host:port,2=host:port`
struct Cluster: CustomStringConvertible {
    var members: [ListedMember]

    static func parse(_ argument: String) throws -> Cluster {
        do { return Cluster(members: try MemberList.parse(argument)) } catch {
            throw ValidationError("\(error)")
        }
    }

    var description: String { "this member alone, on 127.0.0.1:7400" }
}

extension Address {
    static func parse(_ argument: String) throws -> Address {
        do { return try Address(parsing: argument) } catch { throw ValidationError("'\(argument)': \(error)") }
    }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}
