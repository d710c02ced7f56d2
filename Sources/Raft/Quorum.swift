/// Arithmetic of majorities.
package enum Quorum {
    package static func isMajority(of voters: [PeerID], _ holds: (PeerID) -> Bool) -> Bool {
        voters.count { holds($0) } > voters.count / 2
    }

    /// The largest value that more than half of `voters` have reached; 0 without voters.
    package static func majorityValue(of voters: [PeerID], _ value: (PeerID) -> UInt64) -> UInt64 {
        if voters.isEmpty { return 0 }
        return voters.map(value).sorted(by: >)[voters.count / 2]
    }
}
