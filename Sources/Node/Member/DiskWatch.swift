import Raft

/// What a member tells of its own disk when that stands still: once when it does, once when it works again, and each time
/// that this member gave its lead away for it.
struct DiskWatch {
    enum Event: Equatable {
        case standsStill
        case worksAgain(after: Nanoseconds)
        case handedOver
    }

    /// A write that takes so long is worth a line; what is quicker is a busy disk.
    static let toldAfter: Nanoseconds = 1_000_000_000

    /// How often the log was committed: entries by commits is how well one sync is shared.
    private(set) var commits: UInt64 = 0
    private var stoodStillSince: Nanoseconds?
    private var gaveWayAt: Nanoseconds = 0

    mutating func committed() { commits += 1 }

    /// - Parameters:
    ///   - began: when the oldest write that is not on the disk began.
    ///   - gaveWayAt: when this member last gave way; 0: never.
    mutating func look(oldestWriteBegan began: Nanoseconds?, gaveWayAt: Nanoseconds, now: Nanoseconds) -> [Event] {
        var events: [Event] = []
        if let since = stoodStillSince, began.map({ $0 > since }) ?? true {
            stoodStillSince = nil
            events.append(.worksAgain(after: now - since))
        }
        if let began, stoodStillSince == nil, now - began >= Self.toldAfter {
            stoodStillSince = began
            events.append(.standsStill)
        }
        if gaveWayAt != self.gaveWayAt { events.append(.handedOver) }
        self.gaveWayAt = gaveWayAt
        return events
    }
}
