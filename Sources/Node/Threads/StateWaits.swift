import Histogram
import Raft

/// How long requests wait for the state thread: from when they are handed to it until all that was handed to it with them is
/// executed. A flush that is behind shows here first.
struct StateWaits {
    private static let period: Nanoseconds = 10_000_000_000

    /// In microseconds.
    private var histogram = Histogram<UInt32>(numberOfSignificantValueDigits: .two)
    private var since: Nanoseconds

    init(now: Nanoseconds) { since = now }

    mutating func record(_ requests: Int, waited: Nanoseconds) {
        if requests > 0 { histogram.record(waited / 1000, count: UInt32(clamping: requests)) }
    }

    /// What 999 of 1,000 requests waited at most, in microseconds, once in ten seconds in which there were any.
    mutating func percentile(now: Nanoseconds) -> UInt64? {
        guard now - since >= Self.period else { return nil }
        since = now
        guard histogram.totalCount > 0 else { return nil }
        defer { histogram.reset() }
        return histogram.valueAtPercentile(99.9)
    }
}
