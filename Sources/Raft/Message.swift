/// What members say to each other. `term` is the sender's, except where a case says otherwise.
package struct Message: Equatable, Sendable {
    package var from: PeerID
    package var to: PeerID
    package var term: Term
    package var body: Body

    package init(from: PeerID, to: PeerID, term: Term, body: Body) {
        self.from = from
        self.to = to
        self.term = term
        self.body = body
    }

    package enum Body: Equatable, Sendable {
        /// "Would you vote for me?" (section 9.6 of the thesis). The message's term is the one that the sender would
        /// campaign in; it changes nobody's term.
        case preVote(lastIndex: Index, lastTerm: Term)
        /// A grant carries the asked term, a refusal the sender's own.
        case preVoteResponse(granted: Bool)
        /// `isTransfer`: the leader itself wants it, so that nobody has to wait for the leader to be silent.
        case vote(lastIndex: Index, lastTerm: Term, isTransfer: Bool = false)
        case voteResponse(granted: Bool)
        case append(Append)
        case appendResponse(AppendResponse)
        /// Keeps followers following and, by `round`, proves to the leader that it still leads.
        case heartbeat(commit: Index, round: UInt64)
        case heartbeatResponse(round: UInt64)
        /// A follower asks the leader for a read index. `context` is the follower's and never used twice.
        case readIndex(context: UInt64)
        /// `index` is nil when the leader can't serve it.
        case readIndexResponse(context: UInt64, index: Index?)
        /// The leader hands over: campaign at once (section 3.10 of the thesis).
        case timeoutNow
        /// The receiver has the whole snapshot (its bytes travelled beside the core) and may install it.
        case installSnapshot(SnapshotMetadata)
    }

    /// AppendEntries (figure 2 of the paper).
    package struct Append: Equatable, Sendable {
        package var previousIndex: Index
        package var previousTerm: Term
        package var commit: Index
        package var entries: [EntryHeader]
        /// The contents of those entries that are configurations, by index.
        package var configurations: [IndexedConfiguration]

        package init(
            previousIndex: Index, previousTerm: Term, commit: Index, entries: [EntryHeader],
            configurations: [IndexedConfiguration] = []
        ) {
            self.previousIndex = previousIndex
            self.previousTerm = previousTerm
            self.commit = commit
            self.entries = entries
            self.configurations = configurations
        }
    }

    package enum AppendResponse: Equatable, Sendable {
        /// The follower's log equals the leader's up to `match`, durably.
        case accepted(match: Index)
        /// The follower has no entry (`rejected`, previousTerm). Its log could agree with the leader's at
        /// `hintIndex`, which has `hintTerm` there, at the latest (section 5.3 of the paper, sped up).
        case rejected(Index, hintIndex: Index, hintTerm: Term)
    }
}

/// A configuration and the entry that brought it.
package struct IndexedConfiguration: Equatable, Sendable {
    package var index: Index
    package var configuration: Configuration

    package init(index: Index, configuration: Configuration) {
        self.index = index
        self.configuration = configuration
    }
}
