import DequeModule
import FileTree
import Logging
import NIOCore
import Raft
import RaftLog
import Transport
import WireProtocol

/// A running member on its event loop: it owns the core, the recent entries and all that waits for an answer.
///
/// One turn of the loop reads everything that arrived, takes one output of the core, and flushes each connection once.
/// It touches neither LMDB nor the disk. Not `Sendable`: everything here happens on the loop's thread.
final class Replica {
    let loop: any EventLoop
    let identity: Identity
    let logger: Logger
    var core: RaftCore

    // MARK: threads

    private let logWriter: LogWriter
    private let stateThread: StateThread
    private let reader: EntryReader

    // MARK: entries

    /// The records from `windowFirst` on, as the core's window has their headers.
    private var window: Deque<ByteBuffer> = []
    private var windowFirst: Index
    /// Promises that wait for their writes, in the order of those.
    private var held: Deque<HeldMessage> = []
    /// Handed to the state thread.
    private var dispatched: Index
    private(set) var lastReport: StateReport

    // MARK: requests

    private var connections: [UInt64: FrameConnection] = [:]
    private var links: [PeerID: [Lane: PeerLink]] = [:]
    private var dirty: [FrameConnection] = []
    /// Proposed by this leader and not yet dispatched, in the order of the log.
    private var proposed: Deque<(index: Index, waiter: Waiter)> = []
    private var newWrites: [(waiter: Waiter, command: ByteBuffer, deadline: Nanoseconds)] = []
    private var newReads: [PendingRead] = []
    private var readsByContext: [UInt64: [PendingRead]] = [:]
    private var readsWaitingToApply: Deque<(index: Index, reads: [PendingRead])> = []
    private var lastContext: UInt64 = 0
    private var isTurnScheduled = false
    private var isReclaiming = false
    private var isStopped = false
    /// When this leadership began, and the state's log time then.
    private var leadership: (since: Nanoseconds, logTime: UInt64) = (0, 0)

    private struct PendingRead {
        var waiter: Waiter
        var query: ByteBuffer
        var deadline: Nanoseconds
    }

    init(
        loop: any EventLoop, identity: Identity, core: RaftCore, applied: Applied, logWriter: LogWriter,
        stateThread: StateThread, store: LogStore, logger: Logger
    ) {
        self.loop = loop
        self.identity = identity
        self.core = core
        self.logWriter = logWriter
        self.stateThread = stateThread
        self.logger = logger
        reader = EntryReader(store: store, loop: loop)
        windowFirst = core.log.lastIndex + 1
        dispatched = applied.index
        lastReport = StateReport(applied: applied, durableIndex: applied.index)
    }

    func start() {
        connectPeers()
        tick()
        scheduleTurn()
    }

    private func tick() {
        guard !isStopped else { return }
        step(.tick)
        expireReads()
        stateThread.send(.commitIfDue)
        scheduleTurn()
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: .milliseconds(10)) { this.value.tick() }
    }

    /// Answers what waits, closes every connection and lets the threads finish. Call it once; it blocks for their last
    /// commits, so not from the loop.
    func stop() {
        isStopped = true
        abandonProposals(with: .unknownOutcome)
        for connection in connections.values { connection.say(Goodbye(.shuttingDown, "this member is shutting down")) }
        for lanes in links.values { for link in lanes.values { link.stop() } }
    }

    /// To be called off the loop, after `stop`.
    var threads: (LogWriter, StateThread, EntryReader) { (logWriter, stateThread, reader) }

    // MARK: a turn

    private func scheduleTurn() {
        guard !isTurnScheduled else { return }
        isTurnScheduled = true
        let this = NIOLoopBound(self, eventLoop: loop)
        // It runs after all sockets that are ready in this turn were read.
        loop.execute { this.value.turn() }
    }

    private func turn() {
        isTurnScheduled = false
        guard !isStopped else { return }
        proposeNewWrites()
        requestNewReads()
        perform(core.takeOutput())
        for connection in dirty { connection.flush() }
        dirty.removeAll(keepingCapacity: true)
    }

    private func step(_ event: Event) {
        let (role, term, leader) = (core.role, core.term, core.leader)
        core.step(event, now: Clock.now)
        keepNoOperation()
        guard (role, term, leader) != (core.role, core.term, core.leader) else { return }
        if role == .leader, core.role != .leader || core.term != term { abandonProposals(with: .unknownOutcome) }
        if core.role == .leader, role != .leader { leadership = (Clock.now, lastReport.applied.logTime) }
        let name = core.leader.flatMap { core.configuration.member($0)?.id }.map { "\($0)" } ?? "none"
        logger.info("role", metadata: ["role": "\(core.role.rawValue)", "term": "\(core.term)", "leader": "\(name)"])
    }

    /// A new leader's core begins its term with an entry of its own; its record is made here.
    private func keepNoOperation() {
        guard core.role == .leader else { return }
        if window.isEmpty { windowFirst = core.log.windowFirst }
        while windowFirst + UInt64(window.count) <= core.log.lastIndex {
            var record = ByteBuffer()
            let index = windowFirst + UInt64(window.count)
            let start = record.beginRecord(.noOperation, index: index, term: core.term, length: 0)
            record.sealRecord(at: start)
            window.append(record)
        }
    }

    private func perform(_ output: Output) {
        if let write = output.write {
            let first = Int(write.entries.lowerBound - windowFirst)
            logWriter.send(LogWriter.Request(write: write, records: Array(window[first..<first + write.entries.count])))
        }
        for message in output.messages { send(message) }
        held.append(contentsOf: output.messagesAfterWrite)
        releaseHeld()
        if let range = output.apply { dispatch(range) }
        for state in output.readStates { resolve(state) }
        for request in output.entriesToRead { read(request) }
        for peer in output.snapshotsToSend {
            logger.warning("peer is behind the log", metadata: ["peer": "\(peer)"])
            step(.snapshotEnded(peer: peer, installed: nil))
        }
        evict()
    }

    /// Forgets what the core's window forgot.
    private func evict() {
        while windowFirst < core.log.windowFirst, !window.isEmpty {
            window.removeFirst()
            windowFirst += 1
        }
        if window.isEmpty { windowFirst = core.log.windowFirst }
    }

    // MARK: the log writer

    private var completedWrite: UInt64 = 0

    func saved(_ write: UInt64) {
        guard !isStopped else { return }
        completedWrite = write
        step(.saved(write: write))
        releaseHeld()
        scheduleTurn()
    }

    private func releaseHeld() {
        while let first = held.first, first.write <= completedWrite {
            held.removeFirst()
            send(first.message)
        }
    }

    // MARK: the state thread

    private func dispatch(_ range: ClosedRange<Index>) {
        dispatched = range.upperBound
        let inMemory = max(range.lowerBound, windowFirst)
        if range.lowerBound < inMemory {
            stateThread.send(.replay(range.lowerBound...min(inMemory - 1, range.upperBound)))
        }
        if inMemory <= range.upperBound {
            var waiters: [Waiter?] = []
            if !proposed.isEmpty {
                for index in inMemory...range.upperBound {
                    waiters.append(proposed.first?.index == index ? proposed.removeFirst().waiter : nil)
                }
            }
            let first = Int(inMemory - windowFirst)
            let records = Array(window[first...Int(range.upperBound - windowFirst)])
            stateThread.send(.apply(first: inMemory, records: records, waiters: waiters))
        }
        while let next = readsWaitingToApply.first, next.index <= dispatched {
            readsWaitingToApply.removeFirst()
            for read in next.reads { stateThread.send(.read(read.query, read.waiter)) }
        }
    }

    func reported(_ report: StateReport) {
        guard !isStopped else { return }
        lastReport = report
        step(.applied(report.applied.index))
        for (id, answer) in report.answers {
            guard let connection = connections[id] else { continue }
            connection.requestsInFlight -= answer.count
            connection.write { $0.writeImmutableBuffer(answer.frames) }
            markDirty(connection)
        }
        lastReport.answers = [:]
        reclaimIfNeeded()
        scheduleTurn()
    }

    /// Unlinked directories are emptied by commands of the leader, one at a time, so that clients' get in between.
    private func reclaimIfNeeded() {
        if lastReport.applied.orphans == 0 || core.role != .leader { isReclaiming = false }
        guard core.role == .leader, lastReport.applied.orphans > 0, core.applied == core.log.lastIndex || !isReclaiming
        else { return }
        isReclaiming = true
        var command = ByteBuffer()
        Reclaim().write(to: &command)
        newWrites.append((Waiter(connection: 0, requestID: 0), command, .max))
    }

    // MARK: clients

    func accept(_ connection: FrameConnection) { connections[connection.id] = connection }

    func closed(_ connection: FrameConnection) { connections[connection.id] = nil }

    func handleClient(_ frame: Frame, on connection: FrameConnection) {
        let waiter = Waiter(connection: connection.id, requestID: frame.requestID)
        let deadline = Clock.now + UInt64(frame.deadlineMilliseconds) * 1_000_000
        guard connection.requestsInFlight < Welcome.requestsInFlightMax else {
            refuse(waiter, .busy, isCounted: false)
            return
        }
        connection.requestsInFlight += 1
        switch frame.kind {
        case .write:
            if let error = CommandHeader.refusal(of: frame.body) {
                answer(waiter) { Outcome.failed(error, revision: 0).write(to: &$0) }
            } else {
                newWrites.append((waiter, frame.body, deadline))
            }
        case .read: newReads.append(PendingRead(waiter: waiter, query: frame.body, deadline: deadline))
        case .status:
            connection.requestsInFlight -= 1
            connection.write { status.write(to: &$0, requestID: frame.requestID) }
            markDirty(connection)
        default:
            connection.say(Goodbye(.protocolError, "a client sends writes, reads and status requests alone"))
        }
        scheduleTurn()
    }

    private var status: MemberStatus {
        let role: MemberStatus.Role =
            switch core.role {
            case .follower: .follower
            case .candidate: .candidate
            case .leader: .leader
            case .learner: .learner
            }
        return MemberStatus(
            id: identity.memberID, term: core.term, commit: core.commit, applied: lastReport.applied.index,
            digest: lastReport.applied.digest.value, role: role, members: core.configuration.text,
            leader: leaderAddress)
    }

    private var leaderAddress: String {
        core.leader.flatMap { core.configuration.member($0)?.address } ?? ""
    }

    private func answer(_ waiter: Waiter, _ body: (inout ByteBuffer) -> Void) {
        guard let connection = connections[waiter.connection] else { return }
        connection.requestsInFlight -= 1
        connection.write { $0.writeFrame(.result, requestID: waiter.requestID, body: body) }
        markDirty(connection)
    }

    private func refuse(_ waiter: Waiter, _ code: Refusal.Code, isCounted: Bool = true) {
        guard let connection = connections[waiter.connection] else { return }
        if isCounted { connection.requestsInFlight -= 1 }
        let leader = code == .notLeader ? leaderAddress : ""
        connection.write { Refusal(code, leader: leader).write(to: &$0, requestID: waiter.requestID) }
        markDirty(connection)
    }

    private func markDirty(_ connection: FrameConnection) {
        if dirty.last !== connection { dirty.append(connection) }
    }

    // MARK: writes

    private func proposeNewWrites() {
        guard !newWrites.isEmpty else { return }
        let now = Clock.now
        var writes = newWrites
        newWrites = []
        if let refusal = core.proposalRefusal() {
            let code: Refusal.Code =
                switch refusal {
                case .busy: .busy
                case .notLeader(let leader): leader == nil ? .noLeader : .notLeader
                }
            for write in writes { refuse(write.waiter, code) }
            return
        }
        writes.removeAll { write in
            guard write.deadline < now else { return false }
            refuse(write.waiter, .deadlinePassed)
            return true
        }
        let logTime = leadership.logTime + (now - leadership.since) / 1_000_000
        let wallTime = Clock.wall
        var sizes: [UInt32] = []
        sizes.reserveCapacity(writes.count)
        var index = core.log.lastIndex
        if window.isEmpty { windowFirst = index + 1 }
        for write in writes {
            index += 1
            let length = write.command.readableBytes
            var record = ByteBufferAllocator().buffer(capacity: EntryRecord.headerByteCount + length)
            let start = record.beginRecord(.command, index: index, term: core.term, length: length)
            let command = record.writerIndex
            record.writeImmutableBuffer(write.command)
            CommandHeader.stamp(&record, at: command, logTime: logTime, wallTime: wallTime)
            record.sealRecord(at: start)
            window.append(record)
            sizes.append(UInt32(record.readableBytes))
            if write.waiter.connection != 0 { proposed.append((index, write.waiter)) }
        }
        step(.propose(sizes: sizes))
    }

    private func abandonProposals(with code: Refusal.Code) {
        for (_, waiter) in proposed { refuse(waiter, code) }
        proposed.removeAll()
    }

    // MARK: reads

    private func requestNewReads() {
        guard !newReads.isEmpty else { return }
        lastContext += 1
        readsByContext[lastContext] = newReads
        newReads = []
        step(.readIndex(context: lastContext))
    }

    private func resolve(_ state: ReadState) {
        guard let reads = readsByContext.removeValue(forKey: state.context) else { return }
        guard let index = state.index else {
            for read in reads { refuse(read.waiter, .noLeader) }
            return
        }
        if index <= dispatched {
            for read in reads { stateThread.send(.read(read.query, read.waiter)) }
        } else {
            readsWaitingToApply.append((index, reads))
        }
    }

    /// Refuses reads whose clients wait no longer.
    private func expireReads() {
        guard !readsByContext.isEmpty || !readsWaitingToApply.isEmpty else { return }
        let now = Clock.now
        let isOver: (PendingRead) -> Bool = { [self] read in
            guard read.deadline < now else { return false }
            refuse(read.waiter, .deadlinePassed)
            return true
        }
        for context in readsByContext.keys.sorted() {
            readsByContext[context]?.removeAll(where: isOver)
            if readsByContext[context]?.isEmpty == true { readsByContext[context] = nil }
        }
        for position in readsWaitingToApply.indices { readsWaitingToApply[position].reads.removeAll(where: isOver) }
    }

    // MARK: peers

    private func connectPeers() {
        for member in core.configuration.members where member.peer.rawValue != identity.incarnation {
            guard let address = Address(member.address) else { continue }
            var lanes: [Lane: PeerLink] = [:]
            for lane in [Lane.control, .append] {
                let link = PeerLink(
                    to: address, on: loop, hello: { [unowned self] in hello(lane) },
                    onWelcome: { [unowned self] in welcomed($1, $2, by: member, lane) },
                    onBreak: { [unowned self] in broke(member, lane, $1) })
                lanes[lane] = link
                link.start()
            }
            links[member.peer] = lanes
        }
    }

    private func hello(_ lane: Lane) -> Hello {
        var hello = Hello(role: .peer)
        hello.lane = lane
        hello.clusterID = core.configuration.clusterID
        hello.memberID = identity.memberID
        hello.incarnation = identity.incarnation
        hello.members = (identity.genesis ?? core.configuration).text
        return hello
    }

    private func welcomed(_ connection: FrameConnection, _ welcome: Welcome, by member: Member, _ lane: Lane) -> Bool {
        guard welcome.incarnation == member.peer.rawValue else {
            logger.warning(
                "peer has another incarnation: its directory was wiped or is another member's",
                metadata: ["peer": "\(member.id)", "address": "\(member.address)"])
            connection.close()
            return true
        }
        // A member that was not reached before its founder went on: the first entry is the same for everyone.
        if welcome.isBootstrapping, let genesis = identity.genesis {
            connection.write { buffer in buffer.writeFrame(.genesis) { genesis.write(to: &$0) } }
            connection.flush()
        }
        logger.info(
            "peer connected", metadata: ["peer": "\(member.id)", "address": "\(member.address)", "lane": "\(lane)"])
        return true
    }

    private func broke(_ member: Member, _ lane: Lane, _ goodbye: Goodbye?) {
        if let goodbye, goodbye.code != .shuttingDown {
            logger.warning("peer refused", metadata: ["peer": "\(member.id)", "reason": "\(goodbye.reason)"])
        }
        guard !isStopped, lane == .append else { return }
        step(.unreachable(peer: member.peer))
        scheduleTurn()
    }

    /// Sends by the lane that fits; without a connection the message is lost, and Raft sends another.
    private func send(_ message: Message) {
        let lane: Lane = if case .append = message.body { .append } else { .control }
        guard let connection = links[message.to]?[lane]?.connection else { return }
        if case .append(let append) = message.body, let first = append.entries.first {
            let records = records(from: first.index, count: append.entries.count)
            connection.write { buffer in
                message.writeHead(to: &buffer, recordBytes: records.reduce(0) { $0 + $1.readableBytes })
                for record in records { buffer.writeImmutableBuffer(record) }
            }
        } else {
            connection.write { message.writeHead(to: &$0) }
        }
        markDirty(connection)
    }

    /// Records that the reader fetched for the message that is being sent.
    private var fetched: (first: Index, records: [ByteBuffer]) = (0, [])

    private func records(from first: Index, count: Int) -> ArraySlice<ByteBuffer> {
        if first >= windowFirst {
            let start = Int(first - windowFirst)
            return Array(window[start..<start + count])[...]
        }
        let start = Int(first - fetched.first)
        return fetched.records[start..<start + count]
    }

    func handlePeer(_ frame: Frame, from hello: Hello) throws {
        let peerMessage = try PeerMessage(frame)
        let message = peerMessage.message
        // A message must come from whom the connection's hello named, and mean this directory.
        guard message.from.rawValue == hello.incarnation, message.to.rawValue == identity.incarnation else { return }
        step(.message(message))
        if case .append(let append) = message.body, let records = peerMessage.records { takeIn(append, records) }
        scheduleTurn()
    }

    /// Keeps the records of the entries that the core just took into its log.
    private func takeIn(_ append: Message.Append, _ records: ByteBuffer) {
        guard let first = core.takeAppended() else { return }
        while windowFirst + UInt64(window.count) > first, !window.isEmpty { window.removeLast() }
        if window.isEmpty { windowFirst = first }
        var records = records
        for entry in append.entries {
            guard let record = records.readSlice(length: Int(entry.size)) else { return }
            // A copy of its own: a slice would keep the whole buffer of the socket alive.
            if entry.index >= first { window.append(ByteBuffer(bytes: record.readableBytesView)) }
        }
    }

    /// Entries for a peer that lags behind the window are read from the disk, on the reader's thread.
    private func read(_ request: EntriesRequest) {
        let this = NIOLoopBound(self, eventLoop: loop)
        reader.read(request) { entries in this.value.entriesRead(request.peer, entries) }
    }

    private func entriesRead(_ peer: PeerID, _ entries: [EntryRecord]) {
        guard !isStopped else { return }
        perform(core.takeOutput())
        if let first = entries.first {
            let records = entries.map { entry in
                var buffer = ByteBuffer()
                let start = buffer.beginRecord(
                    entry.header.kind, index: entry.header.index, term: entry.header.term,
                    length: entry.payload.readableBytes)
                buffer.writeImmutableBuffer(entry.payload)
                buffer.sealRecord(at: start)
                return buffer
            }
            fetched = (first.header.index, records)
        }
        let configurations = entries.compactMap { entry -> IndexedConfiguration? in
            var payload = entry.payload
            guard entry.header.kind == .configuration, let configuration = Configuration(from: &payload) else {
                return nil
            }
            return IndexedConfiguration(index: entry.header.index, configuration: configuration)
        }
        step(.entriesRead(peer: peer, entries: entries.map(\.header), configurations: configurations))
        perform(core.takeOutput())
        fetched = (0, [])
        scheduleTurn()
    }
}
