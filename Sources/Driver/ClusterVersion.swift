import Raft

/// Which cluster version may be in force: the newest that the program of every member knows.
struct ClusterVersion {
    /// What this member's program knows.
    let own: UInt16
    /// What the peers know that are connected.
    private(set) var peers: [PeerID: UInt16] = [:]
    /// Of the command that raises it: `.max` until it has an index, nil when there is none.
    var raising: Index?

    init(own: UInt16) { self.own = own }

    mutating func knows(_ peer: PeerID, _ version: UInt16?) { peers[peer] = version }

    /// The version to raise the cluster's to, if all of its members know a newer one than is in force.
    func next(inForce: UInt16, _ configuration: Configuration, self id: PeerID) -> UInt16? {
        let known = configuration.members.map { $0.peer == id ? own : peers[$0.peer] ?? 0 }
        return known.min().flatMap { $0 > inForce ? $0 : nil }
    }
}
