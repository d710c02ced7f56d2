import FileTree
import Raft

/// Log time: what sessions grow old by, alike on all members. A leader writes it into its commands, and it goes on from the
/// state's by the leader's clock, which runs evenly but says nothing of the date.
package struct LogClock {
    /// When this leadership began, in nanoseconds.
    package private(set) var since: Nanoseconds = 0
    /// The state's log time then, in milliseconds.
    private var start: UInt64 = 0

    package init() {}

    package mutating func begin(at now: Nanoseconds, from logTime: UInt64) { (since, start) = (now, logTime) }

    /// In milliseconds, `CommandHeader.logTimeMax` at the most.
    package func logTime(at now: Nanoseconds) -> UInt64 {
        min(start + (max(now, since) - since) / 1_000_000, CommandHeader.logTimeMax)
    }
}
