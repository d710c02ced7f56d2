/// A corner of the core that runs rarely reach: how often they did shows whether a hunt looked there.
package enum Branch: String, CaseIterable, Sendable {
    /// A follower's log lost a tail.
    case truncation
    /// A configuration was undone with its entry.
    case configurationUndone = "configuration undone"
    /// A configuration was joint.
    case joint
    /// A change of membership was refused because the leader had committed nothing in its term.
    case changeNotReady = "change refused: leader is new"
    case changeUnderWay = "change refused: another is under way"
    case notCaughtUp = "promotion refused: not caught up"
    case unreachableMajority = "change refused: majority out of reach"
    /// A snapshot was installed and the log behind it stayed, or went.
    case tailKept = "snapshot kept the tail"
    case tailDropped = "snapshot dropped the tail"
    /// Entries had left the memory when a peer needed them.
    case readFromDisk = "entries read from the disk"
    case leaseRead = "read by lease"
    case leaseRefused = "lease refused"
    /// A write was sent again in its session, and answered.
    case repeated = "write repeated"
    case sessionEnded = "session ended"
    /// A leader handed over.
    case handedOver = "handed over"
    /// A member that votes no more, since its disk lost what it had, was replaced.
    case replaced
}
