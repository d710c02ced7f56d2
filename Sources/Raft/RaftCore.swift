/// The Raft consensus algorithm as a value: it is stepped, never runs.
///
/// A driver owns one core. It passes in what happened (`step`), then takes what is to be done (`takeOutput`) and does
/// it, in any order that the fields of `Output` allow. The core has no clock, no random source of its own, does no I/O
/// and writes no log. The payloads of entries stay with the driver, which keeps those from `log.windowFirst` on in
/// memory.
///
/// One concern a file: `Election`, `Heartbeat`, `Replication`, `Commitment`, `Quorum`, `ReadIndex`, `Lease`, `SnapshotInstallation`, `Membership`,
/// `LeadershipTransfer`; and against what the paper does not know: `Sanity`, `StalledDisk`, `Bounds`.
package struct RaftCore: Sendable {
    package let id: PeerID
    /// The cluster that this member belongs to; its log may tell of the one that it was recovered from.
    let clusterID: UInt64
    package let limits: Limits
    let mutant: Mutant?

    // MARK: Figure 2 of the paper: the state that is saved

    package internal(set) var term: Term
    package internal(set) var vote: PeerID?
    package internal(set) var log: LogView

    // MARK: the state that is not

    package internal(set) var role: Role = .follower
    package internal(set) var leader: PeerID?
    package internal(set) var commit: Index
    /// Executed by the state machine.
    package internal(set) var applied: Index
    /// Handed out to be executed.
    var dispatched: Index

    // MARK: time

    package internal(set) var now: Nanoseconds
    var generator: SeededGenerator
    /// When to ask for votes, unless a leader speaks first.
    var electionDeadline: Nanoseconds = 0
    /// When this member last heard a leader; at its start it may have heard one just before.
    var leaderContact: Nanoseconds
    var heartbeatDeadline: Nanoseconds = 0

    // MARK: a candidate's

    var granted: [PeerID] = []
    var refused: [PeerID] = []
    /// The write that saves the vote for itself; it counts when that is complete.
    var voteWrite: UInt64 = 0

    // MARK: a leader's

    /// Bytes of the record of an entry that this core makes itself: one that brings a configuration, or, nil, none. The record
    /// is the driver's, and so is the word for its size.
    package var ownEntrySize: @Sendable (Configuration?) -> UInt32 = { _ in 0 }
    /// The last term that this member led.
    var ledTerm: Term = 0
    package internal(set) var peers: [Progress] = []
    var uncommittedBytes = 0
    var reads = ReadQueue()
    var lease = Lease()
    var transfer: Transfer?
    /// Whom this leader is handing over to.
    package var transferTarget: PeerID? { transfer?.target }

    // MARK: a follower's

    /// Reads that the leader was asked for and has not answered, in the order of their times.
    var forwardedReads: [(context: UInt64, since: Nanoseconds)] = []
    /// The last entry that the leader of this term was seen to have as well; beyond it, a heartbeat commits nothing. It falls
    /// when the log is truncated.
    var confirmedIndex: Index = 0
    /// Who that leader is.
    var confirmedBy: PeerID?
    /// How far its log reaches by what it has sent in this term.
    var leaderEnd: Index = 0
    /// When this member last took in many terms at once.
    var steppedAt: Nanoseconds?
    /// Where the log of this term's leader differs from what is committed here. One of the two has executed what the cluster
    /// never decided, or somebody lies in the leader's name: who runs this member has to find out. Meanwhile that leader is
    /// answered, but does not keep this member from electing another.
    package internal(set) var contradictedFrom: Index?
    /// How often this member may be told to campaign.
    var handOversTaken = Allowance(every: 1_000_000_000, burst: 8)
    /// What this member knows of its own disk's pace.
    var disk = DiskPace()

    // MARK: what is on the way to the disk

    var savedHardState: HardState
    /// The term that is on the disk for certain.
    var durableTerm: Term
    /// A write that was handed out and is not complete.
    struct PendingWrite: Sendable {
        var number: UInt64
        /// The first index whose content it changes.
        var firstTouched: Index
        var term: Term
        /// When the first of what it holds came up.
        var began: Nanoseconds
    }
    var pendingWrites: [PendingWrite] = []
    var lastWrite: UInt64 = 0
    /// The write being gathered in this turn, and since when.
    var touched: Index?
    var touchedAt: Nanoseconds = 0
    var truncates = false
    var installing: (snapshot: SnapshotMetadata, keepsTail: Bool)?
    var needsWrite = false

    var output = Output()
    /// Where the last append message changed this log from.
    var appendedFrom: Index?

    /// A core as it was when the process ended.
    ///
    /// - Parameters:
    ///   - applied: what the durable state has executed; at least `log.compactedIndex`.
    ///   - seed: draws the election timeouts; different for each member.
    ///   - mutant: a fault to plant. Only the simulator does.
    package init(
        id: PeerID, hardState: HardState, log: LogView, applied: Index, limits: Limits = Limits(), seed: UInt64,
        now: Nanoseconds, mutant: Mutant? = nil
    ) {
        precondition(applied >= log.compactedIndex, "the log was compacted past the durable state")
        precondition(applied <= log.lastIndex, "the state is ahead of the log")
        self.id = id
        clusterID = log.configuration.clusterID
        self.limits = limits
        self.mutant = mutant
        term = hardState.term
        vote = hardState.vote
        self.log = log
        commit = min(max(hardState.commit, applied), log.lastIndex)
        self.applied = applied
        dispatched = applied
        self.now = now
        leaderContact = now
        generator = SeededGenerator(seed: seed)
        savedHardState = hardState
        durableTerm = hardState.term
        noteConfiguration()
        resetElectionTimer()
        advanceApply()
        checkInvariants()
    }

    package var configuration: Configuration { log.configuration }
    package var hardState: HardState { HardState(term: term, vote: vote, commit: commit) }

    /// The largest index that this member has on its disk for certain: nothing that is still being written touched it
    /// or anything before it, be it by an append or by a truncation.
    package var durableIndex: Index {
        pendingWrites.reduce(min(log.lastIndex, (touched ?? .max) - 1)) { min($0, $1.firstTouched - 1) }
    }

    /// Why nothing can be proposed now, or nil.
    package func proposalRefusal() -> ProposalRefusal? {
        guard role == .leader else { return .notLeader(leader: leader) }
        let isFull =
            transfer != nil || uncommittedBytes >= limits.uncommittedBytesMax
            || log.bytes(in: applied + 1..<commit + 1) >= limits.unappliedBytesMax
        return isFull ? .busy : nil
    }

    /// Takes in one event.
    package mutating func step(_ event: Event, now: Nanoseconds) {
        if case .leaseRead = event, mutant == .leaseKeptAfterPause {
            // Time stands still.
        } else {
            self.now = max(self.now, now)
        }
        // A leader that was stopped for a while must notice before it acts on anything.
        if role == .leader { stepDownWithoutQuorum() }
        switch event {
        case .tick: tick()
        case .message(let message): handle(message)
        case .propose(let sizes): propose(sizes)
        case .readIndex(let context): requestRead(context)
        case .leaseRead(let context): readByLease(context)
        case .saved(let write): saved(write)
        case .applied(let index): applied = max(applied, index)
        case .stateReplaced(let index): replaceState(index)
        case .entriesRead(let peer, let entries): entriesRead(peer, entries: entries)
        case .compact(let index): log.compact(through: min(index, applied))
        case .snapshotEnded(let peer, let installed): snapshotEnded(peer, installed: installed)
        case .unreachable(let peer): lostContact(to: peer)
        case .changeMembership(let changes): changeMembership(changes)
        case .transferLeadership(let peer): transferLeadership(to: peer)
        }
        // A leader's entries wait in memory for their clients' answers; a follower's can be read again from the disk.
        log.shrinkWindow(
            bytesMax: limits.windowBytesMax, through: role == .leader ? min(dispatched, durableIndex) : durableIndex)
        advanceApply()
        continueTransfer()
        checkInvariants()
    }

    /// What the steps since the last call want done.
    package mutating func takeOutput() -> Output {
        if needsWrite || touched != nil || installing != nil || hardState.term != savedHardState.term
            || hardState.vote != savedHardState.vote
        {
            emitWrite()
        }
        var taken = Output()
        swap(&taken, &output)
        return taken
    }

    /// The first entry that the last append message brought into this log, if it brought any: from there on the driver
    /// replaces its payloads by the message's.
    package mutating func takeAppended() -> Index? {
        defer { appendedFrom = nil }
        return appendedFrom
    }

    // MARK: the disk

    /// Gathers the entries from `index` on into the next write.
    mutating func touch(_ index: Index) {
        if touched == nil { touchedAt = now }
        touched = min(touched ?? .max, index)
    }

    /// The number that the write being gathered will get.
    var nextWrite: UInt64 { lastWrite + 1 }

    /// The write that makes everything so far durable: the one being gathered, if there is one, else the last.
    var coveringWrite: UInt64 {
        let gathers =
            touched != nil || installing != nil || needsWrite || term != savedHardState.term
            || vote != savedHardState.vote
        return gathers ? nextWrite : lastWrite
    }

    private mutating func emitWrite() {
        lastWrite += 1
        let first = touched ?? log.lastIndex + 1
        output.write = Write(
            number: lastWrite, hardState: hardState, snapshot: installing?.snapshot,
            keepsTail: installing?.keepsTail ?? false, truncates: truncates, entries: first..<log.lastIndex + 1)
        // Until a snapshot is installed, nothing of the log that follows it is certain.
        pendingWrites.append(
            PendingWrite(
                number: lastWrite, firstTouched: installing == nil ? first : 1, term: term,
                began: touched == nil ? now : touchedAt))
        savedHardState = hardState
        touched = nil
        truncates = false
        installing = nil
        needsWrite = false
    }

    private mutating func saved(_ write: UInt64) {
        let complete = pendingWrites.firstIndex { $0.number > write } ?? pendingWrites.count
        if complete > 0 {
            durableTerm = pendingWrites[complete - 1].term
            disk.completed(in: now - pendingWrites[complete - 1].began, limits)
            pendingWrites.removeFirst(complete)
        }
        if role == .candidate, voteWrite <= write, !granted.contains(id) { countVote(of: id, isGranted: true) }
        if role == .leader { advanceCommitIndex() }
    }

    // MARK: messages

    mutating func send(_ body: Message.Body, to peer: PeerID, term: Term? = nil) {
        output.messages.append(Message(from: id, to: peer, term: term ?? self.term, body: body))
    }

    /// Sends a promise: something that must not be forgotten after a power cut.
    mutating func promise(_ body: Message.Body, to peer: PeerID) {
        let message = Message(from: id, to: peer, term: term, body: body)
        output.messagesAfterWrite.append(HeldMessage(write: coveringWrite, message: message))
    }

    private mutating func handle(_ message: Message) {
        precondition(message.to == id, "a message for \(message.to) reached \(id)")
        // A configuration that this log has yet to bring may name the sender: a leader or a candidate of it is heard, or the
        // cluster could stand still (section 4.1 of the thesis).
        guard configuration.peers.contains(message.from) || message.body.isForStrangers else { return }
        if let kind = offence(in: message) { return offended(by: message.from, kind) }
        if message.term > term {
            // Who leads speaks of other things first.
            if message.body == .timeoutNow { return offended(by: message.from, .unexpectedHandOver) }
            guard admitNewTerm(of: message) else { return }
        } else if message.term < term {
            answerOldTerm(of: message)
            return
        }
        // A term has one leader. Whoever led it itself knows that for good, others until it is silent for so long that they ask
        // for votes.
        if message.body.isFromLeader, ledTerm == term || (leader != nil && leader != message.from) {
            return offended(by: message.from, .secondLeader)
        }
        switch message.body {
        case .preVote(let lastIndex, let lastTerm):
            handlePreVote(lastIndex: lastIndex, lastTerm: lastTerm, for: message.term, from: message.from)
        case .preVoteResponse(let isGranted):
            handlePreVoteResponse(isGranted: isGranted, for: message.term, from: message.from)
        case .vote(let lastIndex, let lastTerm, let isTransfer):
            handleVote(lastIndex: lastIndex, lastTerm: lastTerm, isTransfer: isTransfer, from: message.from)
        case .voteResponse(let isGranted): handleVoteResponse(isGranted: isGranted, from: message.from)
        case .append(let append): handleAppend(append, from: message.from)
        case .appendResponse(let response): handleAppendResponse(response, from: message.from)
        case .heartbeat(let commit, let round): handleHeartbeat(commit: commit, round: round, from: message.from)
        case .heartbeatResponse(let round): handleHeartbeatResponse(round: round, from: message.from)
        case .readIndex(let context): handleReadIndex(context, from: message.from)
        case .readIndexResponse(let context, let index): handleReadIndexResponse(context, index: index)
        case .timeoutNow: handleTimeoutNow(from: message.from)
        case .installSnapshot(let snapshot): handleInstallSnapshot(snapshot, from: message.from)
        }
    }

    mutating func offended(by peer: PeerID, _ kind: Offence.Kind) {
        output.offences.append(Offence(peer: peer, term: term, kind: kind))
    }

    /// The sender speaks for the leader of this term.
    mutating func follow(_ peer: PeerID) {
        precondition(role != .leader, "a leader follows nobody in its term")
        if role.isCampaigning || leader != peer { becomeFollower(term: term, leader: peer) }
        if confirmedBy != peer, mutant != .confirmedIndexKept {
            confirmedIndex = 0
            leaderEnd = 0
            confirmedBy = peer
        }
        heardLeader()
    }

    /// Nobody else is needed for another while. Whoever contradicts what is committed here is no leader to count on.
    mutating func heardLeader() {
        guard contradictedFrom == nil else { return }
        leaderContact = now
        resetElectionTimer()
    }
}

extension Message.Body {
    /// Whether it is heard from whoever says it.
    var isForStrangers: Bool {
        switch self {
        case .preVote, .vote: true
        default: isFromLeader
        }
    }

    /// Only a term's leader sends these.
    var isFromLeader: Bool {
        switch self {
        case .append, .heartbeat, .timeoutNow, .installSnapshot: true
        default: false
        }
    }
}
