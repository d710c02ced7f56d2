/// Times and sizes that bound a core. All members of a cluster should agree on the times.
package struct Limits: Sendable {
    /// A follower that hears nothing waits this long, and up to twice as long by chance, before it asks for votes.
    /// The default keeps a failover (a timeout, three rounds of messages, three syncs) within half a second, mostly.
    package var electionTimeout: Nanoseconds = 250_000_000
    /// How often a leader speaks to silent followers.
    package var heartbeatInterval: Nanoseconds = 50_000_000
    /// The most bytes of entries in one message; one larger entry still passes alone.
    package var messageBytesMax = 1 << 20
    /// The most unanswered append messages to a peer.
    package var messagesInFlightMax = 128
    /// The most unanswered bytes to a peer.
    package var bytesInFlightMax = 4 << 20
    /// The most uncommitted bytes of a leader, beyond which it is busy.
    package var uncommittedBytesMax = 16 << 20
    /// The most bytes committed but not yet applied.
    package var unappliedBytesMax = 16 << 20
    /// The most entries handed out for execution and not yet applied.
    package var unappliedEntriesMax: UInt64 = 65_536
    /// The most recent entries kept in memory, in bytes; their buffers may hold twice as many.
    package var windowBytesMax = 8 << 20
    /// The most read requests that wait for a leader's first commit or for a round.
    package var pendingReadsMax = 65_536

    /// A leader whose own write is on its way to the disk for so long hands over, if another's disk does better. Longer than
    /// two batches on a disk whose every sync takes 300 ms.
    package var writeLateAfter: Nanoseconds = 2_000_000_000
    /// A write that took less shows that the disk works again.
    package var writeQuickWithin: Nanoseconds = 500_000_000

    /// The largest index: indexes are revisions, which people read by programs whose numbers have 53 bits.
    package static let indexMax: Index = (1 << 53) - 1
    /// The largest term: arithmetic on it must not overflow.
    package static let termMax: Term = 1 << 62
    /// The most terms that can pass while a member is away: an election every second, for half a year.
    package static let termLeapMax: Term = 1 << 24
    /// Of more terms than this at once, a member takes in one step in a while: whoever was away needs one, and many of them
    /// in a row would leave behind who misses some.
    package static let termStepMax: Term = 1 << 16
    package static let termStepPause: Nanoseconds = 10_000_000_000
    /// A snapshot's index lies below this, or so far at most behind what its receiver's log has: some are left, whoever lied.
    /// A member without a log has nothing to lose, and takes any.
    package static let snapshotIndexMax: Index = 1 << 52
    package static let snapshotAheadMax: Index = 1 << 50

    package init() {}
}
