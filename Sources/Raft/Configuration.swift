/// One member as the configuration records it.
package struct Member: Equatable, Sendable {
    /// The name that people type: 1, 2, 3, ...
    package var id: UInt64
    /// The data directory behind that name.
    package var peer: PeerID
    /// `host:port`; the core passes it on unread.
    package var address: String
    /// A learner receives the log and neither votes nor counts.
    package var isLearner: Bool

    package init(id: UInt64, peer: PeerID, address: String, isLearner: Bool = false) {
        self.id = id
        self.peer = peer
        self.address = address
        self.isLearner = isLearner
    }
}

/// Who belongs to the cluster (section 6 of the paper). A member uses the latest one in its log, committed or not.
package struct Configuration: Equatable, Sendable {
    package let clusterID: UInt64
    /// Ascending by `id`.
    package let members: [Member]
    /// The voters of the old configuration while a joint one is in force; empty otherwise.
    package let outgoingVoters: [PeerID]
    package let voters: [PeerID]
    /// Everyone who must receive the log, in a fixed order.
    package let peers: [PeerID]

    package init(clusterID: UInt64, members: [Member], outgoingVoters: [PeerID] = []) {
        self.clusterID = clusterID
        self.members = members.sorted { $0.id < $1.id }
        self.outgoingVoters = outgoingVoters
        voters = self.members.filter { !$0.isLearner }.map(\.peer)
        let current = self.members.map(\.peer)
        peers = current + outgoingVoters.filter { !current.contains($0) }
    }

    package func member(_ peer: PeerID) -> Member? { members.first { $0.peer == peer } }

    package func otherVoters(than peer: PeerID) -> [Member] { members.filter { !$0.isLearner && $0.peer != peer } }

    /// Whether two majorities must agree, since the voters are being exchanged.
    package var isJoint: Bool { !outgoingVoters.isEmpty }

    package func isVoter(_ peer: PeerID) -> Bool {
        outgoingVoters.contains(peer) || voters.contains(peer)
    }

    /// Whether those for whom `holds` is true are a majority (of both configurations, while joint).
    package func isQuorum(_ holds: (PeerID) -> Bool) -> Bool {
        Quorum.isMajority(of: voters, holds) && (outgoingVoters.isEmpty || Quorum.isMajority(of: outgoingVoters, holds))
    }

    /// The largest value that a majority (of both configurations, while joint) has reached.
    package func quorumValue(_ value: (PeerID) -> UInt64) -> UInt64 {
        let current = Quorum.majorityValue(of: voters, value)
        return outgoingVoters.isEmpty ? current : min(current, Quorum.majorityValue(of: outgoingVoters, value))
    }
}
