import Raft

/// The pace of a leader's reclaiming: a step, and then a rest as long as the step took, so that half of the time belongs to
/// clients whatever the load.
struct ReclaimSteps {
    /// Of the command that was proposed last; `.max` until it has one. The next step waits for it, and not for what clients
    /// propose behind it.
    var index: Index = 0
    private var beganAt: Nanoseconds?
    private var restsUntil: Nanoseconds = 0

    init() {}

    /// Whether the next step is to be proposed; it counts as begun then. To be asked often, for the end of a step shows here.
    mutating func isDue(_ hasOrphans: Bool, applied: Index, now: Nanoseconds) -> Bool {
        guard applied >= index else { return false }
        if let began = beganAt { (beganAt, restsUntil) = (nil, now + (now - began)) }
        guard hasOrphans, now >= restsUntil else { return false }
        (index, beganAt) = (.max, now)
        return true
    }
}
