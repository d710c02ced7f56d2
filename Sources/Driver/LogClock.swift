import FileTree
import Raft

/// Log time: what sessions grow old by, alike on all members. A leader writes it into its commands, and it goes on from the
/// state's by the leader's clock, which runs evenly but says nothing of the date.
struct LogClock {
    /// When this leadership began, in nanoseconds.
    private(set) var since: Nanoseconds = 0
    /// A log time in milliseconds, and when it was.
    private var start: (logTime: UInt64, at: Nanoseconds) = (0, 0)

    init() {}

    mutating func begin(at now: Nanoseconds, from logTime: UInt64) { (since, start) = (now, (logTime, now)) }

    /// An entry of an earlier leader's was executed, which says a later time: it goes on from there.
    mutating func catchUp(with logTime: UInt64, at now: Nanoseconds) {
        if logTime > self.logTime(at: now) { start = (logTime, now) }
    }

    /// In milliseconds, `CommandHeader.logTimeMax` at the most.
    func logTime(at now: Nanoseconds) -> UInt64 {
        min(start.logTime + (max(now, start.at) - start.at) / 1_000_000, CommandHeader.logTimeMax)
    }
}
