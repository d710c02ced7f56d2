import NIOCore
import Raft
import WireProtocol

/// A change of who belongs to the cluster.
public enum MembershipChange: Equatable, Sendable {
    /// Take the member in that waits at the address (`banyand --join`): as a learner, which does not vote yet.
    case add(UInt64, address: String)
    /// Let the learner vote. It must have caught up.
    case promote(UInt64)
    case remove(UInt64)
    /// Let the member go whose directory is lost, and take the empty one in that waits under the same id, at the address
    /// (or at the one on record): as a learner.
    case replace(UInt64, address: String?)
    /// The member is found at another address from now on. It must answer there already.
    case setAddress(UInt64, address: String)

    var request: MembershipRequest {
        switch self {
        case .add(let id, let address): MembershipRequest(.add, id: id, address: address)
        case .promote(let id): MembershipRequest(.promote, id: id)
        case .remove(let id): MembershipRequest(.remove, id: id)
        case .replace(let id, let address): MembershipRequest(.replace, id: id, address: address ?? "")
        case .setAddress(let id, let address): MembershipRequest(.setAddress, id: id, address: address)
        }
    }
}

extension BanyanClient {
    /// Who belongs to the cluster, as its leader knows it.
    public func members() async throws -> [MemberRecord] {
        var body = try await send(.listMembers, ByteBuffer()).body
        guard body.readInteger(as: UInt16.self) == 0, let configuration = Configuration(from: &body) else {
            throw BanyanError.protocolViolation("the list of members can't be read")
        }
        return configuration.members.map {
            MemberRecord(id: $0.id, address: $0.address, isLearner: $0.isLearner, incarnation: $0.peer.rawValue)
        }
    }

    /// Changes the membership, and answers when that is committed. While another change is under way, or the leader is
    /// new, it waits, within the client's timeout.
    ///
    /// Several that let members vote or go take effect together; others come alone.
    public func change(_ changes: MembershipChange...) async throws { try await change(changes) }

    public func change(_ changes: [MembershipChange]) async throws {
        try await change(changes, within: timeoutDuration)
    }

    /// - Parameter limit: how long it may take, all tries together.
    package func change(_ changes: [MembershipChange], within limit: Duration) async throws {
        var body = ByteBuffer()
        for change in changes { change.request.write(to: &body) }
        let end = ContinuousClock.now + limit
        while true {
            let left = max(.milliseconds(1), end - ContinuousClock.now)
            var answer = try await send(.changeMembership, body, within: left).body
            guard let outcome = answer.readInteger(as: UInt16.self).flatMap(MembershipAnswer.init(rawValue:)) else {
                throw BanyanError.protocolViolation("the answer to a change of membership can't be read")
            }
            switch outcome {
            case .done: return
            case .notReady, .underWay, .notLeader:
                guard ContinuousClock.now < end else { throw BanyanError.membershipRefused(outcome.reason) }
                try await Task.sleep(for: .milliseconds(50))
            case .notCaughtUp: throw BanyanError.notCaughtUp
            case .unknownMember: throw BanyanError.noSuchMember
            default: throw BanyanError.membershipRefused(outcome.reason)
            }
        }
    }
}

extension MembershipAnswer {
    var reason: String {
        switch self {
        case .done: "done"
        case .notLeader, .notReady: "the leader is new or hands over; try again a little later"
        case .underWay: "an earlier change of the membership is not finished; try again a little later"
        case .alreadyMember: "the id or the address belongs to a member already; see 'banyan member list'"
        case .unknownMember: "no such member; see 'banyan member list'"
        case .notCaughtUp: "the learner has not caught up yet"
        case .lastVoter: "the last member that votes can't go: nothing would be left of the cluster"
        case .removesLeader: "the only member that votes leads, and can't go"
        case .unreachableMajority:
            "of the members that would vote no majority is heard now, so nothing could be committed; see 'banyan status'"
        case .tooManyMembers: "the cluster has as many members as it can have; remove one first"
        case .nobodyAnswers:
            "nobody answers at the address, or something that is no member; start banyand there first, with --join if it is new"
        case .anotherAnswers: "another member, or another directory, answers at the address than was asked for"
        case .belongsElsewhere:
            "whoever answers at the address belongs to another cluster; start it with an empty directory"
        case .votesAlready: "it votes already"
        case .olderProgram: "the program at the address does not know the cluster's version; start a newer one"
        }
    }
}
