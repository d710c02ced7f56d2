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

    /// A list of members that a member was started with, and what the cluster had recorded when it was given first. It may
    /// stand in a script for ever: of a member that the cluster has recorded elsewhere since, it says nothing any more.
    struct Given: Equatable {
        let text: String
        let recorded: String
    }

    /// What the list says of members whose addresses are recorded otherwise.
    ///
    /// - Parameter last: the list of the last start that had one; at first the founders'.
    /// - Returns: who moved, and whether the list is outdated in others.
    static func moves(
        in list: [ListedMember], last: Given, _ configuration: Configuration
    ) -> (moved: MovedMembers, isOutdated: Bool) {
        let isRepeated = MemberList.text(of: list) == last.text
        let before = MemberList.recorded(last.recorded)
        var moved = MovedMembers()
        var isOutdated = false
        for listed in list {
            guard let member = configuration.members.first(where: { $0.id == listed.id }),
                member.address != listed.address.description
            else { continue }
            if isRepeated, before.first(where: { $0.id == member.id })?.address.description != member.address {
                isOutdated = true
            } else {
                moved.moves.append(Move(id: member.id, from: member.address, to: listed.address.description))
            }
        }
        return (moved, isOutdated)
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
