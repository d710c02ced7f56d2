import DequeModule
import Raft

/// How far the log may be compacted: what the durable state covers goes, but for a tail that feeds members which are
/// only a little behind.
///
/// The tail is bounded by entries and by bytes, whichever is less. Bytes are counted in marks of about 1 MiB.
struct LogTail {
    /// The most executed entries and bytes that are kept for nobody in particular.
    let entriesMax: UInt64
    let bytesMax: Int
    /// The most bytes that are kept for a peer that is being brought level, so that it need not begin again and again.
    let heldBytesMax: Int

    private static let markBytes = 1 << 20
    /// Ascending: at `index`, so many bytes had been appended since this value was made.
    private var marks: Deque<(index: Index, bytes: Int)> = []
    private var appendedBytes = 0
    /// Since the last mark.
    private var unmarkedBytes = 0
    private var lastIndex: Index

    init(entriesMax: UInt64, bytesMax: Int = 64 << 20, heldBytesMax: Int = 1 << 30, lastIndex: Index) {
        self.entriesMax = entriesMax
        self.bytesMax = bytesMax
        self.heldBytesMax = heldBytesMax
        self.lastIndex = lastIndex
    }

    mutating func append(through index: Index, bytes: Int) {
        appendedBytes += bytes
        unmarkedBytes += bytes
        lastIndex = index
        guard unmarkedBytes >= Self.markBytes else { return }
        marks.append((index, appendedBytes))
        unmarkedBytes = 0
    }

    mutating func truncate(from index: Index) {
        while let last = marks.last, last.index >= index { marks.removeLast() }
        lastIndex = min(lastIndex, index - 1)
    }

    /// Where the log may end now, or nil when compacting would gain too little to be worth its write.
    ///
    /// - Parameters:
    ///   - durable: the last index that the durable state covers; nothing after it may ever go.
    ///   - compacted: where the log ends already.
    ///   - needed: what peers that are being fed, or get a snapshot, still need begins behind this.
    mutating func compactionPoint(durable: Index, compacted: Index, needed: Index?) -> Index? {
        let byEntries = lastIndex > entriesMax ? lastIndex - entriesMax : 0
        let free = max(byEntries, lastMark(before: bytesMax))
        let held = max(min(free, needed ?? .max), lastMark(before: heldBytesMax))
        let point = min(durable, held)
        let isWorthIt =
            point > compacted
            && (point - compacted >= max(1, entriesMax / 4) || lastMark(before: bytesMax * 2) > compacted)
        guard isWorthIt else { return nil }
        while let first = marks.first, first.index <= point { marks.removeFirst() }
        return point
    }

    /// The last index behind which at least `bytes` follow; 0 when there are not so many.
    private func lastMark(before bytes: Int) -> Index {
        // Few: one a MiB of the log.
        marks.last { appendedBytes - $0.bytes >= bytes }?.index ?? 0
    }
}
