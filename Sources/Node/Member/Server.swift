import BanyanClient
import FileTree
import Glibc
import LMDB
import Logging
import NIOCore
import Raft
import RaftLog
import Transport
import WireProtocol

/// One member: its directory, its event loop and its port. It begins as a stranger that waits for its cluster, if the
/// directory is new, and then runs as a `Replica`.
///
/// Everything but `start` and `stop` happens on the loop's thread.
package final class Server {
    enum Phase {
        case waiting(Bootstrap)
        /// Until a cluster's leader takes this member in.
        case joining(Bootstrap)
        /// The log can't be read through: a snapshot is being taken from the others.
        case repairing
        /// The state is being opened.
        case starting
        case running(Replica)
        case ended
    }

    let options: ServerOptions
    private let directory: DataDirectory
    private(set) var identity: Identity
    let address: Address
    private let loop: any EventLoop
    let logger: Logger
    let fatal: @Sendable (String) -> Void
    private let restart: @Sendable (String) -> Void
    private let began = Clock.now
    var phase = Phase.ended
    /// What the log held when this member started; taken once.
    private var recovered: LogStore.Recovered?
    private var repairing: Task<Void, Never>?
    /// Its disk is full, and what was under way when that was found is left as it was.
    private var isTakenIn = false
    private var isWaitingForRoom = false
    /// Kept for its threads, which are left where they are.
    private var leftReplica: Replica?
    private var port: (any Channel)?
    var lastConnection: UInt64 = 0
    let memory = ClientMemory()
    /// Those that were greeted.
    var connections: [UInt64: FrameConnection] = [:]
    /// Those that have not said hello.
    var strangers: [UInt64: FrameConnection] = [:]
    var admission = Admission(.ofProcess)
    let unfinishedFrames = UnfinishedFrames()
    /// When last a connection could not be taken in, for want of a descriptor; nil again a second later.
    var starvedAt: Nanoseconds?
    private var looking: RepeatedTask?
    /// Peers that were refused, by their directory.
    var refusedPeers = Refusals<UInt64>()

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
        // Of a directory that knows its cluster.
        var listed: [(id: UInt64, address: Address)] = []
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
            listed = stored.genesis == nil ? [] : options.cluster
            if isToldAnew {
                identity = Identity(
                    memberID: stored.memberID, incarnation: UInt64.random(in: 1...UInt64.max),
                    founders: options.clusterText, isJoining: options.isJoin)
                try directory.store.save(identity)
            } else {
                options.cluster = ServerOptions.recordedMembers(stored.founders)
                identity = stored
            }
        } else {
            try directory.refuseLostLog()
            let id: UInt64
            do { id = try Self.checkFirstStart(&options) } catch {
                directory.discard()
                throw error
            }
            // It was an empty one that stood there, and is this member's now.
            DataDirectory.makePrivate(options.data)
            identity = Identity(
                memberID: id, incarnation: UInt64.random(in: 1...UInt64.max), founders: options.clusterText,
                isJoining: options.isJoin)
            try directory.store.save(identity)
        }
        let memberID = identity.memberID
        if identity.genesis != nil {
            let repair = LogRepair(options: options, store: directory.store, identity: identity, logger: logger)
            do { recovered = try repair.recover() } catch let error as LogError {
                throw StartError("\(options.data): \(error)")
            }
        }
        let configuration =
            recovered?.log.configuration ?? (try? directory.store.damaged())?.configuration ?? identity.genesis
        if let configuration, !listed.isEmpty {
            options.moved = try Self.moves(
                listed, identity.founders, configuration, directory.store, logger)
        }
        let own = configuration?.member(PeerID(identity.incarnation)).map(options.moved.address)
        let recorded = own.flatMap { Address($0) }
        let configured = recorded ?? options.cluster.first { $0.id == memberID }?.address
        guard let address = options.listen ?? configured else {
            throw StartError(
                "\(options.data): its recorded address '\(own ?? "")' is none that one can listen at; say this member's: --id "
                    + "\(memberID) --cluster \(memberID)=HOST:PORT")
        }
        self.address = address
        self.options = options
        self.loop = loop
        self.logger = logger
        self.fatal = fatal
    }

    /// Who moved, by the list that the member was started with; said once for each list.
    private static func moves(
        _ list: [(id: UInt64, address: Address)], _ founders: String, _ configuration: Configuration, _ store: LogStore,
        _ logger: Logger
    ) throws -> MovedMembers {
        let text = ServerOptions.text(of: list)
        let strangers = list.filter { listed in !configuration.members.contains { $0.id == listed.id } }
        if !strangers.isEmpty {
            logger.warning(
                "--cluster names members that the cluster does not have: they are ignored",
                metadata: ["ignored": "\(ServerOptions.text(of: strangers))", "recorded": "\(configuration.text)"])
        }
        let last = try store.listedMembers().map { MovedMembers.Given(text: $0.given, recorded: $0.recorded) }
        let (moved, isOutdated) = MovedMembers.moves(
            in: list, last: last ?? MovedMembers.Given(text: founders, recorded: founders), configuration)
        if text != last?.text ?? founders { try store.save(listedMembers: text, recorded: configuration.text) }
        if isOutdated {
            logger.notice(
                "--cluster is an older list than what the cluster has recorded, which counts",
                metadata: ["given": "\(text)", "recorded": "\(configuration.text)"])
        }
        if !moved.isEmpty {
            logger.warning(
                "members have moved, as --cluster says: these addresses are used, and recorded once there is a leader",
                metadata: ["given": "\(text)", "recorded": "\(configuration.text)"])
        }
        return moved
    }

    /// What an empty directory may become; nothing is guessed, since a disk that is not mounted looks the same.
    ///
    /// - Returns: the member's id.
    private static func checkFirstStart(_ options: inout ServerOptions) throws(StartError) -> UInt64 {
        let isAlone = options.cluster.count < 2
        if options.isJoin, isAlone {
            throw StartError("--join needs --cluster with a member of the cluster to join, and this one")
        }
        guard options.isBootstrap || options.isJoin else {
            throw StartError(
                "\(options.data): is empty. If it should not be, see that its disk is mounted, and that --data names it. For "
                    + "the first start of a new cluster add --bootstrap\(isAlone ? "" : " on every member"); to join one "
                    + "that runs, or to come back with an empty directory, add --join and run 'banyan member add' or "
                    + "'banyan member replace'")
        }
        if options.cluster.isEmpty {
            let id = options.id ?? 1
            options.id = id
            options.cluster = [(id, options.listen ?? ServerOptions.defaultAddress)]
        }
        guard let id = options.id else {
            throw StartError("say which member this is: --id ID, one of the ids of --cluster")
        }
        guard options.cluster.contains(where: { $0.id == id }) else {
            throw StartError("--id \(id) is not in --cluster \(options.clusterText)")
        }
        return id
    }

    package var description: String { "member \(identity.memberID) on \(address)" }

    /// Listens, and runs. On the loop's thread.
    package func start() -> EventLoopFuture<Void> {
        let this = NIOLoopBound(self, eventLoop: loop)
        return listen(until: .now() + Self.portPatience).flatMapThrowing { channel in try this.value.started(channel) }
    }

    /// What is left of a connection that had this port lasts for a minute.
    private static let portPatience = TimeAmount.seconds(75)

    private func listen(until end: NIODeadline, isFirst: Bool = true) -> EventLoopFuture<any Channel> {
        let this = NIOLoopBound(self, eventLoop: loop)
        let (address, loop) = (address, loop)
        return Listener.bind(
            address, on: loop, accept: { this.value.makeConnection() }, starved: { this.value.starved($0) }
        )
        .flatMapError { error in
            let code = (error as? IOError)?.errnoCode
            let reason = code.map { String(cString: strerror($0)) } ?? "\(error)"
            let failure = StartError("can't listen on \(address): \(reason)")
            guard code == EADDRINUSE, .now() < end else { return loop.makeFailedFuture(failure) }
            return Listener.isTaken(address, on: loop).flatMap { isTaken in
                guard !isTaken else { return loop.makeFailedFuture(failure) }
                if isFirst {
                    this.value.logger.notice(
                        "the port belongs to a connection that ends: waiting for it",
                        metadata: ["address": "\(address)"])
                }
                return loop.scheduleTask(in: .milliseconds(250)) {}.futureResult.flatMap {
                    this.value.listen(until: end, isFirst: false)
                }
            }
        }
    }

    private func started(_ channel: any Channel) throws {
        port = channel
        let this = NIOLoopBound(self, eventLoop: loop)
        unfinishedFrames.onExcess = { this.value.endLongestFrame() }
        looking = loop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { _ in
            this.value.lookAtConnections()
        }
        if identity.genesis != nil {
            if let recovered { try run(recovered) } else { repair() }
        } else if identity.isJoining {
            let bootstrap = makeBootstrap()
            phase = .joining(bootstrap)
            bootstrap.start()
            logger.notice(
                "waiting to be taken in",
                metadata: [
                    "run": "banyan member add \(identity.memberID) \(address) (or: member replace \(identity.memberID))"
                ])
        } else if options.cluster.count == 1 {
            try found(members: [(identity.memberID, identity.incarnation)])
        } else {
            logger.info("waiting for the other members", metadata: ["members": "\(options.clusterText)"])
            let bootstrap = makeBootstrap()
            phase = .waiting(bootstrap)
            bootstrap.start()
        }
    }

    /// Takes no part in the cluster before its log is sound.
    private func repair() {
        phase = .repairing
        logger.notice("taking a sound copy from the other members")
        let repair = LogRepair(options: options, store: directory.store, identity: identity, logger: logger)
        let this = NIOLoopBound(self, eventLoop: loop)
        let (loop, restart) = (loop, restart)
        repairing = Task {
            do {
                try await repair.run()
                restart("repaired")
            } catch is CancellationError {} catch { loop.execute { this.value.unwritable(error) } }
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

    private func makeBootstrap() -> Bootstrap {
        Bootstrap(
            options: options, identity: identity, loop: loop, logger: logger,
            complete: { [unowned self] in try found(members: $0) },
            begin: { [unowned self] in if identity.isJoining { takeIn($0) } else { try join($0) } }, fatal: fatal)
    }

    private func join(_ genesis: Configuration) throws {
        try directory.store.found(identity, genesis: genesis)
        identity.genesis = genesis
        logger.info(
            "cluster founded",
            metadata: ["cluster": "\(String(genesis.clusterID, radix: 16))", "members": "\(genesis.text)"])
        if case .waiting(let bootstrap) = phase { bootstrap.stop() }
        tellGenesis()
        try run(directory.store.recover())
    }

    /// A running cluster's leader has taken this member in. Its term is asked for first, over connections to addresses of this
    /// member's own list: who has none would believe any.
    private func takeIn(_ configuration: Configuration) {
        guard !isTakenIn else { return }
        isTakenIn = true
        let nodes = options.cluster.filter { $0.id != identity.memberID }.map { $0.address.description }
        let this = NIOLoopBound(self, eventLoop: loop)
        let asked = loop.makePromise(of: Term?.self)
        asked.completeWithTask { await Self.leadersTerm(nodes) }
        asked.futureResult.whenSuccess { term in
            do { try this.value.begin(in: configuration, term) } catch { this.value.unwritable(error) }
        }
    }

    /// Nil when none of them says that it leads.
    private static func leadersTerm(_ nodes: [String]) async -> Term? {
        let client = BanyanClient(nodes: nodes, timeout: .seconds(2))
        let leaders = (try? await client.status(within: .seconds(1)))?.filter { $0.role == "leader" }
        await client.close()
        return leaders?.map(\.term).min()
    }

    private func begin(in configuration: Configuration, _ term: Term?) throws {
        guard case .joining = phase else { return }
        try directory.store.join(identity, configuration, term: term ?? 0)
        identity.genesis = configuration
        if case .joining(let bootstrap) = phase { bootstrap.stop() }
        logger.info(
            "taken in",
            metadata: ["cluster": "\(String(configuration.clusterID, radix: 16))", "members": "\(configuration.text)"])
        try run(directory.store.recover())
    }

    private func run(_ recovered: LogStore.Recovered) throws {
        phase = .starting
        self.recovered = nil
        let number = recovered.row.stateNumber
        let state = try directory.prepareState(number)
        openState(state) { [unowned self] opened, stateThread in
            do throws(StateError) {
                let report = try opened.get()
                let applied = report.applied
                let log = recovered.log
                guard log.term(at: applied.index) == applied.term else {
                    stateThread.leave()
                    // The log keeps what the state lacks: it is the state that is an old one.
                    guard applied.index >= log.compactedIndex else {
                        return runWithout("it ends at \(applied.index), before the log begins", recovered)
                    }
                    return fatal(forgetful(log, applied))
                }
                run(recovered, report, stateThread, unusedState: nil)
            } catch {
                if error.isFull { return waitForRoom("the state can't be opened: \(error)") }
                guard error.isDamage else { return fatal("\(options.data): the state can't be used: \(error)") }
                runWithout("\(error)", recovered)
            }
        }
    }

    /// A state executes what is durable in its log alone. A log that lacks that lost what its member promised: entries that it
    /// acknowledged, and perhaps a vote.
    private func forgetful(_ log: LogView, _ applied: Applied) -> String {
        "\(options.data): the state has executed entry \(applied.index) of term \(applied.term), and the log, which ends at "
            + "\(log.lastIndex), lacks it: the log is an old copy, or its disk lost writes. This member can't keep what it "
            + "promised: move the directory away, start an empty one with --join, and run 'banyan member replace "
            + "\(identity.memberID)' (of a lone member: restore a backup with banyand --restore)"
    }

    /// The member's own state can't be opened: it runs with an empty one, until it has another member's.
    private func runWithout(_ reason: String, _ recovered: LogStore.Recovered) {
        let number = recovered.row.stateNumber
        guard !recovered.log.configuration.otherVoters(than: PeerID(identity.incarnation)).isEmpty else {
            return fatal(
                "\(options.data): the state can't be used: \(reason); there is no other member to take a sound copy from: "
                    + "restore a backup with banyand --restore")
        }
        let unused = DataDirectory.statePath(in: options.data, number + 1)
        do {
            try DataDirectory.makeDirectory(unused)
            try StateDamage(kind: .wrong, reason: reason).mark(options.data)
        } catch { return unwritable(error) }
        openState(unused, isStopped: true) { [unowned self] opened, stateThread in
            do throws(StateError) {
                run(recovered, try opened.get(), stateThread, unusedState: number + 1)
            } catch { unwritable(StartError("\(unused): \(error)", isFull: error.isFull)) }
        }
    }

    private func openState(
        _ path: String, isStopped: Bool = false,
        then opened: @escaping (Result<StateReport, StateError>, StateThread) -> Void
    ) {
        let this = NIOLoopBound((self, opened), eventLoop: loop)
        let loop = loop
        let promise = loop.makePromise(of: Result<StateReport, StateError>.self)
        let stateThread = StateThread(
            path: path, log: directory.store, knownVersion: options.knownVersion, member: identity.memberID,
            isStopped: isStopped,
            opened: { promise.succeed($0) },
            report: { report in loop.execute { this.value.0.replica?.reported(report) } },
            failed: { error in
                loop.execute {
                    if error.isFull { return this.value.0.waitForRoom("the state can't be written: \(error)") }
                    this.value.0.replica?.stateFailed(error)
                }
            })
        promise.futureResult.whenSuccess { this.value.1($0, stateThread) }
    }

    private func run(
        _ recovered: LogStore.Recovered, _ report: StateReport, _ stateThread: StateThread, unusedState: UInt64?
    ) {
        let this = NIOLoopBound(self, eventLoop: loop)
        let (loop, fatal) = (loop, fatal)
        let logWriter = LogWriter(
            store: directory.store, row: recovered.row, lastIndex: recovered.log.lastIndex,
            completed: { write in loop.execute { this.value.replica?.saved(write) } },
            failed: { error in
                guard error.isFull else {
                    return fatal(
                        "the log can't be written: \(error); what reached the disk is unknown, so this member stops")
                }
                loop.execute { this.value.waitForRoom("the log can't be written: \(error)") }
            })
        // An empty state has executed nothing, and executes nothing.
        let applied = unusedState == nil ? report.applied.index : recovered.log.compactedIndex
        let core = RaftCore(
            id: PeerID(identity.incarnation), hardState: recovered.row.hardState, log: recovered.log,
            applied: applied, seed: UInt64.random(in: 0...UInt64.max), now: Clock.now)
        let threads = Replica.Threads(
            logWriter: logWriter, state: stateThread,
            reader: ReaderThread(
                store: directory.store, directory: directory.path, reserve: options.reserve / 2, loop: loop),
            spooler: SpoolThread(directory: directory.path, reserve: options.reserve / 2, loop: loop),
            scrubber: ScrubThread(log: directory.store, loop: loop),
            rewriter: RewriteThread(
                log: directory.store, directory: directory.path, reserve: options.reserve,
                knownVersion: options.knownVersion, loop: loop))
        let beginning = Replica.Beginning(
            core: core, report: report, stateNumber: recovered.row.stateNumber, unusedState: unusedState,
            tail: LogTail(entriesMax: options.logTailMax, lastIndex: recovered.log.lastIndex))
        let calls = Replica.ServerCalls(
            fatal: fatal, restart: restart, unwritable: { this.value.unwritable($0) },
            configurationAdopted: { [unowned self] in tellGenesis() },
            isStarved: { [unowned self] in starvedAt != nil })
        let replica = Replica(
            beginning, on: loop, identity: identity, threads: threads, options: options, memory: memory,
            logger: logger, server: calls)
        logger.info(
            "recovered",
            metadata: [
                "entries": "\(recovered.log.lastIndex - recovered.log.compactedIndex)", "applied": "\(applied)",
                "to_execute": "\(recovered.row.hardState.commit - min(recovered.row.hardState.commit, applied))",
                "milliseconds": "\((Clock.now - began) / 1_000_000)",
            ])
        phase = .running(replica)
        for connection in connections.values { replica.accept(connection) }
        replica.start()
    }

    /// A file of the directory can't be written. Where room is all that lacks, it is waited for.
    private func unwritable(_ error: any Error) {
        if StartError.isFull(error) { waitForRoom("\(error)") } else { fatal("\(error)") }
    }

    /// The disk filled up in the midst of a commit, of which nobody knows what reached it: none is tried again by this process.
    /// It serves nothing more, and begins anew with what is on the disk once there is room.
    private func waitForRoom(_ reason: String) {
        guard !isWaitingForRoom else { return }
        isWaitingForRoom = true
        logger.critical(
            "this member waits until there is room on its disk, and then starts again by itself",
            metadata: ["directory": "\(options.data)", "reason": "\(reason)"])
        // Its threads are not ended: one of them would commit.
        leftReplica = replica
        _ = stop()
        let restart = restart
        let room = NIOLoopBoundBox(Room(in: options.data), eventLoop: loop)
        loop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { task in
            guard room.value.isThere(now: Clock.now) else { return }
            task.cancel()
            restart("there is room on the disk again")
        }
    }

    var replica: Replica? {
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
        looking?.cancel()
        let old = phase
        phase = .ended
        switch old {
        case .running(let replica):
            replica.stop()
            let threads = replica.closeThreads
            return { for close in threads { close() } }
        case .waiting(let bootstrap), .joining(let bootstrap):
            bootstrap.stop()
            return {}
        case .repairing, .starting, .ended:
            repairing?.cancel()
            return {}
        }
    }
}
