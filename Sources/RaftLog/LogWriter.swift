import CrashPoints
import LMDB
import NIOCore
import Raft
import Threads

/// The thread that owns the log's writes: it takes what waits, writes it in one transaction, syncs once, and reports the
/// number of the last write done. While a sync runs, the next batch collects, so that batches set their own size.
package final class LogWriter: Sendable {
    /// One numbered write of the core and the records of its entries.
    package struct Request: Sendable {
        package var write: Write
        package var records: [ByteBuffer]
        /// The directory of the state that `write.snapshot` became.
        package var stateNumber: UInt64?

        package init(write: Write, records: [ByteBuffer], stateNumber: UInt64? = nil) {
            precondition((write.snapshot == nil) == (stateNumber == nil), "a snapshot and its state come together")
            self.write = write
            self.records = records
            self.stateNumber = stateNumber
        }
    }

    private enum Work: Sendable {
        case write(Request)
        /// The entries that this covers may go: the durable state has them.
        case compact(SnapshotMetadata)
        /// The state lives in the directory of this number from now on.
        case state(UInt64, done: @Sendable () -> Void)
    }

    /// The most bytes of entries in one transaction: a longer one would keep the first write of it waiting.
    static let batchBytesMax = 8 << 20

    /// The most entries behind the log's start that one transaction erases, beside two for each that it appends.
    static let erasedEntriesMax = 2048

    private let thread: OwnedThread<Work>

    /// - Parameters:
    ///   - row: what stands in the log's record now.
    ///   - completed: called on the writer's thread with the number up to which all writes are on the disk.
    ///   - failed: called when a commit or a sync failed. It is never tried again, since nothing is known of what
    ///     reached the disk: the process must end.
    package init(
        store: LogStore, row: HardStateRow, lastIndex: Index,
        completed: @escaping @Sendable (UInt64) -> Void, failed: @escaping @Sendable (LMDBError) -> Void
    ) {
        thread = OwnedThread(name: "log-writer") {
            let batch = LogBatch(store: store, row: row, lastIndex: lastIndex)
            var isBroken = false
            return (
                handle: { work in
                    var rest = work[...]
                    while !isBroken, !rest.isEmpty {
                        do throws(LMDBError) {
                            var requests: [Request] = []
                            var switched: [@Sendable () -> Void] = []
                            var bytes = 0
                            while let next = rest.first, bytes < Self.batchBytesMax {
                                rest.removeFirst()
                                switch next {
                                case .write(let request):
                                    requests.append(request)
                                    bytes += request.records.reduce(0) { $0 + $1.readableBytes }
                                case .compact(let compaction): batch.compaction = compaction
                                case .state(let number, let done):
                                    batch.switchState(to: number)
                                    switched.append(done)
                                }
                            }
                            try batch.write(requests)
                            if let last = requests.last { completed(last.write.number) }
                            for done in switched { done() }
                        } catch {
                            isBroken = true
                            failed(error)
                        }
                    }
                }, finish: {}
            )
        }
    }

    package func send(_ request: Request) { thread.send(.write(request)) }

    /// Lets the entries go that a durable state covers.
    package func compact(behind state: SnapshotMetadata) { thread.send(.compact(state)) }

    /// Makes the state in the directory of this number the one that counts. It holds the same commands' effects as the one
    /// before; the log has those that either lacks.
    ///
    /// - Parameter done: called on the writer's thread once it is so on the disk.
    package func switchState(to number: UInt64, done: @escaping @Sendable () -> Void) {
        thread.send(.state(number, done: done))
    }

    /// Finishes what was sent and waits for it.
    package func close() { thread.close() }
}

/// The writer thread's own state.
private final class LogBatch {
    private let store: LogStore
    private var row: HardStateRow
    private var lastIndex: Index
    /// To be taken along by the next transaction.
    var compaction: SnapshotMetadata?
    /// Entries before this are erased already; those from here to the compacted index are absent, and go in steps.
    private var erasedBefore: Index

    init(store: LogStore, row: HardStateRow, lastIndex: Index) {
        self.store = store
        self.row = row
        self.lastIndex = lastIndex
        erasedBefore = store.firstKept() ?? row.compactedIndex + 1
    }

    private var switchesState = false

    func switchState(to number: UInt64) {
        row.stateNumber = number
        switchesState = true
    }

    /// Writes everything in one transaction, with one sync.
    func write(_ requests: [LogWriter.Request]) throws(LMDBError) {
        var transaction = try store.environment.beginWrite()
        var erasable = LogWriter.erasedEntriesMax
        for request in requests {
            if let snapshot = request.write.snapshot, let number = request.stateNumber {
                try install(snapshot, keepsTail: request.write.keepsTail, stateNumber: number, &transaction)
            }
            try append(request, &transaction)
            erasable += 2 * request.records.count
        }
        let switches = switchesState || requests.contains { $0.write.snapshot != nil }
        let compacts = compaction != nil
        switchesState = false
        if let compaction, compaction.index > row.compactedIndex {
            (row.compactedIndex, row.compactedTerm) = (compaction.index, compaction.term)
            try store.writeBase(compaction.configuration, &transaction)
        }
        compaction = nil
        try erase(atMost: erasable, &transaction)
        row.lastIndex = lastIndex
        try store.write(row, &transaction)
        CrashPoint.logCommitBefore.reach()
        if switches { CrashPoint.switchBefore.reach() }
        if compacts { CrashPoint.compactionBefore.reach() }
        try transaction.commit()
        CrashPoint.logCommitAfter.reach()
        if switches { CrashPoint.switchAfter.reach() }
        if compacts { CrashPoint.compactionAfter.reach() }
    }

    private func append(_ request: LogWriter.Request, _ transaction: inout WriteTransaction) throws(LMDBError) {
        let write = request.write
        precondition(write.entries.count == request.records.count, "a write came without its records")
        if write.truncates { try truncate(from: write.entries.lowerBound, &transaction) }
        for (index, record) in zip(write.entries, request.records) {
            try store.append(record, at: index, &transaction)
            lastIndex = index
        }
        row.hardState = write.hardState
    }

    private func truncate(from first: Index, _ transaction: inout WriteTransaction) throws(LMDBError) {
        for index in stride(from: first, through: lastIndex, by: 1) {
            try transaction.delete(LogStore.key(index).span.bytes, in: store.entries)
        }
        lastIndex = min(lastIndex, first - 1)
    }

    /// The switch: pointer, bounds and commit index change together, or not at all.
    private func install(
        _ snapshot: SnapshotMetadata, keepsTail: Bool, stateNumber: UInt64, _ transaction: inout WriteTransaction
    ) throws(LMDBError) {
        if !keepsTail { try truncate(from: snapshot.index + 1, &transaction) }
        lastIndex = max(lastIndex, snapshot.index)
        (row.compactedIndex, row.compactedTerm) = (snapshot.index, snapshot.term)
        row.stateNumber = stateNumber
        try store.writeBase(snapshot.configuration, &transaction)
    }

    private func erase(atMost count: Int, _ transaction: inout WriteTransaction) throws(LMDBError) {
        let end = row.compactedIndex + 1
        for _ in 0..<count where erasedBefore < end {
            if try transaction.delete(LogStore.key(erasedBefore).span.bytes, in: store.entries) {
                erasedBefore += 1
            } else {
                // The log went on far beyond its end, as a cluster does that was restored from a backup.
                erasedBefore = try min(end, store.firstKept(from: erasedBefore, transaction) ?? end)
            }
        }
    }
}
