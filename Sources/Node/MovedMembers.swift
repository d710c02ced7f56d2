import Raft
import WireProtocol

/// Members whose addresses are other ones than the configuration records, by `--cluster` at the start of a directory that knows
/// its cluster: members that all moved at once can't elect a leader, and only a leader can record where they are.
///
/// The links go by these addresses until the configuration records others; the leader records them as soon as there is one.
package struct MovedMembers: Sendable, Equatable {
    private struct Move: Sendable, Equatable {
        let id: UInt64
        let from: String
        let to: String
    }

    private var moves: [Move] = []

    package init() {}

    var isEmpty: Bool { moves.isEmpty }

    /// What a list at start means.
    enum Meaning: Equatable {
        /// It says what is known.
        case nothing
        /// These moved.
        case moved(MovedMembers)
        /// It was given before, and the configuration has changed since, or was the first one's: what is recorded counts.
        case outdated
    }

    /// - Parameters:
    ///   - founders: the list that the directory was first started with, and which may stand in a script for ever.
    ///   - kept: the last list that counted as moves, and the index of the configuration then.
    static func meaning(
        of list: [(id: UInt64, address: Address)], founders: String, kept: (text: String, index: Index)?,
        _ configuration: Configuration, at index: Index
    ) -> Meaning {
        var moved = MovedMembers()
        for listed in list {
            guard let member = configuration.members.first(where: { $0.id == listed.id }) else { continue }
            let address = listed.address.description
            if member.address != address { moved.moves.append(Move(id: member.id, from: member.address, to: address)) }
        }
        guard !moved.isEmpty else { return .nothing }
        let text = ServerOptions.text(of: list)
        if text == founders { return .outdated }
        if let kept, kept.text == text, kept.index != index { return .outdated }
        return .moved(moved)
    }

    /// Where the member is, by all that is known.
    func address(of member: Member) -> String {
        moves.first { $0.id == member.id && $0.from == member.address }?.to ?? member.address
    }

    /// What the leader is to record next: one member at a time, of those that it hears at their new addresses.
    func change(for configuration: Configuration, isHeard: (PeerID) -> Bool) -> MembershipChange? {
        for member in configuration.members where isHeard(member.peer) {
            let address = address(of: member)
            // An address that another member still has on record is free once that one's is recorded.
            if address != member.address, !configuration.members.contains(where: { $0.address == address }) {
                return .setAddress(member.peer, address)
            }
        }
        return nil
    }
}
