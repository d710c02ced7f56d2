import Driver
import Raft

/// The rounds in which all that is kept is read, and who waits for the next: a round answers everybody who asked before it
/// began.
struct Scrubbing {
    private(set) var isUnderWay = false
    private var endedAt: Nanoseconds
    private var isVerifying = false
    private var waiting: [Waiter] = []

    init(now: Nanoseconds) { endedAt = now }

    /// - Parameter interval: between two rounds that nobody asked for; 0: there are none.
    func isDue(interval: Nanoseconds, now: Nanoseconds) -> Bool {
        interval > 0 && !isUnderWay && now - endedAt >= interval
    }

    mutating func begins() { isUnderWay = true }

    mutating func ended(now: Nanoseconds) {
        isUnderWay = false
        endedAt = now
    }

    mutating func ask(_ waiter: Waiter) { waiting.append(waiter) }

    /// Those who wait for a round that may begin now; none while one that was asked for is under way.
    mutating func nextRound() -> [Waiter] {
        guard !isVerifying, !waiting.isEmpty else { return [] }
        isVerifying = true
        defer { waiting = [] }
        return waiting
    }

    /// The round that was asked for is over.
    mutating func answered() { isVerifying = false }

    mutating func closed(_ connection: UInt64) { waiting.removeAll { $0.connection == connection } }
}
