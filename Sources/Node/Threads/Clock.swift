import Glibc
import Raft

/// The two clocks of a member.
package enum Clock {
    /// `CLOCK_BOOTTIME`: runs on while the process is stopped or the machine sleeps, so that an old leader notices.
    static var now: Nanoseconds { read(CLOCK_BOOTTIME) }

    /// Nanoseconds since 1970, for mtimes and for where a new cluster's revisions begin: no cluster that runs depends on it.
    package static var wall: Int64 { Int64(read(CLOCK_REALTIME)) }

    private static func read(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        let result = clock_gettime(clock, &time)
        precondition(result == 0, "the system has no clock \(clock)")
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
