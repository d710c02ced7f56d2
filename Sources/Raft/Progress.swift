/// How far a leader believes one peer to be.
package struct Progress: Sendable {
    package enum State: Equatable, Sendable {
        /// Where the logs meet is not known: one message at a time.
        case probe
        /// They have met: messages follow each other without waiting.
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
    /// In `probe`: a message is unanswered. Once it is an election timeout old, a heartbeat's answer allows the next.
    var isProbeSent = false
    /// When that message was sent.
    var probeSentAt: Nanoseconds = 0
    /// The reader was asked for entries from `next` on.
    var isReading = false
    /// When the peer last answered in this term.
    package internal(set) var lastContact: Nanoseconds
    /// The latest heartbeat round that the peer answered.
    var round: UInt64 = 0
    /// Unanswered messages: the last index and the bytes of each.
    private(set) var inFlight: [(last: Index, bytes: Int)] = []
    private(set) var bytesInFlight = 0
    /// When something was first sent after all was answered, or something was last accepted.
    private var lastMovement: Nanoseconds

    init(peer: PeerID, next: Index, now: Nanoseconds) {
        self.peer = peer
        self.next = next
        lastContact = now
        lastMovement = now
    }

    func isStalled(now: Nanoseconds, _ limits: Limits) -> Bool {
        state == .replicate && now - lastMovement > limits.electionTimeout
    }

    func isPaused(_ limits: Limits) -> Bool {
        switch state {
        case .probe: isProbeSent || isReading
        case .replicate:
            isReading || inFlight.count >= limits.messagesInFlightMax || bytesInFlight >= limits.bytesInFlightMax
        case .snapshot, .regressed: true
        }
    }

    mutating func become(_ state: State, next: Index) {
        self.state = state
        self.next = next
        isProbeSent = false
        isReading = false
        inFlight.removeAll(keepingCapacity: true)
        bytesInFlight = 0
    }

    mutating func sent(last: Index, bytes: Int, now: Nanoseconds) {
        if inFlight.isEmpty { lastMovement = now }
        next = last + 1
        inFlight.append((last, bytes))
        bytesInFlight += bytes
    }

    /// The peer holds everything up to `index`. False when that was known.
    mutating func accepted(_ index: Index, now: Nanoseconds) -> Bool {
        lastMovement = now
        let answered = inFlight.prefix { $0.last <= index }.count
        for message in inFlight.prefix(answered) { bytesInFlight -= message.bytes }
        inFlight.removeFirst(answered)
        isProbeSent = false
        next = max(next, index + 1)
        guard index > match else { return false }
        match = index
        return true
    }

    /// The peer, whose log ends at `lastIndex` or later, refused to append after `index`. False when the refusal is an
    /// old one.
    mutating func rejected(_ index: Index, agreesAt hint: Index, lastIndex: Index) -> Bool {
        switch state {
        case .probe where next == index + 1 && lastIndex < match:
            become(.regressed, next: next)
            return false
        case .replicate:
            guard index > match else { return false }
            become(.probe, next: match + 1)
        case .probe:
            guard next == index + 1 else { return false }
            become(.probe, next: max(min(index, hint + 1), match + 1))
        case .snapshot, .regressed:
            return false
        }
        return true
    }
}
