import ArgumentParser
import Foundation
import LMDB
import NIOCore
import Raft
import RaftLog
import Synchronization
import WireProtocol

/// The log writer alone: batches of entries, each durable before the next is sent.
struct LogBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "log", abstract: "Append entries to a durable log, one synced batch after the other.")

    @Option(help: "Entries in a batch.") var batch = 256
    @Option(help: "Bytes of each entry.") var size = 256
    @Option(help: "Seconds to measure.") var seconds = 5.0
    @Option(help: "Entries that the log keeps.") var tail: UInt64 = 20_000
    @Option(help: "A directory that is not there yet, to work in; it is removed at the end.") var data =
        "/tmp/banyan-bench-log"

    mutating func run() throws {
        let folder = try Folder(data)
        defer { folder.remove() }
        let store = try LogStore(path: data)
        let configuration = Configuration(clusterID: 1, members: [Member(id: 1, peer: PeerID(1), address: "a:1")])
        try store.found(Identity(memberID: 1, incarnation: 1, founders: "1=a:1"), genesis: configuration)
        let recovered = try store.recover()
        let done = DispatchSemaphore(value: 0)
        let commits = Atomic(0)
        let completedWrites = Atomic<UInt64>(0)
        let failure = Mutex<LMDBError?>(nil)
        let writer = LogWriter(
            store: store, row: recovered.row, lastIndex: 1,
            completed: { write in
                commits.add(1, ordering: .relaxed)
                for _ in completedWrites.exchange(write, ordering: .relaxed)..<write { done.signal() }
            },
            failed: { error in
                failure.withLock { $0 = error }
                done.signal()
            })
        var index: Index = 1
        var number: UInt64 = 0
        // As a member's window does, this thread frees what it made.
        var window: [[ByteBuffer]] = Array(repeating: [], count: 8)
        let payload = ByteBuffer(repeating: 7, count: size - EntryRecord.headerByteCount)
        let end = ContinuousClock.now + .seconds(seconds)
        let elapsed = try timed {
            while ContinuousClock.now < end {
                var records: [ByteBuffer] = []
                let first = index + 1
                for _ in 0..<batch {
                    index += 1
                    var record = ByteBufferAllocator().buffer(capacity: size)
                    let start = record.beginRecord(.command, index: index, term: 1, length: payload.readableBytes)
                    record.writeImmutableBuffer(payload)
                    record.sealRecord(at: start)
                    records.append(record)
                }
                number += 1
                window[Int(number) % window.count] = records
                if index > tail {
                    writer.compact(
                        behind: SnapshotMetadata(index: index - tail, term: 1, configuration: configuration))
                }
                // While the writer writes one batch, the next waits for it, as on a leader under load.
                if number > 2 { done.wait() }
                if let failure = failure.withLock({ $0 }) { throw failure }
                writer.send(
                    .init(
                        write: Write(
                            number: number, hardState: HardState(term: 1, vote: nil, commit: first - 1),
                            entries: first..<index + 1),
                        records: records))
            }
        }
        writer.close()
        let count = commits.load(ordering: .relaxed)
        print(
            String(
                format: "log batch=%.0f size=%d entries/s=%.0f commit %.3f ms", Double(index - 1) / Double(count), size,
                Double(index - 1) / elapsed, elapsed * 1e3 / Double(count)))
    }
}
