import Raft

/// When the others are asked about a leader that contradicts what was executed here.
struct Doubt {
    /// A sound leader's next append ends a forged contradiction before the others are asked.
    static let lastsMin: Nanoseconds = 2_000_000_000
    private static let pauseMax: Nanoseconds = 600_000_000_000

    private var since: Nanoseconds?
    private var isAsking = false
    private var notBefore: Nanoseconds = 0
    private var pause: Nanoseconds = 1_000_000_000

    /// Whether the others are to be asked now.
    mutating func asks(isContradicted: Bool, now: Nanoseconds) -> Bool {
        guard isContradicted else {
            since = nil
            return false
        }
        since = since ?? now
        guard !isAsking, now - (since ?? now) >= Self.lastsMin, now >= notBefore else { return false }
        isAsking = true
        return true
    }

    /// The others could not tell yet.
    mutating func learnedNothing(now: Nanoseconds) {
        isAsking = false
        notBefore = now + 1_000_000_000
    }

    /// There is no contradiction: whoever forges them makes this member ask seldom.
    mutating func wasUnfounded(now: Nanoseconds) {
        isAsking = false
        notBefore = now + pause
        pause = min(2 * pause, Self.pauseMax)
    }
}
