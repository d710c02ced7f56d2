/// Reads without a round of messages: leases, section 6.4.1 of the thesis. They are served on request alone, since they
/// trust clocks.
///
/// The assumption: while one member's clock advances by an election timeout, no other's falls behind it by more than a
/// quarter of that. (Only rates matter; the clocks need not agree on the time, and they must run on through a pause.)
/// Then, after a majority answered a heartbeat that left at `t`, nobody else is elected before `t` + 3/4 of an election
/// timeout by the leader's clock: a voter that heard its leader, or has just started, gives no vote for an election
/// timeout.
///
/// A leader that has told another to campaign gave that promise away for the rest of its term, and one that changes the
/// membership has it confirmed anew.
struct Lease: Sendable {
    /// Heartbeats that no majority has answered yet.
    private var sent: [(round: UInt64, at: Nanoseconds)] = []
    /// When the last heartbeat left that a majority answered.
    private var confirmedAt: Nanoseconds?
    private var isGivenAway = false

    mutating func sent(round: UInt64, at now: Nanoseconds) { sent.append((round, now)) }

    mutating func confirmed(round: UInt64) {
        let answered = sent.prefix { $0.round <= round }
        if let last = answered.last { confirmedAt = last.at }
        sent.removeFirst(answered.count)
    }

    /// Other voters count from now on.
    mutating func restart() { confirmedAt = nil }

    mutating func giveAway() { isGivenAway = true }

    func holds(at now: Nanoseconds, _ limits: Limits) -> Bool {
        guard let confirmedAt, !isGivenAway else { return false }
        return now - confirmedAt < limits.electionTimeout / 4 * 3
    }
}

extension RaftCore {
    /// Answers at once: with the commit index while the lease holds, else with nil.
    mutating func readByLease(_ context: UInt64) {
        let isHeld = role == .leader && transfer == nil && hasCommittedInTerm && lease.holds(at: now, limits)
        output.readStates.append(ReadState(context: context, index: isHeld ? commit : nil))
    }
}
