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

        package init(write: Write, records: [ByteBuffer]) {
            self.write = write
            self.records = records
        }
    }

    /// The most bytes of entries in one transaction: a longer one would keep the first write of it waiting.
    static let batchBytesMax = 8 << 20

    private let thread: OwnedThread<Request>

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
                handle: { requests in
                    var rest = requests[...]
                    while !isBroken, !rest.isEmpty {
                        do throws(LMDBError) {
                            completed(try batch.writeSome(of: &rest))
                        } catch {
                            isBroken = true
                            failed(error)
                        }
                    }
                }, finish: {}
            )
        }
    }

    package func send(_ request: Request) { thread.send(request) }

    /// Finishes what was sent and waits for it.
    package func close() { thread.close() }
}

/// The writer thread's own state.
private final class LogBatch {
    private let store: LogStore
    private var row: HardStateRow
    private var lastIndex: Index

    init(store: LogStore, row: HardStateRow, lastIndex: Index) {
        self.store = store
        self.row = row
        self.lastIndex = lastIndex
    }

    /// Writes requests from the front of `rest` in one transaction and answers with the last one's number.
    func writeSome(of rest: inout ArraySlice<LogWriter.Request>) throws(LMDBError) -> UInt64 {
        var transaction = try store.environment.beginWrite()
        var bytes = 0
        var number: UInt64 = 0
        while let request = rest.first, bytes < LogWriter.batchBytesMax {
            rest.removeFirst()
            bytes += try apply(request, &transaction)
            number = request.write.number
        }
        try store.write(row, &transaction)
        try transaction.commit()
        return number
    }

    private func apply(_ request: LogWriter.Request, _ transaction: inout WriteTransaction) throws(LMDBError) -> Int {
        let write = request.write
        precondition(write.entries.count == request.records.count, "a write came without its records")
        if write.truncates {
            for index in stride(from: write.entries.lowerBound, through: lastIndex, by: 1) {
                try transaction.delete(LogStore.key(index).span.bytes, in: store.entries)
            }
            lastIndex = min(lastIndex, write.entries.lowerBound - 1)
        }
        var bytes = 0
        for (index, record) in zip(write.entries, request.records) {
            try store.append(record, at: index, &transaction)
            bytes += record.readableBytes
            lastIndex = index
        }
        row.hardState = write.hardState
        return bytes
    }
}
