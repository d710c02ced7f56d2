import NIOCore

/// The answer to a request that was not executed, or of which that is not known.
///
///     0  2  code
///     2  .  the leader's address, when the code is "not the leader" (length 2, bytes); else empty
package struct Refusal: Error, Equatable, Sendable {
    package enum Code: UInt16, Sendable {
        /// Go to the leader.
        case notLeader = 1
        /// An election is under way, or there is no majority.
        case noLeader = 2
        /// Too much is under way; try again a little later.
        case busy = 3
        /// The client's deadline passed before the request was taken up.
        case deadlinePassed = 4
        /// A write was proposed, and whether it will happen is not known.
        case unknownOutcome = 5
        case unsupported = 6
        case malformed = 7
        /// The member's state is damaged; ask another.
        case corrupt = 8
        case shuttingDown = 9
        /// The leader could not hand over within its time, and goes on leading.
        case transferFailed = 10
        /// This leader holds no lease now: it is new, hands over, or does not hear its majority.
        case noLease = 11
        /// Too little of the disks is free to keep more; deletes are still taken.
        case diskFull = 12
    }
    package var code: Code
    package var leader: String

    package init(_ code: Code, leader: String = "") {
        self.code = code
        self.leader = leader
    }

    package func write(to buffer: inout ByteBuffer, requestID: UInt64) {
        buffer.writeFrame(.refusal, requestID: requestID) { body in
            body.writeInteger(code.rawValue)
            body.writeText(leader)
        }
    }

    package init(_ frame: Frame) throws(ProtocolError) {
        var body = frame.body
        guard frame.kind == .refusal, let code = body.readInteger(as: UInt16.self).flatMap(Code.init(rawValue:)),
            let leader = body.readText()
        else { throw .malformedBody(.refusal) }
        self.init(code, leader: leader)
    }
}
