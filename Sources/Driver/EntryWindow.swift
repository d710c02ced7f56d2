import DequeModule
import NIOCore
import Raft
import WireProtocol

/// The records of the log's last entries, as they travel and as they lie on the disk: from where the core's own window of
/// headers begins to where the log ends.
struct EntryWindow {
    private var records: Deque<ByteBuffer> = []
    /// Of the first entry whose record is here, or would be.
    private(set) var first: Index

    /// Records from before the window that were read from the log, while the message with their entries is made.
    private var lent: (first: Index, records: [ByteBuffer]) = (0, [])

    /// An empty one behind `index`.
    init(behind index: Index) { first = index + 1 }

    /// Behind the last entry.
    var end: Index { first + UInt64(records.count) }
    var isEmpty: Bool { records.isEmpty }

    /// - Precondition: all of them are here.
    func records(in range: Range<Index>) -> [ByteBuffer] {
        guard !range.isEmpty else { return [] }
        precondition(
            range.lowerBound >= first && range.upperBound <= end,
            "records \(range) are not in the window, \(first)..<\(end): what would be sent or written is another entry's"
        )
        return Array(records[Int(range.lowerBound - first)..<Int(range.upperBound - first)])
    }

    /// The same of entries that are here or lent.
    func lookUp(_ range: Range<Index>) -> [ByteBuffer] {
        if range.lowerBound >= first { return records(in: range) }
        let begin = Int(range.lowerBound - lent.first)
        return Array(lent.records[begin..<begin + range.count])
    }

    mutating func lend(_ records: [ByteBuffer], from index: Index) { lent = (index, records) }
    mutating func takeBack() { lent = (0, []) }

    /// Stands after each output of the core was taken, in release builds as well.
    func checkEnd(of log: LogView) {
        precondition(
            end == log.lastIndex + 1,
            "the window ends before \(end), and the log with \(log.lastIndex): what is written would be another entry")
    }

    mutating func append(_ record: ByteBuffer) { records.append(record) }

    /// Takes the place of all from `index` on by those of `entries` that do not come before it, whose records follow each
    /// other in `bytes`.
    mutating func take(
        _ entries: [EntryHeader], from index: Index, in bytes: ByteBuffer, mutant: Mutant? = nil
    ) {
        let old = mutant == .overwrittenRecordsKept ? self : nil
        truncate(from: index)
        // A copy, of which each record is a slice: one of what was received would keep the whole buffer of the socket alive.
        var bytes = ByteBuffer(buffer: bytes)
        for entry in entries {
            guard let record = bytes.readSlice(length: Int(entry.size)) else { return }
            guard entry.index >= index else { continue }
            let kept = old.flatMap { old in
                (old.first..<old.end).contains(entry.index)
                    ? old.records(in: entry.index..<entry.index + 1).first : nil
            }
            records.append(kept ?? record)
        }
    }

    mutating func truncate(from index: Index) {
        while end > index, !records.isEmpty { records.removeLast() }
        if records.isEmpty { first = index }
    }

    /// Makes the records of the entries that a leader's core appends of its own, up to the log's end: the one that its term
    /// begins with, and configurations.
    mutating func keepOwnEntries(of log: LogView, term: Term) {
        if records.isEmpty { first = log.windowFirst }
        while end <= log.lastIndex {
            let configuration = log.configurations(in: end..<end + 1).first?.configuration
            var payload = ByteBuffer()
            configuration?.write(to: &payload)
            records.append(
                EntryRecord.bytes(configuration == nil ? .noOperation : .configuration, index: end, term: term, payload)
            )
        }
    }

    /// Records share buffers of at most so many bytes, unless one is longer, and are freed together: the last one that stays
    /// keeps the buffer.
    private static let sharedBytesMax = 256 << 10

    /// Makes the records of new commands, which become the last.
    ///
    /// - Returns: the sizes of the records.
    mutating func append(
        _ commands: [ByteBuffer], from index: Index, term: Term, stamp: (inout ByteBuffer, Int) -> Void
    ) -> [UInt32] {
        if records.isEmpty { first = index }
        let sizes = commands.map { EntryRecord.headerByteCount + $0.readableBytes }
        var next = 0
        while next < commands.count {
            let begin = next
            var bytes = 0
            while next < commands.count, next == begin || bytes + sizes[next] <= Self.sharedBytesMax {
                bytes += sizes[next]
                next += 1
            }
            var shared = ByteBufferAllocator().buffer(capacity: bytes)
            for offset in begin..<next {
                let start = shared.beginRecord(
                    .command, index: index + UInt64(offset), term: term, length: commands[offset].readableBytes)
                let command = shared.writerIndex
                shared.writeImmutableBuffer(commands[offset])
                stamp(&shared, command)
                shared.sealRecord(at: start)
            }
            for size in sizes[begin..<next] {
                if let record = shared.readSlice(length: size) { records.append(record) }
            }
        }
        return sizes.map { UInt32($0) }
    }

    /// Forgets what comes before `index`, where the core's window begins.
    mutating func forget(before index: Index) {
        while first < index, !records.isEmpty {
            records.removeFirst()
            first += 1
        }
        if records.isEmpty { first = index }
    }

    /// A snapshot took the place of all through `index`; what follows it stays if `keepsTail`.
    mutating func begin(behind index: Index, keepsTail: Bool) {
        if !keepsTail { records.removeAll() }
        forget(before: index + 1)
    }
}
