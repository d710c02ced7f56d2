/// What no sound member says, whatever happened to it: a message like that is an offence, named and without effect.
///
/// Crashes, delays and partitions make messages late, doubled or lost, never absurd. What is absurd comes from a broken
/// disk, a broken program, or somebody who is no member. Nothing here looks at who the sender is: that is for the
/// connection to prove. Indexes have no bound but the largest revision, since who was away may lack any number of
/// entries.
extension RaftCore {
    /// What is wrong with the message by itself or beside what is on this member's disk, or nil.
    func offence(in message: Message) -> Offence.Kind? {
        if message.from == id { return .ownName }
        if isLeap(to: message.term) { return .leap }
        let term = message.term
        switch message.body {
        case .preVote(let lastIndex, let lastTerm), .vote(let lastIndex, let lastTerm, _):
            // Whoever campaigns in a term has nothing of that term yet.
            return lastIndex > Limits.indexMax || lastTerm >= term ? .impossibleNumber : nil
        case .append(let append):
            return offence(in: append, of: term)
        case .appendResponse(.accepted(let match)):
            return match > Limits.indexMax ? .impossibleNumber : nil
        case .appendResponse(.rejected(let index, let hintIndex, let hintTerm)):
            return index > Limits.indexMax || hintIndex > index || hintTerm > term ? .impossibleNumber : nil
        case .heartbeat(let commit, _):
            return commit > Limits.indexMax ? .impossibleNumber : nil
        case .readIndexResponse(_, let index):
            return index ?? 0 > Limits.indexMax ? .impossibleNumber : nil
        case .installSnapshot(let snapshot):
            let indexMax =
                log.lastIndex == 0
                ? Limits.indexMax : max(Limits.snapshotIndexMax, log.lastIndex + Limits.snapshotAheadMax)
            if snapshot.index > min(indexMax, Limits.indexMax) || snapshot.term > term { return .impossibleNumber }
            return snapshot.configuration.isSound ? nil : .unrelatedConfiguration
        case .preVoteResponse, .voteResponse, .heartbeatResponse, .readIndex, .timeoutNow:
            return nil
        }
    }

    /// Whether the term lies so far beyond the one on this member's disk that no number of elections explains it.
    ///
    /// It is the disk's term that counts, so that many small steps take as many writes. A member without a term has none
    /// to leap from.
    private func isLeap(to newTerm: Term) -> Bool {
        if newTerm > Limits.termMax { return true }
        guard durableTerm > 0, newTerm > durableTerm, mutant != .leapAdmitted else { return false }
        if newTerm - durableTerm > Limits.termLeapMax { return true }
        guard newTerm > term, let steppedAt else { return false }
        return newTerm - term > Limits.termStepMax && now - steppedAt < Limits.termStepPause
    }

    /// An append's entries follow each other, in terms that never fall nor exceed the leader's, and each configuration
    /// among them is there.
    private func offence(in append: Message.Append, of term: Term) -> Offence.Kind? {
        guard append.previousIndex <= Limits.indexMax, append.commit <= Limits.indexMax, append.previousTerm <= term
        else { return .impossibleNumber }
        // Every entry of every append passes here: one answer for all of them costs a branch less for each.
        var last = (index: append.previousIndex, term: append.previousTerm)
        var outOfOrder = 0
        var configurations = 0
        for entry in append.entries {
            outOfOrder &+= (entry.index == last.index &+ 1 ? 0 : 1) &+ (entry.term >= last.term ? 0 : 1)
            configurations &+= entry.kind == .configuration ? 1 : 0
            last = (entry.index, entry.term)
        }
        guard outOfOrder == 0, last.term <= term, last.index <= Limits.indexMax else { return .impossibleNumber }
        guard configurations > 0 || !append.configurations.isEmpty else { return nil }
        let brought = append.entries.lazy.filter { $0.kind == .configuration }.map(\.index)
        return brought.elementsEqual(append.configurations.lazy.map(\.index)) ? nil : .unrelatedConfiguration
    }

    /// Whether the configurations that an append brings from `first` on follow from each other, and the first of them from
    /// the one before it.
    func configurationsFollow(_ append: Message.Append, from first: Index) -> Bool {
        guard !append.configurations.isEmpty else { return true }
        let known = log.configurations(in: 0..<first).last
        // The one that a newcomer began with came from its cluster's present; its log brings the past.
        var previous = known.map { $0.index == 0 ? nil : $0.configuration } ?? log.configuration(at: first - 1)
        for next in append.configurations where next.index >= first {
            guard next.configuration.isSound else { return false }
            if let previous, !next.configuration.canFollow(previous, in: clusterID) { return false }
            previous = next.configuration
        }
        return true
    }
}

extension Configuration {
    /// The most members of a cluster.
    package static let membersMax = 64

    /// The longest address, in bytes: a host's name and a port have room.
    private static let addressBytesMax = 300

    /// Whether it can be anybody's: a voter at least, and no name or directory twice.
    package var isSound: Bool {
        func areDistinct(_ numbers: [UInt64]) -> Bool {
            let sorted = numbers.sorted()
            return zip(sorted, sorted.dropFirst()).allSatisfy { $0 < $1 }
        }
        return !voters.isEmpty && members.count <= Self.membersMax && outgoingVoters.count <= Self.membersMax
            && areDistinct(members.map(\.id)) && areDistinct(members.map(\.peer.rawValue))
            && areDistinct(outgoingVoters.map(\.rawValue))
            && !(members.map(\.peer) + outgoingVoters).contains(PeerID(0))
            && members.allSatisfy { member in
                member.address.utf8.count <= Self.addressBytesMax
                    && member.address.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F }
            }
    }

    /// Whether a leader's log may bring it right after `previous`: it changes nothing, lets at most one voter come or go and
    /// at most one member move, begins or ends a joint configuration (section 6 of the paper), or is the one with which a recovery began this
    /// cluster.
    func canFollow(_ previous: Configuration, in cluster: UInt64) -> Bool {
        if self == previous { return true }
        if clusterID != previous.clusterID { return clusterID == cluster && members.count == 1 && !isJoint }
        if previous.isJoint { return !isJoint && members == previous.members }
        if isJoint { return outgoingVoters.sorted() == previous.voters.sorted() }
        let moved =
            voters.count { !previous.voters.contains($0) } + previous.voters.count { !voters.contains($0) }
        let readdressed = previous.members.count { old in member(old.peer).map { $0.address != old.address } ?? false }
        return moved <= 1 && readdressed <= 1
    }
}

/// So many events at once, and then one each interval: what a peer may ask for at most.
package struct Allowance: Sendable {
    let interval: Nanoseconds
    let burst: UInt64
    /// When everything taken so far will have been earned.
    private var earnedAt: Nanoseconds = 0

    package init(every interval: Nanoseconds, burst: UInt64) {
        self.interval = interval
        self.burst = burst
    }

    /// Whether one more is allowed now.
    package mutating func take(now: Nanoseconds) -> Bool {
        let from = max(earnedAt, now)
        guard from - now < interval * burst else { return false }
        earnedAt = from + interval
        return true
    }
}
