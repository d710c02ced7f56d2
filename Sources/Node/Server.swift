import FileTree
import LMDB
import Glibc
import Logging
import NIOCore
import NIOPosix
import Raft
import RaftLog
import Transport
import WireProtocol

/// How a member is to be started.
package struct ServerOptions: Sendable {
    package var data: String
    /// Nil: the directory's own, or 1 for a cluster of one.
    package var id: UInt64?
    /// The members, as id and address; empty for a cluster of one at `listen`.
    package var cluster: [(id: UInt64, address: Address)]
    package var isBootstrap: Bool
    /// Wait to be taken into a cluster that runs.
    package var isJoin: Bool
    /// Nil: the address that the cluster list gives this member.
    package var listen: Address?
    /// How many executed entries the log keeps for members that are a little behind.
    package var logTailMax: UInt64

    /// Bytes of snapshots a second, to each member that needs one.
    package var snapshotRate: Int
    /// Bytes that the background scrub reads in a second, and nanoseconds from one round of it to the next, 0 for none.
    package var scrubRate = 64 << 20
    package var scrubInterval: UInt64 = 3_600_000_000_000
    /// Puts are refused when fewer bytes than this are free on the leader's disk, or on those of a majority.
    package var reserve: UInt64

    /// The highest cluster version that this member claims to know.
    package var knownVersion: UInt16

    package static let defaultAddress = Address(host: "127.0.0.1", port: 7400)
    package static let defaultLogTail: UInt64 = 50_000
    package static let defaultReserve: UInt64 = 1 << 30
    package static let defaultSnapshotRate = 100 << 20
    package static let newestVersion = Applied.clusterVersionMax

    package init(
        data: String, id: UInt64?, cluster: [(id: UInt64, address: Address)], isBootstrap: Bool, isJoin: Bool = false,
        listen: Address?, logTailMax: UInt64 = Self.defaultLogTail, reserve: UInt64 = Self.defaultReserve,
        snapshotRate: Int = Self.defaultSnapshotRate,
        knownVersion: UInt16 = Self.newestVersion
    ) {
        self.reserve = reserve
        self.snapshotRate = snapshotRate
        self.isJoin = isJoin
        self.knownVersion = knownVersion
        self.data = data
        self.id = id
        self.cluster = cluster.sorted { $0.id < $1.id }
        self.isBootstrap = isBootstrap
        self.listen = listen
        self.logTailMax = logTailMax
    }

    /// The members of a list in its written form.
    static func members(_ text: String) throws -> [(id: UInt64, address: Address)] {
        try text.split(separator: ",").map { part in
            let sides = part.split(separator: "=", maxSplits: 1)
            guard sides.count == 2, let id = UInt64(sides[0]), let address = Address(String(sides[1])) else {
                throw StartError("the list of members can't be read: \(text)")
            }
            return (id, address)
        }
    }

    /// The list in the form in which members compare it.
    var clusterText: String { cluster.map { "\($0.id)=\($0.address)" }.joined(separator: ",") }
}

/// One member: its directory, its event loop and its port. It begins as a stranger that waits for its cluster, if the
/// directory is new, and then runs as a `Replica`.
///
/// Everything but `start` and `stop` happens on the loop's thread.
package final class Server {
    private enum Phase {
        case waiting(Bootstrap)
        /// Until a cluster's leader takes this member in.
        case joining
        /// A sound copy is being taken from the others.
        case repairing
        /// The state is being opened.
        case starting
        case running(Replica)
        case ended
    }

    private let options: ServerOptions
    private let directory: DataDirectory
    private var identity: Identity
    private let address: Address
    private let loop: any EventLoop
    private let logger: Logger
    private let fatal: @Sendable (String) -> Void
    private let restart: @Sendable (String) -> Void
    private let began = Clock.now
    private var phase = Phase.ended
    /// What the log held when this member started; taken once.
    private var recovered: LogStore.Recovered?
    private var repairing: Task<Void, Never>?
    private var port: (any Channel)?
    private var lastConnection: UInt64 = 0
    private var connections: [UInt64: FrameConnection] = [:]

    /// Opens the directory and decides who this member is. Nothing runs yet.
    ///
    /// - Parameters:
    ///   - fatal: called when the member can't go on: its disk failed, or it was refused for good.
    ///   - restart: called when the process must begin anew, with this directory: it has to be, or was, repaired.
    package init(
        _ options: ServerOptions, on loop: any EventLoop, logger: Logger, fatal: @escaping @Sendable (String) -> Void,
        restart: @escaping @Sendable (String) -> Void
    ) throws {
        self.restart = restart
        var options = options
        directory = try DataDirectory(path: options.data)
        let stored = try directory.store.identity()
        if let stored {
            if let id = options.id, id != stored.memberID {
                throw StartError(
                    "\(options.data): belongs to member \(stored.memberID), not \(id); name its own with --data")
            }
            // A member that was ended while it waited for the others goes on waiting for the same ones, unless it is told
            // anew how to begin: nothing stands in its directory yet. It is another one then, whoever heard of it.
            let isToldAnew =
                stored.genesis == nil && !options.cluster.isEmpty && (options.isBootstrap || options.isJoin)
                && (options.clusterText != stored.founders || options.isJoin != stored.isJoining)
            if !isToldAnew, !options.cluster.isEmpty,
                options.isBootstrap || options.isJoin || stored.genesis == nil, options.clusterText != stored.founders
            {
                throw StartError(
                    "\(options.data): was started for --cluster \(stored.founders), not \(options.clusterText); name "
                        + "an empty directory with --data for another cluster")
            }
            options.id = stored.memberID
            if isToldAnew {
                identity = Identity(
                    memberID: stored.memberID, incarnation: UInt64.random(in: 1...UInt64.max),
                    founders: options.clusterText, isJoining: options.isJoin)
                try directory.store.save(identity)
            } else {
                options.cluster = try ServerOptions.members(stored.founders)
                identity = stored
            }
        } else {
            if options.cluster.isEmpty {
                let id = options.id ?? 1
                options.id = id
                options.cluster = [(id, options.listen ?? ServerOptions.defaultAddress)]
            } else if options.cluster.count > 1, !options.isBootstrap, !options.isJoin {
                throw StartError(
                    "\(options.data): is empty. For the first start of a new cluster add --bootstrap on every member; to "
                        + "join one that runs, or to come back with an empty directory, add --join and run 'banyan member "
                        + "add' or 'banyan member replace'")
            }
            if options.isJoin, options.cluster.count < 2 {
                throw StartError("--join needs --cluster with a member of the cluster to join, and this one")
            }
            guard let id = options.id else {
                throw StartError("say which member this is: --id ID, one of the ids of --cluster")
            }
            guard options.cluster.contains(where: { $0.id == id }) else {
                throw StartError("--id \(id) is not in --cluster \(options.clusterText)")
            }
            identity = Identity(
                memberID: id, incarnation: UInt64.random(in: 1...UInt64.max), founders: options.clusterText,
                isJoining: options.isJoin)
            try directory.store.save(identity)
        }
        let memberID = identity.memberID
        if identity.genesis != nil {
            do throws(LogError) {
                if !Repair.isMarked(options.data) { recovered = try directory.store.recover() }
            } catch {
                guard case .corruptEntry = error, options.cluster.count > 1 else {
                    throw StartError("\(options.data): \(error)")
                }
                try Repair.mark(options.data, "\(error)")
                logger.error("damaged", metadata: ["damage": "\(error)"])
            }
        }
        let configuration =
            recovered?.log.configuration ?? (try? directory.store.damaged())?.configuration ?? identity.genesis
        let recorded = configuration?.member(PeerID(identity.incarnation)).flatMap { Address($0.address) }
        let configured = recorded ?? options.cluster.first { $0.id == memberID }?.address
        guard let address = options.listen ?? configured else {
            throw StartError("say where to listen: --listen HOST:PORT")
        }
        self.address = address
        self.options = options
        self.loop = loop
        self.logger = logger
        self.fatal = fatal
    }

    package var description: String { "member \(identity.memberID) on \(address)" }

    /// Listens, and runs. On the loop's thread.
    package func start() -> EventLoopFuture<Void> {
        let this = NIOLoopBound(self, eventLoop: loop)
        return Listener.bind(address, on: loop) { this.value.makeConnection() }.flatMapThrowing { channel in
            try this.value.started(channel)
        }
    }

    private func started(_ channel: any Channel) throws {
        port = channel
        if Repair.isMarked(options.data) {
            repair()
        } else if identity.genesis != nil {
            try run()
        } else if identity.isJoining {
            phase = .joining
            logger.notice(
                "waiting to be taken in",
                metadata: [
                    "run": "banyan member add \(identity.memberID) \(address) (or: member replace \(identity.memberID))"
                ])
        } else if options.cluster.count == 1 {
            try found(members: [(identity.memberID, identity.incarnation)])
        } else {
            logger.info("waiting for the other members", metadata: ["members": "\(options.clusterText)"])
            let bootstrap = Bootstrap(
                options: options, identity: identity, loop: loop, logger: logger,
                complete: { [unowned self] in try found(members: $0) }, fatal: fatal)
            phase = .waiting(bootstrap)
            bootstrap.start()
        }
    }

    /// Takes no part in the cluster before its copy is sound.
    private func repair() {
        phase = .repairing
        logger.notice("taking a sound copy from the other members")
        let repair = Repair(options: options, store: directory.store, identity: identity, logger: logger)
        let (fatal, restart) = (fatal, restart)
        repairing = Task {
            do {
                try await repair.run()
                restart("repaired")
            } catch is CancellationError {} catch { fatal("\(error)") }
        }
    }

    // MARK: becoming a member

    /// Draws the cluster's id and stores its first entry: this member is the one with the lowest id, and has heard all.
    private func found(members: [(id: UInt64, incarnation: UInt64)]) throws {
        let configuration = Configuration(
            clusterID: UInt64.random(in: 1...UInt64.max),
            members: options.cluster.compactMap { listed in
                members.first { $0.id == listed.id }.map {
                    Member(id: $0.id, peer: PeerID($0.incarnation), address: listed.address.description)
                }
            })
        try join(configuration)
    }

    private func join(_ genesis: Configuration) throws {
        try directory.store.found(identity, genesis: genesis)
        identity.genesis = genesis
        logger.info(
            "cluster founded",
            metadata: ["cluster": "\(String(genesis.clusterID, radix: 16))", "members": "\(genesis.text)"])
        if case .waiting(let bootstrap) = phase { bootstrap.stop() }
        try run()
    }

    /// A running cluster's leader has taken this member in.
    private func takeIn(_ configuration: Configuration) throws {
        try directory.store.join(identity, configuration)
        identity.genesis = configuration
        logger.info(
            "taken in",
            metadata: ["cluster": "\(String(configuration.clusterID, radix: 16))", "members": "\(configuration.text)"])
        try run()
    }

    private func run() throws {
        phase = .starting
        let store = directory.store
        let recovered = try recovered ?? store.recover()
        self.recovered = nil
        let number = recovered.row.stateNumber
        let statePath = try directory.prepareState(number)
        let this = NIOLoopBound(self, eventLoop: loop)
        let (loop, fatal) = (loop, fatal)
        let logWriter = LogWriter(
            store: store, row: recovered.row, lastIndex: recovered.log.lastIndex,
            completed: { write in loop.execute { this.value.replica?.saved(write) } },
            failed: { fatal("the log can't be written: \($0); what reached the disk is unknown, so this member stops") }
        )
        let opened = loop.makePromise(of: StateReport.self)
        let stateThread = StateThread(
            path: statePath, log: store, knownVersion: options.knownVersion, reserve: options.reserve,
            opened: { opened.succeed(StateReport(applied: $0, durableIndex: $0.index, environment: $1)) },
            report: { report in loop.execute { this.value.replica?.reported(report) } },
            failed: { error in
                opened.fail(error)
                loop.execute { this.value.stateFailed(error, others: recovered.log.configuration.members.count - 1) }
            })
        opened.futureResult.whenSuccess { report in
            this.value.run(recovered, report, logWriter, stateThread)
        }
    }

    /// A damaged state is replaced; a disk that fails ends the process.
    private func stateFailed(_ error: StateError, others: Int) {
        let isDamage: Bool =
            switch error {
            case .corruptRow, .wrongDigest: true
            // LMDB's own: a page of the wrong kind, or no LMDB file at all.
            case .store(let code): code < 0 && code != LMDBError.mapFull.code
            case .unknownFormat, .wrongIndex: false
            }
        guard isDamage, others > 0 else { return fatal("the state can't be used: \(error)") }
        if let replica { return replica.repair("\(error)") }
        do { try Repair.mark(options.data, "\(error)") } catch { return fatal("\(error)") }
        restart("the state is damaged: \(error)")
    }

    private func run(
        _ recovered: LogStore.Recovered, _ report: StateReport, _ logWriter: LogWriter, _ stateThread: StateThread
    ) {
        let applied = report.applied
        guard applied.index <= recovered.log.lastIndex, applied.index >= recovered.log.compactedIndex else {
            fatal(
                "\(options.data): the state (at \(applied.index)) does not fit the log "
                    + "(\(recovered.log.firstIndex) to \(recovered.log.lastIndex)); treat this directory as wiped")
            return
        }
        let core = RaftCore(
            id: PeerID(identity.incarnation), hardState: recovered.row.hardState, log: recovered.log,
            applied: applied.index, seed: UInt64.random(in: 0...UInt64.max), now: Clock.now)
        let threads = Replica.Threads(
            logWriter: logWriter, stateThread: stateThread,
            reader: ReaderThread(store: directory.store, directory: directory.path, loop: loop),
            spooler: SpoolThread(directory: directory.path, loop: loop),
            scrubber: ScrubThread(log: directory.store, loop: loop))
        let replica = Replica(
            loop: loop, identity: identity, core: core, report: report, stateNumber: recovered.row.stateNumber,
            tail: LogTail(entriesMax: options.logTailMax, lastIndex: recovered.log.lastIndex), threads: threads,
            options: options, logger: logger, fatal: fatal, restart: restart)
        logger.info(
            "recovered",
            metadata: [
                "entries": "\(recovered.log.lastIndex - recovered.log.compactedIndex)", "applied": "\(applied.index)",
                "to_execute": "\(recovered.row.hardState.commit - min(recovered.row.hardState.commit, applied.index))",
                "milliseconds": "\((Clock.now - began) / 1_000_000)",
            ])
        phase = .running(replica)
        for connection in connections.values { replica.accept(connection) }
        replica.start()
    }

    private var replica: Replica? {
        if case .running(let replica) = phase { return replica }
        return nil
    }

    /// Hands leadership over, if this member leads, and answers what it took up: a clean end costs the cluster no election
    /// timeout, and leaves no client in doubt. On the loop's thread.
    package func handOver() -> EventLoopFuture<Void> {
        let done = loop.makePromise(of: Void.self)
        guard let replica else { return loop.makeSucceededVoidFuture() }
        replica.drain { done.succeed() }
        return done.futureResult
    }

    /// Closes the port and every connection. On the loop's thread; the answer lets the threads finish, off the loop.
    package func stop() -> @Sendable () -> Void {
        port?.close(promise: nil)
        let old = phase
        phase = .ended
        switch old {
        case .running(let replica):
            replica.stop()
            let threads = replica.closeThreads
            return { for close in threads { close() } }
        case .waiting(let bootstrap):
            bootstrap.stop()
            return {}
        case .joining, .repairing, .starting, .ended:
            repairing?.cancel()
            return {}
        }
    }

    // MARK: connections

    private func makeConnection() -> FrameConnection {
        lastConnection += 1
        return FrameConnection(
            id: lastConnection, onFrame: { [unowned self] in received($1, on: $0) },
            onClose: { [unowned self] connection, error in
                connections[connection.id] = nil
                replica?.closed(connection)
                if let error = error as? ProtocolError {
                    logger.warning("connection refused", metadata: ["reason": "\(error)"])
                }
            })
    }

    private func received(_ frame: Frame, on connection: FrameConnection) {
        do {
            if let hello = connection.hello {
                try received(frame, from: hello, on: connection)
            } else {
                try greet(Hello(frame), on: connection)
            }
        } catch let goodbye as Goodbye {
            logger.warning("connection refused", metadata: ["reason": "\(goodbye.reason)"])
            connection.say(goodbye)
        } catch let error as ProtocolError {
            logger.warning("connection refused", metadata: ["reason": "\(error)"])
            connection.say(Goodbye(.protocolError, error.description))
        } catch {
            fatal("\(error)")
        }
    }

    private func received(_ frame: Frame, from hello: Hello, on connection: FrameConnection) throws {
        switch (hello.role, phase) {
        case (.client, .running(let replica)): replica.handleClient(frame, on: connection)
        case (.client, _):
            connection.write { Refusal(.noLeader).write(to: &$0, requestID: frame.requestID) }
            connection.flush()
        case (.peer, .running(let replica)) where frame.kind == .peerMessage:
            try replica.handlePeer(frame, from: PeerID(hello.incarnation), on: connection)
        case (.peer, .running(let replica)) where frame.kind == .snapshotChunk:
            try replica.handleSnapshot(frame, from: hello, on: connection)
        case (.peer, .waiting) where frame.kind == .genesis:
            var body = frame.body
            guard let genesis = Configuration(from: &body),
                genesis.members.contains(where: {
                    $0.id == identity.memberID && $0.peer.rawValue == identity.incarnation
                }),
                genesis.text == options.clusterText
            else { throw ProtocolError.malformedBody(.genesis) }
            try join(genesis)
        case (.peer, .joining) where frame.kind == .genesis:
            var body = frame.body
            guard let configuration = Configuration(from: &body), configuration.clusterID == hello.clusterID,
                configuration.member(PeerID(identity.incarnation))?.id == identity.memberID
            else { throw ProtocolError.malformedBody(.genesis) }
            try takeIn(configuration)
        // Every lane of every member brings the first entry, until this member's hello says that it has it.
        case (.peer, .running) where frame.kind == .genesis: break
        case (.peer, .waiting), (.peer, .joining), (.peer, .repairing), (.peer, .starting), (.peer, .ended): break
        case (.peer, .running): throw ProtocolError.malformedBody(frame.kind)
        }
    }

    private func greet(_ hello: Hello, on connection: FrameConnection) throws {
        guard hello.commonVersion != nil else {
            throw Goodbye(
                .noCommonVersion,
                "this member speaks versions \(ProtocolVersion.lowest) to \(ProtocolVersion.highest) of the protocol")
        }
        if hello.role == .peer {
            try check(hello)
        } else if hello.clusterID != 0, let genesis = identity.genesis, hello.clusterID != genesis.clusterID {
            throw Goodbye(
                .wrongCluster,
                "member \(identity.memberID) belongs to another cluster than the members asked before; check --nodes")
        }
        connection.hello = hello
        connections[connection.id] = connection
        replica?.accept(connection)
        var welcome = Welcome(
            clusterID: identity.genesis?.clusterID ?? 0, memberID: identity.memberID,
            incarnation: identity.incarnation, contentBytesMax: UInt32(FileTreeLimits.contentBytesMax),
            members: identity.genesis?.text ?? options.clusterText)
        welcome.isBootstrapping = identity.genesis == nil
        welcome.knownVersion = UInt8(clamping: options.knownVersion)
        connection.write { welcome.write(to: &$0) }
        connection.flush()
    }

    /// Who may speak as a peer: a directory of this cluster; while this member waits for its cluster, whoever was given the
    /// same list, and while it waits to be taken in, a cluster's member.
    ///
    /// A directory that this member's configuration does not name may still be a member's: of a configuration that this
    /// one has yet to hear of, perhaps its leader's (section 6 of the paper). The leader alone knows better.
    private func check(_ hello: Hello) throws {
        if case .joining = phase {
            guard hello.clusterID != 0 else {
                throw Goodbye(
                    .differentMembers, "member \(identity.memberID) waits to be taken in by a running cluster")
            }
            return
        }
        guard let genesis = identity.genesis else {
            guard hello.members == options.clusterText else {
                throw Goodbye(
                    .differentMembers,
                    "member \(identity.memberID) was started with --cluster \(options.clusterText), not \(hello.members)"
                )
            }
            return
        }
        if hello.clusterID != 0, hello.clusterID == identity.formerClusterID {
            throw Goodbye(
                .recovered,
                "the cluster that you know was given up when member \(identity.memberID) was recovered; delete this directory, "
                    + "start an empty one with --join, and run 'banyan member add'")
        }
        guard hello.clusterID == genesis.clusterID || (hello.clusterID == 0 && hello.isBootstrapping) else {
            throw Goodbye(.wrongCluster, "member \(identity.memberID) belongs to another cluster")
        }
        let configuration = replica?.core.configuration ?? genesis
        if configuration.peers.contains(PeerID(hello.incarnation)) { return }
        let isKnown = configuration.members.contains { $0.id == hello.memberID }
        if hello.isBootstrapping || replica?.core.role == .leader {
            throw Goodbye(
                .unknownIncarnation,
                isKnown
                    ? "the cluster knows member \(hello.memberID) by another directory: one that was wiped can't come back "
                        + "under its old name; start it with --join, and run 'banyan member replace \(hello.memberID)'"
                    : "member \(hello.memberID) does not belong to the cluster, or not any more")
        }
    }
}
