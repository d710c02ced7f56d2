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

/// A running member on its event loop: it owns the core, the recent entries and all that waits for an answer.
///
/// One turn of the loop reads everything that arrived, takes one output of the core, and flushes each connection once.
/// It touches neither LMDB nor the disk, but for the mark that says that its state is damaged. Not `Sendable`: everything
/// here happens on the loop's thread.
final class Replica {
    let loop: any EventLoop
    let identity: Identity
    let options: ServerOptions
    let logger: Logger
    /// Called when this member can't go on.
    let fatal: @Sendable (String) -> Void
    /// Hears that a file of the directory can't be written.
    let unwritable: (any Error) -> Void
    var driver: Driver
    var core: RaftCore { _read { yield driver.core } }

    // MARK: threads

    let logWriter: LogWriter
    let stateThread: StateThread
    let reader: ReaderThread
    let spooler: SpoolThread

    // MARK: storage

    /// How often the log was committed: entries by commits is how well one sync is shared.
    var logCommits: UInt64 = 0
    var lastReport: StateReport

    var diskWatch = DiskWatch()
    var space: DiskSpace
    var usage = DiskUsage()

    // MARK: snapshots

    var tail: LogTail
    /// The state in use lives in the directory of this number.
    var stateNumber: UInt64
    /// The last number that a state was given, in use or being built.
    var lastStateNumber: UInt64
    /// The snapshot that is being taken in: bytes so far, and when the last of them came.
    var receiving: (bytes: UInt64, at: Nanoseconds)?
    /// Pieces that the reader's thread has not taken in yet, by their connection.
    var piecesWaiting: [UInt64: Int] = [:]
    /// The state that the core's next write of a snapshot makes the one in use.
    var receivedState: UInt64?
    /// The write that makes it so on the disk.
    var switchWrite: UInt64?
    /// Those that were in use before, and may go then.
    var formerStates: [UInt64] = []
    /// Snapshots on their way to peers.
    var transfers: [PeerID: SnapshotTransfer] = [:]
    /// The last snapshot that was made, and when it was last of use.
    var spool: Spool?
    var spoolUsedAt: Nanoseconds = 0
    /// Who waits for one, and what it must cover.
    var spoolRequests: [(index: Index, use: (Result<Spool, SnapshotError>) -> Void)] = []
    var isSpooling = false
    var progressToldAt: Nanoseconds = 0
    /// When a peer's last transfer broke off.
    var failedTransfers: [PeerID: Nanoseconds] = [:]

    let rewriter: RewriteThread
    var rewriting: Rewriting?

    /// Snapshots that clients take, by connection, and those that wait until one can be made that covers an index.
    var backups: [UInt64: Backup] = [:]
    var backupWaiters: [(index: Index, waiter: Waiter, deadline: Nanoseconds)] = []

    // MARK: damage

    let scrubber: ScrubThread
    var isScrubbing = false
    var scrubbedAt: Nanoseconds
    var isVerifying = false
    var verifyWaiters: [Waiter] = []
    /// Called when this member has to begin anew, for its log to be repaired.
    let restart: @Sendable (String) -> Void
    /// Called when another configuration is in force: who waits to be taken in may be named by it.
    var configurationAdopted: () -> Void = {}
    /// Whether connections can't be taken in.
    var isStarved: () -> Bool = { false }
    /// What is wrong with the state, until another takes its place.
    var damage: StateDamage?
    var foundAt: Nanoseconds = 0
    var fetching: Task<Void, Never>?
    let fetchProgress = WorkProgress()
    var replacement: Replacement?
    var gaveWayAt: Nanoseconds = 0
    var doubt = Doubt()
    var toldDamage = ""
    /// What the state's digest was at indexes that all members remember: here, on the others, and on a majority.
    var ownDigests: Deque<(index: Index, digest: UInt128)> = []
    var peerDigests: [PeerID: (index: Index, digest: UInt128)] = [:]
    var agreedDigest: (index: Index, digest: UInt128)?
    /// No majority agrees on the state.
    var isAlarmed = false
    var isAskingForDigests = false
    var askedForDigestsAt: Nanoseconds = 0

    // MARK: requests

    var connections: [UInt64: FrameConnection] = [:]
    /// Of all clients.
    let memory: ClientMemory
    var memoryMeasuredAt: Nanoseconds = 0
    var links: [PeerID: [Lane: PeerLink]] = [:]
    /// Peers that the configuration does not name (yet), by their own connections: answers go back on those.
    var strangers: [PeerID: FrameConnection] = [:]
    var offences = OffenceCount()
    /// Addresses that are being asked who is there, for a change of membership.
    var probesUnderWay = 0
    /// Why peers refused this member, or it them.
    var refusals = Refusals<PeerID>()
    /// Peers that were warned of.
    var regressed: Set<PeerID> = []
    var dirty: [FrameConnection] = []
    /// By connection, those that it has too many answers under way for.
    var waitingReads: [UInt64: Deque<PendingRead>] = [:]
    var newReads: [PendingRead] = []
    /// For the state thread, at the end of the turn.
    var servedReads: [StateThread.Read] = []
    var isTurnScheduled = false
    /// Who waits for leadership to be handed over.
    var transferWaiters: [(Replica.TransferOutcome) -> Void] = []
    enum TransferOutcome { case done, failed }
    /// Of a member that is about to end, and who waits for that.
    var draining: (state: Draining, settled: () -> Void)?
    var isStopped = false
    /// Changes of membership that are not committed yet, by the index of their entry.
    var membershipWaiters: [(index: Index, waiter: Waiter)] = []
    /// Changes whose new majority is being asked whether it is there.
    var pendingChanges: [PendingChange] = []
    /// Of the core's log, when its configuration was last acted upon.
    var configurationChanges: UInt64 = 0
    var wasMember = false
    /// By its own log, the cluster has let this member go.
    var isRemoved = false
    /// Who says that the cluster does not know this member's directory, or not any more, and how.
    var disowned: (by: PeerID, reason: String, since: Nanoseconds)?
    struct Backup {
        let spool: Spool
        var usedAt: Nanoseconds
        /// When a piece was last asked for that had not been before.
        var advancedAt: Nanoseconds
        private var next: UInt32 = 0

        init(spool: Spool, usedAt: Nanoseconds, advancedAt: Nanoseconds) {
            self.spool = spool
            self.usedAt = usedAt
            self.advancedAt = advancedAt
        }

        mutating func read(_ piece: UInt32, at now: Nanoseconds) {
            usedAt = now
            guard piece >= next else { return }
            next = piece + 1
            advancedAt = now
        }
    }

    struct PendingChange {
        var changes: [MembershipChange]
        var waiter: Waiter
        /// The round of heartbeats that the new majority must have answered.
        var round: UInt64
        var since: Nanoseconds
    }

    /// The member's threads beside the loop's own.
    struct Threads {
        let logWriter: LogWriter
        let stateThread: StateThread
        let reader: ReaderThread
        let spooler: SpoolThread
        let scrubber: ScrubThread
        let rewriter: RewriteThread
    }

    /// - Parameters:
    ///   - fatal: called when this member can't go on.
    ///   - restart: called when its process must begin anew, for its log to be repaired.
    ///   - unusedState: the number of an empty state that the state thread has open, since the member's own can't be.
    init(
        loop: any EventLoop, identity: Identity, core: RaftCore, report: StateReport, stateNumber: UInt64,
        unusedState: UInt64?, tail: LogTail, threads: Threads, options: ServerOptions, memory: ClientMemory,
        logger: Logger,
        fatal: @escaping @Sendable (String) -> Void, restart: @escaping @Sendable (String) -> Void,
        unwritable: @escaping (any Error) -> Void
    ) {
        self.fatal = fatal
        self.unwritable = unwritable
        self.restart = restart
        self.options = options
        self.memory = memory
        self.loop = loop
        self.identity = identity
        driver = Driver(
            core, state: report.applied, knownVersion: options.knownVersion,
            context: UInt64.random(in: 0..<1 << 62))
        self.logger = logger
        logWriter = threads.logWriter
        stateThread = threads.stateThread
        reader = threads.reader
        spooler = threads.spooler
        scrubber = threads.scrubber
        rewriter = threads.rewriter
        space = DiskSpace(reserve: options.reserve)
        self.tail = tail
        self.stateNumber = stateNumber
        lastStateNumber = unusedState ?? stateNumber
        formerStates = unusedState.map { [$0] } ?? []
        lastReport = report
        scrubbedAt = Clock.now
    }

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
        stateThread.send(.tick)
        scheduleTurn()
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: .milliseconds(10)) { this.value.tick() }
    }

    /// Answers what waits and closes every connection. Call it once.
    func stop() {
        isStopped = true
        for waiter in driver.withdraw() { refuse(waiter, .shuttingDown) }
        for waiter in driver.abandon() { refuse(waiter, .unknownOutcome) }
        for (_, waiter) in membershipWaiters { refuse(waiter, .unknownOutcome) }
        for connection in connections.values { connection.say(Goodbye(.shuttingDown, "this member is shutting down")) }
        for lanes in links.values { for link in lanes.values { link.stop() } }
        for transfer in transfers.values { transfer.end(isInstalled: false) }
        fetching?.cancel()
        replacement?.settled("this member ends")
        replacement = nil
    }

    /// To be called off the loop, after `stop`.
    var closeThreads: [@Sendable () -> Void] {
        [logWriter.close, stateThread.close, reader.close, spooler.close, scrubber.close, rewriter.close]
    }

    // MARK: a turn

    func scheduleTurn() {
        guard !isTurnScheduled else { return }
        isTurnScheduled = true
        let this = NIOLoopBound(self, eventLoop: loop)
        // It runs after all sockets that are ready in this turn were read.
        loop.execute { this.value.turn() }
    }

    func turn() {
        isTurnScheduled = false
        guard !isStopped else { return }
        if driver.isOffered { drive { $0.propose(now: Clock.now, wallTime: Clock.wall) } }
        requestNewReads()
        performActions()
        sendReads()
        for connection in dirty { connection.flush() }
        dirty.removeAll(keepingCapacity: true)
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
        if configurationChanges != core.log.configurationChanges { adoptConfiguration() }
        guard (role, term, leader) != (core.role, core.term, core.leader) else { return }
        if role == .leader, core.role != .leader || core.term != term {
            for (_, waiter) in membershipWaiters { refuse(waiter, .unknownOutcome) }
            membershipWaiters = []
            for transfer in transfers.values { transfer.end(isInstalled: false) }
        }
        if core.leader != nil { disowned = nil }
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
                stateThread.send(.apply(first: first, records: records, waiters: waiters))
            case .replay(let range): stateThread.send(.replay(range))
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
