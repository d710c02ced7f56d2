import FileTree
import NIOCore
import Raft
import WireProtocol

/// What stands between the core and the outside, and needs no thread, socket or disk: the records of recent entries, promises
/// that wait for their writes, commands and reads on their way, and what a leader proposes of its own. Events in, actions out.
///
/// A member runs its actions on threads and sockets, the simulator on simulated ones: what a seed finds, it finds in the code
/// that runs in production.
package struct Driver {
    package internal(set) var core: RaftCore
    /// The state machine, as it was last told.
    package private(set) var state: Applied
    /// The last index that was handed out to be executed.
    package internal(set) var handedOut: Index

    private let mutant: Mutant?
    var window: EntryWindow
    var promises = Promises()
    private var clock = LogClock()
    var proposals = Proposals()
    var reads: Reads
    private var reclaiming = ReclaimSteps()
    private var version: ClusterVersion
    var early: EarlyPromises?
    var actions: [Action] = []

    /// - Parameters:
    ///   - core: as it was made from what the disk holds; none of its output was taken.
    ///   - state: the state machine, as the disk holds it.
    ///   - knownVersion: the newest cluster version that this program knows.
    ///   - context: where the contexts of reads begin: another number in each life of the process.
    package init(
        _ core: RaftCore, state: Applied, knownVersion: UInt16, context: UInt64, mutant: Mutant? = nil
    ) {
        self.core = core
        self.core.ownEntrySize = EntryRecord.size
        self.state = state
        self.mutant = mutant
        handedOut = core.applied
        window = EntryWindow(behind: core.log.lastIndex)
        reads = Reads(context: context)
        version = ClusterVersion(own: knownVersion)
        early = EarlyPromises(mutant)
    }

    /// The last write of the log that is on the disk.
    package var completedWrite: UInt64 { promises.completedWrite }

    // MARK: events

    /// Takes in an event. What it leads to is told by `takeActions`.
    ///
    /// - Parameters:
    ///   - records: of the entries that an append message brings, one behind the other.
    ///   - now: nanoseconds of a clock that never goes back.
    package mutating func step(_ event: Event, records: ByteBuffer? = nil, now: Nanoseconds) {
        if event.endsWhatWasWanted(in: core.term) { collect() }
        let (role, term, leader) = (core.role, core.term, core.leader)
        core.step(event, now: now)
        switch event {
        case .message(let message):
            switch message.body {
            case .append(let append):
                if let records, let first = core.takeAppended() {
                    window.take(append.entries, from: first, in: records, mutant: mutant)
                }
            // The window begins anew before anything is appended behind the snapshot.
            case .installSnapshot: collect()
            default: break
            }
        case .saved(let write):
            promises.completed(write)
            early?.completed(write)
            releasePromises()
        case .stateReplaced(let index): handedOut = index
        default: break
        }
        if core.role == .leader { window.keepOwnEntries(of: core.log, term: core.term) }
        if (role, term, leader) != (core.role, core.term, core.leader) { roleChanged(from: role, term) }
    }

    private mutating func roleChanged(from role: Role, _ term: Term) {
        if role == .leader, core.role != .leader || core.term != term {
            let waiters = proposals.abandon()
            if !waiters.isEmpty { actions.append(.abandon(waiters)) }
        }
        reclaiming = ReclaimSteps()
        version.raising = nil
        if core.role == .leader, role != .leader { clock.begin(at: core.now, from: state.logTime) }
    }

    /// The state machine has executed what was handed out.
    package mutating func executed(_ applied: Applied, now: Nanoseconds) {
        state = applied
        if core.role == .leader { clock.catchUp(with: applied.logTime, at: now) }
        step(.applied(applied.index), now: now)
    }

    /// The answer to `readEntries`: entries of the log from its first index on, and their records.
    package mutating func entriesRead(
        for peer: PeerID, _ entries: [EntryHeader], _ records: [ByteBuffer], now: Nanoseconds
    ) {
        collect()
        if let first = entries.first?.index { window.lend(records, from: first) }
        step(.entriesRead(peer: peer, entries: entries), now: now)
        collect()
        window.takeBack()
    }

    // MARK: writes

    /// Whether commands of clients are on their way.
    package var isProposing: Bool { !proposals.isEmpty }

    /// Whether there is anything to propose.
    package var isOffered: Bool { !proposals.offers.isEmpty }

    /// Takes a command, to be proposed with others.
    ///
    /// - Parameter deadline: when nobody waits any more, in nanoseconds.
    package mutating func offer(_ command: ByteBuffer, for waiter: Waiter, deadline: Nanoseconds) {
        proposals.offer(.init(command: command, proposer: .waiter(waiter), deadline: deadline))
    }

    /// Proposes all that was offered, together.
    ///
    /// - Parameter wallTime: nanoseconds since 1970, which files get for their modification times.
    package mutating func propose(now: Nanoseconds, wallTime: Int64) {
        guard !proposals.offers.isEmpty else { return }
        // One time for the question and the proposal: in between, a leader could find that it leads no more.
        step(.tick, now: now)
        if let refusal = core.proposalRefusal() { return decline(proposals.takeOffers(), refusal) }
        let late = proposals.expire(now: now)
        if !late.isEmpty { actions.append(.expire(late)) }
        let offers = proposals.takeOffers()
        let first = core.log.lastIndex + 1
        let logTime =
            mutant == .logTimeFromWallClock ? UInt64(max(0, wallTime)) / 1_000_000 : clock.logTime(at: now)
        let sizes = window.append(offers.map(\.command), from: first, term: core.term) { record, command in
            CommandHeader.stamp(&record, at: command, logTime: logTime, wallTime: wallTime)
        }
        for (offset, offer) in offers.enumerated() {
            let index = first + UInt64(offset)
            switch offer.proposer {
            case .waiter(let waiter): proposals.proposed(waiter, at: index)
            case .reclaiming: reclaiming.index = mutant == .reclaimingNotRepeated ? .max : index
            case .raising: version.raising = index
            }
        }
        step(.propose(sizes: sizes), now: now)
    }

    private mutating func decline(_ offers: [Proposals.Offer], _ refusal: ProposalRefusal) {
        let waiters = offers.compactMap(\.waiter)
        if !waiters.isEmpty { actions.append(.decline(waiters, refusal)) }
        if waiters.count < offers.count { (reclaiming, version.raising) = (ReclaimSteps(), nil) }
    }

    /// Whoever offered a command that was not proposed; they are forgotten.
    package mutating func withdraw() -> [Waiter] { proposals.takeOffers().compactMap(\.waiter) }

    /// Whoever waits for a command that was proposed; they are forgotten.
    package mutating func abandon() -> [Waiter] { proposals.abandon() }

    /// What a command that is proposed now says that log time is, in milliseconds: a leader's word; else the state's.
    package func logTime(now: Nanoseconds) -> UInt64 {
        core.role == .leader ? clock.logTime(at: now) : state.logTime
    }

    // MARK: what a leader proposes of its own

    /// Unlinked directories are emptied by commands of the leader, one at a time, so that clients' get in between. To be called
    /// often.
    package mutating func reclaimIfDue(now: Nanoseconds) {
        guard core.role == .leader, reclaiming.isDue(state.orphans > 0, applied: core.applied, now: now) else { return }
        proposals.offer(.reclaim)
    }

    /// What the program of a peer that is connected knows; nil when it is connected no more.
    package mutating func knows(_ peer: PeerID, clusterVersion: UInt16?) { version.knows(peer, clusterVersion) }

    /// Whether what is not supported now may be in a moment: a newer version is on its way, or a new leader has yet to hear what
    /// its peers know.
    package var mayRaiseVersion: Bool {
        guard core.role == .leader, version.own > state.clusterVersion else { return false }
        return core.applied < version.raising ?? 0 || core.now - clock.since < core.limits.electionTimeout
    }

    /// Brings the newest cluster version into force that every member knows.
    ///
    /// - Returns: that version, if there is anything to raise.
    package mutating func raiseVersionIfPossible() -> UInt16? {
        guard core.role == .leader, core.applied >= version.raising ?? 0,
            core.log.configurationIndex <= core.commit,
            let next = version.next(inForce: state.clusterVersion, core.configuration, self: core.id)
        else { return nil }
        version.raising = .max
        proposals.offer(.raise(to: next))
        return next
    }

    // MARK: reads

    /// Asks the core what these reads may not miss: all that was acknowledged before now.
    package mutating func read(_ reads: [PendingRead], isLease: Bool, now: Nanoseconds) {
        let context = self.reads.ask(.init(reads: reads, isLease: isLease, askedAt: now), mutant: mutant)
        step(isLease ? .leaseRead(context: context) : .readIndex(context: context), now: now)
    }

    /// Whether what was handed out is no older than `age`, by what is known; any age will do where it is 0.
    package func isFresh(_ age: Nanoseconds, now: Nanoseconds) -> Bool {
        reads.isFresh(age, now: now, handedOut: handedOut)
    }

    /// Takes out the reads whose clients wait no longer.
    package mutating func expireReads(now: Nanoseconds) -> [PendingRead] { reads.expire(now: now) }
}
