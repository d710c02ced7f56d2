import FileTree
import Raft

/// Log time: what sessions grow old by, alike on all members. A leader writes it into its commands, and it goes on from the
/// state's by the leader's clock, which runs evenly but says nothing of the date.
struct LogClock {
    /// When this leadership began, in nanoseconds.
    private(set) var since: Nanoseconds = 0
    /// The state's log time then, in milliseconds.
    private var start: UInt64 = 0

    init() {}

    mutating func begin(at now: Nanoseconds, from logTime: UInt64) { (since, start) = (now, logTime) }

    /// In milliseconds, `CommandHeader.logTimeMax` at the most.
    func logTime(at now: Nanoseconds) -> UInt64 {
        min(start + (max(now, since) - since) / 1_000_000, CommandHeader.logTimeMax)
    }
}
