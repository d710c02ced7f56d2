import DequeModule
import Driver
import FileTree
import Logging
import NIOCore
import Raft
import RaftLog
import Snapshots
import Transport
import WireProtocol

/// A running member on its event loop: the conductor of the driver, the threads, the connections, and of the values that decide
/// what is done beside consensus.
///
/// One turn of the loop reads everything that arrived, does all that the driver wants done, and flushes each connection once.
/// It touches neither LMDB nor the disk, but for the mark that says that its state is damaged. Not `Sendable`: everything
/// here happens on the loop's thread.
final class Replica {
    let loop: any EventLoop
    let identity: Identity
    let options: ServerOptions
    let logger: Logger
    let server: ServerCalls
    let threads: Threads
    var driver: Driver
    var core: RaftCore { _read { yield driver.core } }

    // MARK: storage

    var lastReport: StateReport
    var tail: LogTail
    var disk: Disk
    var exchange: StateExchange
    var incoming = IncomingSnapshot()
    var shelf = SpoolShelf()
    /// Snapshots on their way to peers.
    var transfers: [PeerID: SnapshotTransfer] = [:]

    // MARK: damage

    var scrubbing: Scrubbing
    var health = Health()
    /// Another member's state that is on its way here.
    var fetch: StateFetch?
    var digests = DigestVote()

    // MARK: peers and clients

    var peers = PeerTable()
    var membership = MembershipQueue()
    var belonging = Belonging()
    var clients: ClientTable
    var reads: ReadQueue

    // MARK: a turn

    var turns = Turns()
    var handOvers = HandOvers()

    /// What it asks of the server that it runs in.
    struct ServerCalls {
        /// This member can't go on.
        let fatal: @Sendable (String) -> Void
        /// Its process must begin anew, for its log to be repaired.
        let restart: @Sendable (String) -> Void
        /// A file of the directory can't be written.
        let unwritable: (any Error) -> Void
        /// Another configuration is in force: who waits to be taken in may be named by it.
        let configurationAdopted: () -> Void
        /// Whether connections can't be taken in.
        let isStarved: () -> Bool
    }

    /// The member's threads beside the loop's own.
    struct Threads {
        let logWriter: LogWriter
        let state: StateThread
        let reader: ReaderThread
        let spooler: SpoolThread
        let scrubber: ScrubThread
        let rewriter: RewriteThread
    }

    /// The disk of the log and the state: whether it stands still, and what room is left.
    struct Disk {
        var watch = DiskWatch()
        var space: DiskSpace
    }

    enum TransferOutcome { case done, failed }

    /// Who waits for this member to lead no more.
    struct HandOvers {
        var waiters: [(TransferOutcome) -> Void] = []
        /// Of a member that is about to end, and who waits for that.
        var draining: (state: Draining, settled: () -> Void)?
    }

    /// How the loop's turns stand.
    struct Turns {
        var isScheduled = false
        var isStopped = false
        /// Of the core's log, when its configuration was last acted upon.
        var configurationChanges: UInt64 = 0
        var progressToldAt: Nanoseconds = 0
        var memoryMeasuredAt: Nanoseconds = 0
    }

    /// What a member begins with.
    struct Beginning {
        let core: RaftCore
        let report: StateReport
        let stateNumber: UInt64
        /// The number of an empty state that the state thread has open, since the member's own can't be.
        let unusedState: UInt64?
        let tail: LogTail
    }

    init(
        _ beginning: Beginning, on loop: any EventLoop, identity: Identity, threads: Threads, options: ServerOptions,
        memory: ClientMemory, logger: Logger, server: ServerCalls
    ) {
        self.loop = loop
        self.identity = identity
        self.options = options
        self.logger = logger
        self.server = server
        self.threads = threads
        driver = Driver(
            beginning.core, state: beginning.report.applied, knownVersion: options.knownVersion,
            context: UInt64.random(in: 0..<1 << 62))
        lastReport = beginning.report
        tail = beginning.tail
        disk = Disk(space: DiskSpace(reserve: options.reserve))
        exchange = StateExchange(number: beginning.stateNumber, unused: beginning.unusedState)
        scrubbing = Scrubbing(now: Clock.now)
        clients = ClientTable(memory: memory)
        reads = ReadQueue(memory: memory)
    }

    var isStopped: Bool { turns.isStopped }
    var isDraining: Bool { handOvers.draining != nil }
    /// Of the member's data.
    var directory: String { options.data }
    /// The highest cluster version that this program knows.
    var knownVersion: UInt16 { options.knownVersion }

    func start() {
        adoptConfiguration()
        if let found = StateDamage.marked(directory) { stateIsDamaged(found) }
        tick()
        scheduleTurn()
    }

    func tick() {
        guard !isStopped else { return }
        step(.tick)
        watchDisk()
        settleContradiction()
        tendMemory()
        warnOfRegressedPeers()
        expireReads()
        retryChanges()
        recordMoves()
        warnIfRemoved()
        decideOnSpace()
        tendSnapshots()
        scrubIfDue()
        giveWay()
        continueReplacing()
        continueDraining()
        threads.state.send(.tick)
        scheduleTurn()
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: .milliseconds(10)) { this.value.tick() }
    }

    /// Answers what waits and closes every connection. Call it once.
    func stop() {
        turns.isStopped = true
        for waiter in driver.withdraw() { refuse(waiter, .shuttingDown) }
        for waiter in driver.abandon() { refuse(waiter, .unknownOutcome) }
        for waiter in membership.abandon() { refuse(waiter, .unknownOutcome) }
        for connection in clients.all { connection.say(Goodbye(.shuttingDown, "this member is shutting down")) }
        for peer in peers.linked { for link in peers.unlink(peer) { link.stop() } }
        for transfer in transfers.values { transfer.end(isInstalled: false) }
        fetch?.task.cancel()
        perform(exchange.end())
    }

    /// To be called off the loop, after `stop`.
    var closeThreads: [@Sendable () -> Void] {
        [
            threads.logWriter.close, threads.state.close, threads.reader.close, threads.spooler.close,
            threads.scrubber.close, threads.rewriter.close,
        ]
    }

    // MARK: a turn

    func scheduleTurn() {
        guard !turns.isScheduled else { return }
        turns.isScheduled = true
        let this = NIOLoopBound(self, eventLoop: loop)
        // It runs after all sockets that are ready in this turn were read.
        loop.execute { this.value.turn() }
    }

    func turn() {
        turns.isScheduled = false
        guard !isStopped else { return }
        if driver.isOffered { drive { $0.propose(now: Clock.now, wallTime: Clock.wall) } }
        requestNewReads()
        performActions()
        sendReads()
        for connection in clients.takeDirty() { connection.flush() }
    }

    func step(_ event: Event, records: ByteBuffer? = nil, now: Nanoseconds = Clock.now) {
        drive { $0.step(event, records: records, now: now) }
    }

    /// Has the driver do something, and follows where that leads the core.
    func drive(_ event: (inout Driver) -> Void) {
        let (role, term, leader) = (core.role, core.term, core.leader)
        event(&driver)
        settleTransfer()
        settleMembership()
        if turns.configurationChanges != core.log.configurationChanges { adoptConfiguration() }
        guard (role, term, leader) != (core.role, core.term, core.leader) else { return }
        if role == .leader, core.role != .leader || core.term != term {
            for waiter in membership.abandon() { refuse(waiter, .unknownOutcome) }
            for transfer in transfers.values { transfer.end(isInstalled: false) }
        }
        if core.leader != nil { belonging.led() }
        let name = core.leader.flatMap { core.configuration.member($0)?.id }.map { "\($0)" } ?? "none"
        logger.info("role", metadata: ["role": "\(core.role.rawValue)", "term": "\(core.term)", "leader": "\(name)"])
    }

    /// Does all that the driver wants done so far.
    func performActions() { perform(driver.takeActions()) }

    private func perform(_ actions: [Action]) {
        for action in actions {
            switch action {
            case .save(let write, let records): hand(write, records)
            case .send(let message, let records): send(message, records)
            case .promise(let message): send(message)
            case .execute(let first, let records, let waiters):
                threads.state.send(.apply(first: first, records: records, waiters: waiters))
            case .replay(let range): threads.state.send(.replay(range))
            case .serve(let reads): for read in reads { serve(read) }
            case .refuse(let reads, let refusal):
                for read in reads { refuse(read.waiter, refusal == .noLease ? .noLease : .noLeader) }
            case .decline(let waiters, let refusal): for waiter in waiters { refuse(waiter, Refusal.Code(refusal)) }
            case .expire(let waiters): for waiter in waiters { refuse(waiter, .deadlinePassed) }
            case .abandon(let waiters): for waiter in waiters { refuse(waiter, .unknownOutcome) }
            case .readEntries(let request): read(request)
            case .sendSnapshot(let peer): sendSnapshot(to: peer)
            case .report(let offence): report(offence)
            }
        }
    }
}

extension Refusal.Code {
    init(_ refusal: ProposalRefusal) {
        switch refusal {
        case .busy: self = .busy
        case .notLeader(let leader): self = leader == nil ? .noLeader : .notLeader
        }
    }
}
