/// What happens to a core.
package enum Event: Sendable {
    /// Time went on.
    case tick
    /// A message arrived. Its sender and its addressee were checked against the connection's hello.
    case message(Message)
    /// The driver offers commands, in order. Only while `proposalRefusal` is nil; they get the next indexes.
    case propose(sizes: [UInt32])
    /// The driver wants to serve reads; one `ReadState` with this context will follow. Never use a context twice.
    case readIndex(context: UInt64)
    /// The same, trusting clocks: the `ReadState` follows in this turn, with no index when this member has no lease.
    case leaseRead(context: UInt64)
    /// The log writer finished this write and all before it: they are on the disk.
    case saved(write: UInt64)
    /// The state machine executed everything up to here.
    case applied(Index)
    /// The state machine took the place of its state by another member's, of all that was executed up to here: the log has what
    /// follows. Never before the log's start, nor beyond what is committed and durable; take the output first.
    case stateReplaced(Index)
    /// The answer to an `EntriesRequest`: the entries that the log holds from its first index on.
    case entriesRead(peer: PeerID, entries: [EntryHeader])
    /// Entries up to here were covered by the durable state, and may leave the log.
    case compact(through: Index)
    /// A transfer that was asked for by `snapshotsToSend` ended; `installed` is the index of the snapshot that the peer
    /// confirmed, or nil when the transfer broke off.
    case snapshotEnded(peer: PeerID, installed: Index?)
    /// Change who belongs to the cluster. Only while `membershipRefusal` of the changes is nil.
    case changeMembership([MembershipChange])
    /// Hand leadership over to this voter, or to whoever is best. See `transferTarget` for what comes of it.
    case transferLeadership(to: PeerID?)
    /// Messages to the peer may have been lost: its connection broke.
    case unreachable(peer: PeerID)
}

/// What a core wants done. Take it after each turn; each field says when it may be acted on.
package struct Output: Sendable {
    /// Hand it to the log writer at once; writes complete in the order of their numbers.
    package var write: Write?
    /// May leave now, even before `write` is on the disk: the leader's own write runs in parallel with replication
    /// (section 10.2.1 of the thesis).
    package var messages: [Message] = []
    /// Promises: each may leave only when its write (which may be an earlier one than `write`) is complete.
    package var messagesAfterWrite: [HeldMessage] = []
    /// May be executed now: committed, and durable on this member. Applying what is committed elsewhere but not on
    /// this disk would leave the state ahead of the log after a power cut.
    package var apply: ClosedRange<Index>?
    /// Reads that may be served once everything up to their index is executed.
    package var readStates: [ReadState] = []
    /// Entries to read from the log for a follower that lags behind the window.
    package var entriesToRead: [EntriesRequest] = []
    /// Messages that no sound member sends. They were ignored; whoever runs the cluster should know of them.
    package var offences: [Offence] = []
    /// Peers that need a snapshot. Answer each with `snapshotEnded`.
    package var snapshotsToSend: [PeerID] = []

    package init() {}

    package var isEmpty: Bool {
        write == nil && messages.isEmpty && messagesAfterWrite.isEmpty && apply == nil && readStates.isEmpty
            && entriesToRead.isEmpty && snapshotsToSend.isEmpty && offences.isEmpty
    }
}

/// What a peer's message showed to be wrong with the peer: its disk, its program, or who it is.
package struct Offence: Equatable, Sendable {
    package enum Kind: String, CaseIterable, Sendable {
        /// It says that it leads the term in which this member leads.
        case secondLeader = "it claims to lead in this leader's own term"
        /// It would overwrite what is committed.
        case overwritesCommitted = "it would overwrite what is committed"
        /// No number of elections leads to its term. A member that says so often stands beyond the gap itself.
        case leap = "its term is far beyond the one on this member's disk"
        /// It holds entries, or answers heartbeats, that this leader never sent.
        case answersUnsent = "it answers what this leader never sent"
        /// Its entries bring members that no single change leads to.
        case unrelatedConfiguration = "its configuration does not follow from the one before"
        /// Indexes or terms that contradict each other, or lie beyond all bounds.
        case impossibleNumber = "its indexes or terms are impossible"
        /// It speaks in the name of the member that it speaks to.
        case ownName = "it claims to be this member itself"
        /// Only the leader of the term tells others to campaign.
        case unexpectedHandOver = "it hands over what it does not lead"
        /// An entry that this program could not execute.
        case unknownOperation = "it brings an entry whose operation this program does not know"
        /// A digest of an index that this member does not remember, or from one who does not answer it.
        case unaskedDigest = "it tells a digest that nobody asked for"
        /// Not a message of this protocol, or a record whose checksum does not match.
        case unreadable = "it can't be read"
        /// More often than a sound member has reason to.
        case tooOften = "it asks too often"
    }

    package var peer: PeerID
    package var term: Term
    package var kind: Kind

    package init(peer: PeerID, term: Term, kind: Kind) {
        self.peer = peer
        self.term = term
        self.kind = kind
    }
}

/// One numbered change of what is on the disk: the hard state, and the tail of the log.
package struct Write: Equatable, Sendable {
    /// Grows by one a write, over the life of the process. Completions name it: index and term alone are not enough,
    /// since an entry can be overwritten and come back.
    package var number: UInt64
    package var hardState: HardState
    /// Install this snapshot first: the state that it holds takes the present one's place, and of the log only what
    /// follows its index stays, if `keepsTail`, else nothing.
    package var snapshot: SnapshotMetadata?
    package var keepsTail = false
    /// Erase what the log holds at and after `entries.lowerBound` before appending.
    package var truncates = false
    /// The entries to append; empty when only the hard state changes.
    package var entries: Range<Index>

    package init(
        number: UInt64, hardState: HardState, snapshot: SnapshotMetadata? = nil, keepsTail: Bool = false,
        truncates: Bool = false, entries: Range<Index>
    ) {
        self.number = number
        self.hardState = hardState
        self.snapshot = snapshot
        self.keepsTail = keepsTail
        self.truncates = truncates
        self.entries = entries
    }
}

package struct HeldMessage: Equatable, Sendable {
    package var write: UInt64
    package var message: Message
}

/// The answer to a read-index request.
package struct ReadState: Equatable, Sendable {
    package var context: UInt64
    /// Nil when the cluster could not confirm it: ask again, nothing was read.
    package var index: Index?
}

/// Entries that the core no longer remembers the sizes of.
package struct EntriesRequest: Equatable, Sendable {
    package var peer: PeerID
    package var first: Index
    package var last: Index
    /// Stop before the entry that would exceed this, but read one at least.
    package var bytesMax: Int
}

package enum Role: String, Sendable {
    /// Receives the log, and neither votes nor counts.
    case learner
    case follower
    /// Asks whether it could win an election, before it begins one (section 9.6 of the thesis).
    case preCandidate = "pre-candidate"
    case candidate
    case leader

    /// Whether it asks for votes, or whether it should.
    package var isCampaigning: Bool { self == .preCandidate || self == .candidate }
}

/// Why a proposal can't be taken now. Each proves that nothing was proposed.
package enum ProposalRefusal: Error, Equatable, Sendable {
    /// Go to `leader`, if one is known.
    case notLeader(leader: PeerID?)
    /// As much as allowed is under way already.
    case busy
}
