import Driver
import FileTree
import Glibc
import NIOCore
import Raft
import RaftLog
import Threads
import WireProtocol

/// The state thread's own data.
final class StateExecutor {
    private var tree: DurableTree
    private let log: LogStore
    private let knownVersion: UInt16
    private let member: UInt64
    private var measuredAt: Nanoseconds = 0
    private var waits = StateWaits(now: Clock.now)
    private var isStopped: Bool
    private let send: (StateReport) -> Void
    private let failed: (StateError) -> Void
    /// Rest that commands owe to the disk.
    private var restDue: Nanoseconds = 0
    private(set) var report: StateReport
    /// Where each connection's answers stand in the report.
    private var positions: [UInt64: Int] = [:]
    private var answerBytes = 0

    init(
        tree: DurableTree, log: LogStore, knownVersion: UInt16, member: UInt64, isStopped: Bool,
        report send: @escaping (StateReport) -> Void, failed: @escaping (StateError) -> Void
    ) {
        self.send = send
        self.failed = failed
        self.tree = tree
        self.log = log
        self.knownVersion = knownVersion
        self.member = member
        self.isStopped = isStopped
        report = StateReport(
            applied: tree.applied, durableIndex: tree.durable.index, environment: tree.environment)
    }

    /// The most bytes of answers that gather before they are reported.
    private static let answerBytesMax = 4 << 20

    func run(_ batch: [StateThread.Item]) {
        for item in batch {
            switch item.work {
            case .apply(let first, let records, let waiters):
                for (offset, record) in records.enumerated() {
                    let waiter = waiters.isEmpty ? nil : waiters[offset]
                    let isExecuted = unlessStopped { () throws(StateError) in
                        try apply(record, first + UInt64(offset), for: waiter)
                    }
                    if isExecuted {
                        unlessStopped(keepUpNowAndThen)
                    } else if let waiter {
                        refuse(waiter, .unknownOutcome)
                    }
                }
            case .replay(let range): unlessStopped { () throws(StateError) in try replay(range) }
            case .adopt(let path): unlessStopped { () throws(StateError) in try adopt(path) }
            case .read(let reads):
                for read in reads {
                    let isAnswered = unlessStopped { () throws(StateError) in try answer(read) }
                    if !isAnswered { answerWhileStopped(read) }
                }
            case .tick: measure()
            case .replace(let path):
                // What the old tree has not written yet goes with it: nothing of it counts any more.
                isStopped = false
                unlessStopped { () throws(StateError) in
                    goOn(with: try DurableTree(path: path, knownVersion: knownVersion, member: member))
                }
            }
            waits.record(item.work.requests, waited: Clock.now - item.sent)
            unlessStopped(keepUp)
            if answerBytes >= Self.answerBytesMax { flush() }
        }
        flush()
    }

    func commit() {
        unlessStopped { () throws(StateError) in try tree.commit() }
    }

    /// Answers whether `work` was done. When it fails, nothing more is, but for what a stopped thread may do.
    @discardableResult
    private func unlessStopped(_ work: () throws(StateError) -> Void) -> Bool {
        guard !isStopped else { return false }
        do throws(StateError) { try work() } catch {
            isStopped = true
            // A command that was executed in part leaves no trace.
            if error.isDamage,
                let committed = try? DurableTree(tree.environment, knownVersion: knownVersion, member: member)
            {
                goOn(with: committed)
            }
            failed(error)
            return false
        }
        return true
    }

    private func flush() {
        report.applied = tree.applied
        report.durableIndex = tree.durable.index
        report.oneTimeWrites = tree.oneTimeWriteCount
        report.environment = tree.environment
        send(report)
        report.answers = []
        positions.removeAll(keepingCapacity: true)
        report.usage = nil
        report.damage = nil
        report.digests = []
        answerBytes = 0
    }

    private static let measureInterval: Nanoseconds = 200_000_000

    /// Far below the time in which a member could fill its reserve.
    private func measure() {
        let now = Clock.now
        guard now - measuredAt >= Self.measureInterval else { return }
        measuredAt = now
        report.usage = DiskUsage(of: tree.environment, log)
        if let wait = waits.percentile(now: now) { report.wait = wait }
    }

    private func apply(_ record: ByteBuffer, _ index: Index, for waiter: Waiter?) throws(StateError) {
        var record = record
        let entry: EntryRecord
        // It was checked when it was taken into memory.
        do { entry = try EntryRecord(from: &record, isChecked: true) } catch { throw .unknownFormat }
        guard let waiter else {
            var discarded = ByteBuffer()
            try tree.apply(
                index: index, term: entry.header.term, kind: entry.header.kind, payload: entry.payload,
                answer: &discarded)
            return
        }
        try answer(waiter) { frame throws(StateError) in
            try tree.apply(
                index: index, term: entry.header.term, kind: entry.header.kind, payload: entry.payload, answer: &frame)
        }
    }

    private func replay(_ range: ClosedRange<Index>) throws(StateError) {
        try tree.replay(through: range.upperBound, from: log) { () throws(StateError) in try keepUpNowAndThen() }
    }

    /// Nothing is executed that is not durable in the log: the copy gets from there what it lacks.
    private func adopt(_ path: String) throws(StateError) {
        let copy = try DurableTree(path: path, knownVersion: knownVersion, member: member)
        try copy.replay(through: tree.applied.index, from: log) { () throws(StateError) in
            _ = try copy.keepUp(now: Clock.now)
        }
        guard copy.applied == tree.applied else { throw .wrongDigest }
        goOn(with: copy)
        report.usage = DiskUsage(of: tree.environment, log)
    }

    private func goOn(with another: DurableTree) {
        tree.leave()
        tree = another
    }

    private func answer(_ read: StateThread.Read) throws(StateError) {
        do throws(StateError) {
            try answer(read.waiter, read) { frame throws(StateError) in try tree.answer(read.query, into: &frame) }
        } catch {
            // A rotten row is never served; the tree goes on with the rows that are sound.
            guard case .corruptRow = error else { throw error }
            report.damage = error
            refuse(read.waiter, .corrupt)
        }
    }

    private func answerWhileStopped(_ read: StateThread.Read) {
        guard read.isStale else { return refuse(read.waiter, .corrupt) }
        do throws(StateError) {
            try answer(read.waiter, read) { frame throws(StateError) in try tree.answer(read.query, into: &frame) }
        } catch { refuse(read.waiter, .corrupt) }
    }

    private func refuse(_ waiter: Waiter, _ code: Refusal.Code) {
        let position = position(of: waiter.connection)
        Refusal(code).write(to: &report.answers[position].frames, requestID: waiter.requestID)
        report.answers[position].count += 1
        if waiter.isRead {
            report.answers[position].reads += 1
            report.answers[position].reservedBytes += waiter.answerBytesMax
        }
    }

    private func answer(
        _ waiter: Waiter, _ read: StateThread.Read? = nil, _ body: (inout ByteBuffer) throws(StateError) -> Void
    ) throws(StateError) {
        let position = position(of: waiter.connection)
        // Out of the array while it is written to, so that it is the only one of its kind and nothing is copied.
        var frames = ByteBuffer()
        swap(&frames, &report.answers[position].frames)
        defer { swap(&frames, &report.answers[position].frames) }
        let start = frames.beginFrame(.result, requestID: waiter.requestID)
        do throws(StateError) { try body(&frames) } catch {
            frames.moveWriterIndex(to: start)
            throw error
        }
        frames.endFrame(at: start)
        let bytes = frames.writerIndex - start
        if let read, bytes > waiter.answerBytesMax {
            frames.moveWriterIndex(to: start)
            // The room that it took is another's at once.
            if start == 0 { frames = ByteBuffer() }
            report.answers[position].tooLong.append(read)
            return
        }
        report.answers[position].count += 1
        if waiter.isRead {
            report.answers[position].reads += 1
            report.answers[position].reservedBytes += waiter.answerBytesMax
            report.answers[position].readBytesMax = max(report.answers[position].readBytesMax, bytes)
        }
        answerBytes += bytes
    }

    private func position(of connection: UInt64) -> Int {
        if let position = positions[connection] { return position }
        positions[connection] = report.answers.count
        report.answers.append(StateReport.Answers(connection: connection))
        return report.answers.count - 1
    }

    /// The disk is looked after once in so many commands, and between any two pieces of work.
    private static let commandsBetweenFlushChecks: Index = 32
    /// Shorter rests gather: a system can't rest for less with any precision.
    private static let restMin: Nanoseconds = 1_000_000
    /// Requests wait meanwhile.
    private static let restMax: Nanoseconds = 10_000_000

    private func keepUpNowAndThen() throws(StateError) {
        let applied = tree.applied
        if applied.index % StateThread.indexesBetweenDigests == 0 {
            report.digests.append((applied.index, applied.digest.value))
        }
        if applied.index % Self.commandsBetweenFlushChecks == 0 { try keepUp() }
    }

    private func keepUp() throws(StateError) {
        restDue += try tree.keepUp(now: Clock.now)
        guard restDue >= Self.restMin else { return }
        flush()
        usleep(UInt32(min(restDue, Self.restMax) / 1000))
        restDue = 0
    }
}
