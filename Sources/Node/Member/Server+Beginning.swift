import BanyanClient
import FileTree
import Logging
import NIOCore
import Raft
import RaftLog
import WireProtocol

/// Becoming a member: a new cluster is founded or joined, the log is read, the state opened, and the threads begin.
extension Server {
    /// Draws the cluster's id and stores its first entry: this member is the one with the lowest id, and has heard all.
    func found(members: [(id: UInt64, incarnation: UInt64)]) throws {
        let configuration = Configuration(
            clusterID: UInt64.random(in: 1...UInt64.max),
            members: options.cluster.compactMap { listed in
                members.first { $0.id == listed.id }.map {
                    Member(id: $0.id, peer: PeerID($0.incarnation), address: listed.address.description)
                }
            })
        try join(configuration)
    }

    func makeBootstrap() -> Bootstrap {
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

    func run(_ recovered: LogStore.Recovered) throws {
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

    /// Who moved, by the list that the member was started with; said once for each list.
    static func moves(
        _ list: [ListedMember], _ founders: String, _ configuration: Configuration, _ store: LogStore,
        _ logger: Logger
    ) throws -> MovedMembers {
        let text = MemberList.text(of: list)
        let strangers = list.filter { listed in !configuration.members.contains { $0.id == listed.id } }
        if !strangers.isEmpty {
            logger.warning(
                "--cluster names members that the cluster does not have: they are ignored",
                metadata: ["ignored": "\(MemberList.text(of: strangers))", "recorded": "\(configuration.text)"])
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
}
