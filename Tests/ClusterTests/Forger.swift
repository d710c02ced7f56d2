import BanyanClient
import NIOCore
import Raft
import WireProtocol

/// Whoever can reach the port. It has no secret: what it knows, a member tells every client. It says whatever it likes in
/// any member's name.
struct Forger {
    struct Target: Sendable {
        let id: UInt64
        let peer: PeerID
        let port: Int
    }

    let clusterID: UInt64
    let members: [Target]

    /// Asks the members that run.
    init(_ cluster: TestCluster) throws {
        let running = cluster.ports.enumerated().filter { cluster.isRunning($0.offset + 1) }
        try self.init(ports: running.map(\.element))
    }

    /// - Parameter areAll: whether each must answer; else who does not is unknown to the forger.
    init(ports: [Int], areAll: Bool = true) throws {
        var clusterID: UInt64 = 0
        var members: [Target] = []
        for port in ports {
            do {
                let connection = try RawConnection(to: port)
                connection.say(Self.clientHello)
                guard let frame = try connection.frame() else {
                    throw TestCluster.Failure(description: "the member on \(port) greets nobody")
                }
                let welcome = try Welcome(frame)
                clusterID = max(clusterID, welcome.clusterID)
                members.append(Target(id: welcome.memberID, peer: PeerID(welcome.incarnation), port: port))
            } catch { if areAll { throw error } }
        }
        self.clusterID = clusterID
        self.members = members
    }

    func member(_ id: Int) throws -> Target {
        guard let member = members.first(where: { $0.id == UInt64(id) }) else {
            throw TestCluster.Failure(description: "the forger knows no member \(id)")
        }
        return member
    }

    static let clientHello = bytes { Hello(role: .client).write(to: &$0) }

    func peerHello(as member: Target, _ lane: Lane) -> [UInt8] {
        Self.bytes { buffer in
            var hello = Hello(role: .peer)
            hello.lane = lane
            hello.clusterID = clusterID
            hello.memberID = member.id
            hello.incarnation = member.peer.rawValue
            hello.write(to: &buffer)
        }
    }

    /// A client's connection, greeted.
    static func client(to port: Int, receiveBytes: Int32? = nil) throws -> RawConnection {
        let connection = try RawConnection(to: port, receiveBytes: receiveBytes)
        connection.say(clientHello)
        guard let frame = try connection.frame(), frame.kind == .welcome else {
            throw TestCluster.Failure(description: "the member on \(port) greets nobody")
        }
        return connection
    }

    /// A connection in the name of `member`; the welcome is not waited for.
    func connection(as member: Target, to other: Target, lane: Lane = .control) throws -> RawConnection {
        let connection = try RawConnection(to: other.port)
        connection.say(peerHello(as: member, lane))
        return connection
    }

    /// Says `bytes` in the name of `member`, on a connection of their own, and waits until they were read or refused.
    func tell(_ to: Target, as member: Target, _ lane: Lane, _ bytes: [UInt8]) throws {
        let connection = try connection(as: member, to: to, lane: lane)
        _ = try connection.frame()
        connection.say(bytes)
        connection.finish()
    }

    // MARK: - What it says

    static func bytes(_ write: (inout ByteBuffer) -> Void) -> [UInt8] {
        var buffer = ByteBuffer()
        write(&buffer)
        return Array(buffer.readableBytesView)
    }

    /// A frame of any kind, of this protocol or not.
    static func frame(_ kind: UInt8, _ body: [UInt8] = [], request: UInt64 = 0, deadline: UInt32 = 0) -> [UInt8] {
        bytes { buffer in
            buffer.writeMultipleIntegers(
                UInt32(20 + body.count), kind, UInt8(0), UInt16(0), request, deadline, UInt32(0))
            buffer.writeBytes(body)
        }
    }

    static func message(_ from: Target, to: Target, term: Term, _ body: Message.Body) -> [UInt8] {
        bytes { Message(from: from.peer, to: to.peer, term: term, body: body).writeHead(to: &$0) }
    }

    /// A message of any type with any body.
    static func message(_ from: Target, to: Target, term: Term, type: UInt8, _ body: [UInt8]) -> [UInt8] {
        let head = bytes { $0.writeMultipleIntegers(from.peer.rawValue, to.peer.rawValue, term, type) }
        return frame(Frame.Kind.peerMessage.rawValue, head + body)
    }

    static func numbers(_ numbers: UInt64...) -> [UInt8] {
        bytes { buffer in for number in numbers { buffer.writeInteger(number) } }
    }

    static func append(
        _ from: Target, to: Target, term: Term, previous: (index: Index, term: Term), commit: Index,
        _ records: [[UInt8]] = []
    ) -> [UInt8] {
        message(
            from, to: to, term: term, type: 5,
            numbers(previous.index, previous.term, commit) + records.flatMap { $0 })
    }

    static func record(_ index: Index, _ term: Term, _ kind: EntryKind, _ payload: [UInt8] = []) -> [UInt8] {
        bytes { buffer in
            let start = buffer.beginRecord(kind, index: index, term: term, length: payload.count)
            buffer.writeBytes(payload)
            buffer.sealRecord(at: start)
        }
    }

    /// A configuration as bytes, however mad: `Configuration` itself would sort its members.
    func configuration(
        _ members: [(id: UInt64, peer: PeerID, isLearner: Bool, address: String)], outgoing: [PeerID] = [],
        clusterID: UInt64? = nil
    ) -> [UInt8] {
        Self.bytes { buffer in
            buffer.writeMultipleIntegers(UInt16(1), clusterID ?? self.clusterID, UInt16(members.count))
            for member in members {
                buffer.writeMultipleIntegers(member.id, member.peer.rawValue, UInt8(member.isLearner ? 1 : 0))
                buffer.writeText(member.address)
            }
            buffer.writeInteger(UInt16(outgoing.count))
            for voter in outgoing { buffer.writeInteger(voter.rawValue) }
        }
    }

    /// A command's head with any operation and version, and what stands behind it.
    static func command(_ operation: UInt8, version: UInt16 = 1, _ body: [UInt8] = []) -> [UInt8] {
        bytes { buffer in
            buffer.writeMultipleIntegers(version, operation, UInt8(0), UInt32(0))
            buffer.writeMultipleIntegers(UInt64(0), UInt64(0), UInt64(0), UInt64(0), Int64(0))
            buffer.writeBytes(body)
        }
    }

    static func goodbye(_ code: UInt16, _ reason: [UInt8]) -> [UInt8] {
        let body = bytes { buffer in
            buffer.writeMultipleIntegers(code, UInt16(reason.count))
            buffer.writeBytes(reason)
        }
        return frame(Frame.Kind.goodbye.rawValue, body)
    }

    /// Writes, of which the forger knows what they say: `at` is the first index.
    static func records(_ kinds: [(EntryKind, [UInt8])], at first: Index, _ term: Term) -> [[UInt8]] {
        kinds.enumerated().map { record(first + UInt64($0), term, $1.0, $1.1) }
    }

    /// One well-formed message of each kind. `beyond` are the last index and term that the forger claims to have.
    static func messages(beyond last: (index: Index, term: Term)) -> [Message.Body] {
        [
            .preVote(lastIndex: last.index, lastTerm: last.term), .preVoteResponse(granted: true),
            .preVoteResponse(granted: false), .vote(lastIndex: last.index, lastTerm: last.term),
            .vote(lastIndex: last.index, lastTerm: last.term, isTransfer: true), .voteResponse(granted: true),
            .voteResponse(granted: false),
            .append(.init(previousIndex: last.index, previousTerm: last.term, commit: 0, entries: [])),
            .append(.init(previousIndex: 0, previousTerm: 0, commit: last.index, entries: [])),
            .appendResponse(.accepted(match: last.index)),
            .appendResponse(.rejected(last.index, hintIndex: last.index, hintTerm: last.term)),
            .appendResponse(.rejected(1, hintIndex: 0, hintTerm: 0)),
            .heartbeat(commit: 0, round: 1), .heartbeat(commit: last.index, round: 1 << 40),
            .heartbeatResponse(round: 1 << 40), .readIndex(context: 1),
            .readIndexResponse(context: 1, index: last.index), .timeoutNow,
        ]
    }
}
