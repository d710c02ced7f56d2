/// Linearizable reads without writing to the log: section 6.4 of the thesis.
///
/// A read may be served from the state at index `i` if `i` was the commit index of a leader that proved, after the read
/// arrived, that it still led. The proof is a round of heartbeats: a majority answered a heartbeat that left after the
/// read came in. Rounds are numbered over the life of the process, whatever the term, so that no old answer can confirm
/// a new read.
struct ReadQueue: Sendable {
    struct Read: Sendable {
        var context: UInt64
        /// Who asked; nil for this member's own driver.
        var peer: PeerID?
    }
    struct Round: Sendable {
        var number: UInt64
        var index: Index
        var reads: [Read]
    }
    /// Came before the term's first commit.
    var waiting: [Read] = []
    /// Ascending by number, and so by index.
    var rounds: [Round] = []
    var lastRound: UInt64 = 0
}

extension RaftCore {
    /// Whether this leader knows what is committed (section 6.4, step 1).
    var hasCommittedInTerm: Bool { log.term(at: commit) == term }

    mutating func requestRead(_ context: UInt64) {
        if role == .leader {
            enqueueRead(ReadQueue.Read(context: context, peer: nil))
        } else if let leader, forwardedReads.count < limits.pendingReadsMax {
            forwardedReads.append((context, now))
            send(.readIndex(context: context), to: leader)
        } else {
            output.readStates.append(ReadState(context: context, index: nil))
        }
    }

    mutating func handleReadIndex(_ context: UInt64, from peer: PeerID) {
        guard role == .leader else {
            send(.readIndexResponse(context: context, index: nil), to: peer)
            return
        }
        // Each question costs a round of heartbeats.
        guard let position = position(of: peer) else { return }
        guard peers[position].questions.take(now: now) else { return offended(by: peer, .tooOften) }
        enqueueRead(ReadQueue.Read(context: context, peer: peer))
    }

    private mutating func enqueueRead(_ read: ReadQueue.Read) {
        if reads.waiting.count + reads.rounds.count >= limits.pendingReadsMax {
            answer(read, index: nil)
        } else if mutant == .unconfirmedRead {
            answer(read, index: commit)
        } else if !hasCommittedInTerm, mutant != .noNoOperation {
            reads.waiting.append(read)
        } else {
            startRound([read])
        }
    }

    private mutating func startRound(_ round: [ReadQueue.Read]) {
        reads.rounds.append(ReadQueue.Round(number: reads.lastRound + 1, index: commit, reads: round))
        broadcastHeartbeat()
    }

    mutating func releaseReadsAfterFirstCommit() {
        guard !reads.waiting.isEmpty, hasCommittedInTerm else { return }
        let waiting = reads.waiting
        reads.waiting = []
        startRound(waiting)
    }

    mutating func confirmReads() {
        let confirmed = configuration.quorumValue { $0 == id ? reads.lastRound : progress(of: $0)?.round ?? 0 }
        lease.confirmed(round: confirmed)
        while let first = reads.rounds.first, first.number <= confirmed {
            reads.rounds.removeFirst()
            for read in first.reads { answer(read, index: first.index) }
        }
    }

    private mutating func answer(_ read: ReadQueue.Read, index: Index?) {
        if let peer = read.peer {
            send(.readIndexResponse(context: read.context, index: index), to: peer)
        } else {
            output.readStates.append(ReadState(context: read.context, index: index))
        }
    }

    mutating func handleReadIndexResponse(_ context: UInt64, index: Index?) {
        guard let position = forwardedReads.firstIndex(where: { $0.context == context }) else { return }
        forwardedReads.remove(at: position)
        output.readStates.append(ReadState(context: context, index: index))
    }

    /// The question or its answer was lost: the driver asks again, with another context.
    mutating func expireForwardedReads() {
        while let oldest = forwardedReads.first, now - oldest.since >= limits.electionTimeout {
            handleReadIndexResponse(oldest.context, index: nil)
        }
    }

    /// Whoever leads no more, or lost its leader, can confirm nothing that it was asked before.
    mutating func refuseReads() {
        for round in reads.rounds { for read in round.reads { answer(read, index: nil) } }
        for read in reads.waiting { answer(read, index: nil) }
        reads.rounds = []
        reads.waiting = []
        for (context, _) in forwardedReads { output.readStates.append(ReadState(context: context, index: nil)) }
        forwardedReads = []
    }
}
