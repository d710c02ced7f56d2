import NIOCore
import Raft

/// A configuration, as an entry's payload, in snapshots and in the state:
///
///     0  2  format: 1
///     2  8  cluster id
///     10 2  how many members, and of each:
///           id (8), incarnation (8), 1 if it is a learner else 0 (1), address (length 2, bytes)
///     .  2  how many outgoing voters, and of each its incarnation (8)
extension Configuration {
    package func write(to buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(UInt16(1), clusterID, UInt16(members.count))
        for member in members {
            buffer.writeMultipleIntegers(member.id, member.peer.rawValue, UInt8(member.isLearner ? 1 : 0))
            buffer.writeText(member.address)
        }
        buffer.writeInteger(UInt16(outgoingVoters.count))
        for voter in outgoingVoters { buffer.writeInteger(voter.rawValue) }
    }

    /// Nil when the bytes are not a configuration of this format.
    package init?(from buffer: inout ByteBuffer) {
        guard let (format, cluster, count) = buffer.readMultipleIntegers(as: (UInt16, UInt64, UInt16).self), format == 1
        else { return nil }
        var members: [Member] = []
        for _ in 0..<count {
            guard let (id, peer, learner) = buffer.readMultipleIntegers(as: (UInt64, UInt64, UInt8).self),
                let address = buffer.readText()
            else { return nil }
            members.append(Member(id: id, peer: PeerID(peer), address: address, isLearner: learner != 0))
        }
        guard let outgoing = buffer.readInteger(as: UInt16.self) else { return nil }
        var voters: [PeerID] = []
        for _ in 0..<outgoing {
            guard let voter = buffer.readInteger(as: UInt64.self) else { return nil }
            voters.append(PeerID(voter))
        }
        self.init(clusterID: cluster, members: members, outgoingVoters: voters)
    }

    /// The form in which people write it: `1=host:port,2=host:port`.
    package var text: String { members.map { "\($0.id)=\($0.address)" }.joined(separator: ",") }
}
