import NIOCore
import Raft

/// A client's request to change the membership: one of these, or several that let members vote or go, which take effect
/// together.
///
///     0   1  what: 1 add, 2 promote, 3 remove, 4 replace, 5 set address
///     1   8  member id
///     9   .  address (length 2, bytes); empty where the change needs none, or the one on record will do
package struct MembershipRequest: Equatable, Sendable {
    package enum Kind: UInt8, Sendable { case add = 1, promote, remove, replace, setAddress }

    package var kind: Kind
    package var id: UInt64
    package var address: String

    package init(_ kind: Kind, id: UInt64, address: String = "") {
        self.kind = kind
        self.id = id
        self.address = address
    }

    package func write(to buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(kind.rawValue, id)
        buffer.writeText(address)
    }

    /// Nil when the bytes are no request.
    package init?(from buffer: inout ByteBuffer) {
        guard let (kind, id) = buffer.readMultipleIntegers(as: (UInt8, UInt64).self), let kind = Kind(rawValue: kind),
            id > 0, let address = buffer.readText(),
            // What is recorded is given to clients and to the other members, which must be able to connect there.
            address.isEmpty || Address(address)?.isWildcard == false
        else { return nil }
        self.init(kind, id: id, address: address)
    }

    /// The requests that `buffer` holds; nil when it holds anything else.
    package static func readAll(from buffer: ByteBuffer) -> [MembershipRequest]? {
        var buffer = buffer
        var requests: [MembershipRequest] = []
        while buffer.readableBytes > 0 {
            guard let request = MembershipRequest(from: &buffer) else { return nil }
            requests.append(request)
        }
        let isOne = requests.count == 1
        return isOne || (!requests.isEmpty && requests.allSatisfy { $0.kind == .promote || $0.kind == .remove })
            ? requests : nil
    }
}

/// Why a change of membership was refused; nothing was changed. On the wire a code (2; 0 is success), after the codes of
/// `MembershipRefusal`:
package enum MembershipAnswer: UInt16, Equatable, Sendable {
    case done = 0
    case notLeader = 1, notReady, underWay, alreadyMember, unknownMember, notCaughtUp, lastVoter, removesLeader
    case unreachableMajority, tooManyMembers
    /// At the address nobody answers.
    case nobodyAnswers = 32
    /// Whoever answers there is another member than the one named, or has another directory.
    case anotherAnswers = 33
    /// Whoever answers there belongs to a cluster already.
    case belongsElsewhere = 34
    /// Its program does not know the cluster's version.
    case olderProgram = 35
    /// The member is no learner.
    case votesAlready = 36

    package init(_ refusal: MembershipRefusal) {
        self =
            switch refusal {
            case .notLeader: .notLeader
            case .notReady: .notReady
            case .underWay: .underWay
            case .alreadyMember: .alreadyMember
            case .unknownMember: .unknownMember
            case .notCaughtUp: .notCaughtUp
            case .lastVoter: .lastVoter
            case .removesLeader: .removesLeader
            case .unreachableMajority: .unreachableMajority
            case .tooManyMembers: .tooManyMembers
            }
    }
}
