import NIOCore

/// The versions of the protocol that this program speaks.
package enum ProtocolVersion {
    package static let lowest: UInt16 = 1
    package static let highest: UInt16 = 1
}

/// What a connection's messages are about, so that nothing urgent waits behind bulk.
package enum Lane: UInt8, Sendable, CaseIterable {
    /// Votes, heartbeats, read index, answers.
    case control = 0
    case append = 1
    case snapshot = 2
}

/// The first frame of whoever opens a connection.
///
///     0   4  "BNYN"
///     4   2  the lowest version spoken      6  2  the highest
///     8   1  role: 1 client, 2 peer         9  1  lane (peers): 0 control, 1 append, 2 snapshot
///     10  1  1 if the directory is empty and waits for its cluster, else 0
///     11  1  zero
///     12  8  cluster id (0: none yet, or a client that takes any)
///     20  8  member id       28  8  incarnation      (clients: zero)
///     36  .  the list of members, as a text of the form 1=host:port,2=host:port (length 2, bytes); empty for clients, and
///           for a peer that waits to be taken in by a running cluster
package struct Hello: Equatable, Sendable {
    package enum Role: UInt8, Sendable { case client = 1, peer = 2 }

    static let magic: UInt32 = 0x424E_594E

    package var versions: ClosedRange<UInt16> = ProtocolVersion.lowest...ProtocolVersion.highest
    package var role: Role
    package var lane: Lane = .control
    package var isBootstrapping = false
    package var clusterID: UInt64 = 0
    package var memberID: UInt64 = 0
    package var incarnation: UInt64 = 0
    package var members = ""

    package init(role: Role) { self.role = role }

    package func write(to buffer: inout ByteBuffer) {
        buffer.writeFrame(.hello) { body in
            body.writeMultipleIntegers(Self.magic, versions.lowerBound, versions.upperBound)
            body.writeMultipleIntegers(role.rawValue, lane.rawValue, UInt8(isBootstrapping ? 1 : 0), UInt8(0))
            body.writeMultipleIntegers(clusterID, memberID, incarnation)
            body.writeText(members)
        }
    }

    package init(_ frame: Frame) throws(ProtocolError) {
        var body = frame.body
        guard frame.kind == .hello, body.readInteger(as: UInt32.self) == Self.magic else { throw .wrongMagic }
        guard let (low, high) = body.readMultipleIntegers(as: (UInt16, UInt16).self), low <= high,
            let (role, lane, flag, reserved) = body.readMultipleIntegers(as: (UInt8, UInt8, UInt8, UInt8).self),
            let role = Role(rawValue: role), let lane = Lane(rawValue: lane),
            let (cluster, member, incarnation) = body.readMultipleIntegers(as: (UInt64, UInt64, UInt64).self),
            let members = body.readText(), reserved == 0, flag <= 1, body.readableBytes == 0
        else { throw .malformedBody(.hello) }
        versions = low...high
        self.role = role
        self.lane = lane
        isBootstrapping = flag != 0
        clusterID = cluster
        memberID = member
        self.incarnation = incarnation
        self.members = members
    }

    /// Whether it is of a member that waits for a running cluster to take it in: it has no say in the list of members.
    package var isNewcomer: Bool { role == .peer && isBootstrapping && members.isEmpty }

    /// The version to speak: the highest that both know, or nil.
    package var commonVersion: UInt16? {
        let version = min(versions.upperBound, ProtocolVersion.highest)
        return version >= max(versions.lowerBound, ProtocolVersion.lowest) ? version : nil
    }
}

/// The answer to a hello.
///
///     0   2  the version that is spoken from now on       2  1  as in the hello: 1 = waits for its cluster
///     3   1  the highest cluster version that the sender knows
///     4   8  cluster id     12  8  member id     20  8  incarnation
///     28  4  the longest body of a frame, in bytes
///     32  4  the longest content of a file in one write
///     36  4  the most requests of one connection that may be unanswered
///     40  .  the list of members, as in the hello
package struct Welcome: Equatable, Sendable {
    /// The most unanswered requests of one connection; more are answered "busy".
    package static let requestsInFlightMax: UInt32 = 4096

    package var version: UInt16 = ProtocolVersion.highest
    package var isBootstrapping = false
    package var clusterID: UInt64
    package var memberID: UInt64
    package var incarnation: UInt64
    /// The highest cluster version whose commands the sender can execute.
    package var knownVersion: UInt8 = 1
    package var contentBytesMax: UInt32
    package var members: String

    package init(clusterID: UInt64, memberID: UInt64, incarnation: UInt64, contentBytesMax: UInt32, members: String) {
        self.clusterID = clusterID
        self.memberID = memberID
        self.incarnation = incarnation
        self.contentBytesMax = contentBytesMax
        self.members = members
    }

    package func write(to buffer: inout ByteBuffer) {
        buffer.writeFrame(.welcome) { body in
            body.writeMultipleIntegers(version, UInt8(isBootstrapping ? 1 : 0), knownVersion)
            body.writeMultipleIntegers(clusterID, memberID, incarnation)
            body.writeMultipleIntegers(UInt32(Frame.bodyBytesMax), contentBytesMax, Self.requestsInFlightMax)
            body.writeText(members)
        }
    }

    package init(_ frame: Frame) throws(ProtocolError) {
        var body = frame.body
        guard frame.kind == .welcome,
            let (version, flag, known) = body.readMultipleIntegers(as: (UInt16, UInt8, UInt8).self),
            let (cluster, member, incarnation) = body.readMultipleIntegers(as: (UInt64, UInt64, UInt64).self),
            let (_, content, _) = body.readMultipleIntegers(as: (UInt32, UInt32, UInt32).self),
            let members = body.readText()
        else { throw .malformedBody(.welcome) }
        self.init(
            clusterID: cluster, memberID: member, incarnation: incarnation, contentBytesMax: content, members: members)
        self.version = version
        isBootstrapping = flag != 0
        knownVersion = known
    }
}

/// The last frame before the sender closes the connection: a code (2) and a text for people (length 2, bytes).
package struct Goodbye: Error, Equatable, Sendable {
    package enum Code: UInt16, Sendable {
        case protocolError = 1
        case noCommonVersion = 2
        case wrongCluster = 3
        /// The sender's incarnation is not the one that the configuration records: its directory was wiped, or it is
        /// another member's.
        case unknownIncarnation = 4
        case differentMembers = 5
        case shuttingDown = 6
        /// The cluster that the sender knows was given up: one of its directories was recovered, and goes on alone.
        case recovered = 7
        /// The receiver holds as much for others as it may.
        case busy = 8
    }
    package var code: Code
    package var reason: String

    package init(_ code: Code, _ reason: String) {
        self.code = code
        self.reason = reason
    }

    package func write(to buffer: inout ByteBuffer) {
        buffer.writeFrame(.goodbye) { body in
            body.writeInteger(code.rawValue)
            body.writeText(reason)
        }
    }

    package init(_ frame: Frame) throws(ProtocolError) {
        var body = frame.body
        guard frame.kind == .goodbye, let code = body.readInteger(as: UInt16.self), let reason = body.readText() else {
            throw .malformedBody(.goodbye)
        }
        self.init(Code(rawValue: code) ?? .protocolError, reason)
    }
}
