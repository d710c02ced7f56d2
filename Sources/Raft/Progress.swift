/// How far a leader believes one peer to be.
package struct Progress: Sendable {
    package enum State: Equatable, Sendable {
        /// Where the logs meet is not known: one message at a time.
        case probe
        /// They have met: messages follow each other without waiting. Only a refusal leads back to `probe`; silence does not.
        case replicate
        /// The peer needs entries that the log no longer holds; a snapshot is on its way.
        case snapshot
        /// The peer's log seems to end before what it once acknowledged: its directory was restored from an old copy.
        /// It gets no entries, only heartbeats and a probe now and then, and its acknowledgements count for nothing.
        case regressed
    }

    package let peer: PeerID
    package internal(set) var state = State.probe
    /// The peer holds everything up to here durably.
    package internal(set) var match: Index = 0
    /// The next entry to send.
    package internal(set) var next: Index
    /// The last entry that was sent.
    private(set) var sentThrough: Index
    /// In `probe`: a message is unanswered.
    private(set) var isProbeSent = false
    /// When the peer was last asked where it stands, by a probe or by an empty append.
    var askedAt: Nanoseconds = 0
    /// In `replicate`: the connection broke, and nothing more is sent until the peer has said where it stands.
    private var mayHaveLost = false
    /// How often it may ask for a read index: a follower asks once a turn of its loop.
    var questions = Allowance(every: 50_000, burst: 20_000)
    /// The reader was asked for entries from `next` on.
    var isReading = false
    /// When the peer last answered in this term.
    package internal(set) var lastContact: Nanoseconds
    /// The latest heartbeat round that the peer answered.
    var round: UInt64 = 0
    /// Unanswered messages: the last index and the bytes of each, and when it was sent.
    private(set) var inFlight: [(last: Index, bytes: Int, sentAt: Nanoseconds)] = []
    private(set) var bytesInFlight = 0
    /// When the latest of those messages was sent whose entries the peer holds durably.
    private(set) var acknowledgedSendAt: Nanoseconds = 0
    /// When something was first sent after all was answered, or something was last accepted.
    private var lastMovement: Nanoseconds

    init(peer: PeerID, next: Index, now: Nanoseconds) {
        self.peer = peer
        self.next = next
        sentThrough = next - 1
        lastContact = now
        lastMovement = now
    }

    /// Whether a peer that is there has said nothing of its log for an election timeout.
    func isSilent(now: Nanoseconds, _ limits: Limits) -> Bool {
        switch state {
        case .probe: isProbeSent && now - askedAt >= limits.electionTimeout
        case .replicate:
            now - askedAt >= limits.electionTimeout
                && (mayHaveLost || now - lastMovement >= limits.electionTimeout)
        case .snapshot, .regressed: false
        }
    }

    func isPaused(_ limits: Limits) -> Bool {
        switch state {
        case .probe: isProbeSent || isReading
        case .replicate:
            isReading || mayHaveLost || inFlight.count >= limits.messagesInFlightMax
                || bytesInFlight >= limits.bytesInFlightMax
        case .snapshot, .regressed: true
        }
    }

    mutating func become(_ state: State, next: Index) {
        self.state = state
        self.next = next
        sentThrough = next - 1
        isProbeSent = false
        mayHaveLost = false
        isReading = false
        inFlight.removeAll(keepingCapacity: true)
        bytesInFlight = 0
    }

    mutating func sent(last: Index, bytes: Int, now: Nanoseconds) {
        if inFlight.isEmpty { lastMovement = now }
        next = last + 1
        sentThrough = last
        inFlight.append((last, bytes, now))
        bytesInFlight += bytes
    }

    /// A probe left, with entries up to `last`.
    mutating func probed(through last: Index, now: Nanoseconds) {
        isProbeSent = true
        sentThrough = last
        askedAt = now
    }

    /// Nothing is sent before the peer gives a sign of life.
    mutating func waitForSign(now: Nanoseconds) {
        isProbeSent = true
        askedAt = now
    }

    /// What was on the way may be lost.
    mutating func lostConnection() {
        if state == .replicate { mayHaveLost = true }
        askedAt = 0
    }

    /// The peer holds everything up to `index`. False when that was known.
    mutating func accepted(_ index: Index, now: Nanoseconds) -> Bool {
        lastMovement = now
        let answered = inFlight.firstIndex { $0.last > index } ?? inFlight.count
        for position in 0..<answered {
            bytesInFlight -= inFlight[position].bytes
            acknowledgedSendAt = max(acknowledgedSendAt, inFlight[position].sentAt)
        }
        if answered > 0 { inFlight.removeFirst(answered) }
        if index >= sentThrough { mayHaveLost = false }
        if state == .replicate { next = max(next, index + 1) }
        sentThrough = max(sentThrough, next - 1)
        guard index > match else { return false }
        match = index
        return true
    }

    /// The peer, whose log ends at `lastIndex` or later, refused to append after `index`. False when the refusal is an
    /// old one.
    mutating func rejected(_ index: Index, agreesAt hint: Index, lastIndex: Index, now: Nanoseconds) -> Bool {
        switch state {
        case .probe where isAnswer(index) && lastIndex < match:
            become(.regressed, next: next)
            return false
        case .replicate:
            guard index > match || lastIndex < match, index <= sentThrough else { return false }
            become(.probe, next: max(min(index, hint + 1), match + 1))
        case .probe:
            guard isAnswer(index) else { return false }
            // It holds something else than what it acknowledged, and would refuse the next probe as well: who asked at once
            // would ask for ever.
            guard index > match else {
                waitForSign(now: now)
                return false
            }
            become(.probe, next: max(min(index, hint + 1), match + 1))
        case .snapshot, .regressed:
            return false
        }
        return true
    }

    /// Whether a refusal to append after `index` answers the probe, or the question behind it.
    private func isAnswer(_ index: Index) -> Bool { isProbeSent && (next == index + 1 || sentThrough == index) }
}
