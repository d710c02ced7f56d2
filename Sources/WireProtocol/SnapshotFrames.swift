import NIOCore
import Raft

/// A piece of a snapshot on its way to a member, on the snapshot lane:
///
///     0   8  sender's incarnation   8  8  addressee's   16  8  the leader's term
///     24  4  number of the piece: 0 is the header
///     28  1  flags: 1 it is the trailer; 2, of the header, the addressee may answer that it has more of this snapshot
///     29  .  the piece
package struct SnapshotPiece: Equatable, Sendable {
    package var from: PeerID
    package var to: PeerID
    package var term: Term
    package var number: UInt32
    package var isLast: Bool
    package var mayResume: Bool
    package var bytes: ByteBuffer

    package init(
        from: PeerID, to: PeerID, term: Term, number: UInt32, isLast: Bool, mayResume: Bool = false, bytes: ByteBuffer
    ) {
        self.mayResume = mayResume
        self.from = from
        self.to = to
        self.term = term
        self.number = number
        self.isLast = isLast
        self.bytes = bytes
    }

    package func write(to buffer: inout ByteBuffer) {
        buffer.writeFrame(.snapshotChunk) { body in
            let flags: UInt8 = (isLast ? 1 : 0) | (mayResume ? 2 : 0)
            body.writeMultipleIntegers(from.rawValue, to.rawValue, term, number, flags)
            body.writeImmutableBuffer(bytes)
        }
    }

    package init(_ frame: Frame) throws(ProtocolError) {
        var body = frame.body
        guard frame.kind == .snapshotChunk,
            let (from, to, term, number, flags) = body.readMultipleIntegers(
                as: (UInt64, UInt64, UInt64, UInt32, UInt8).self),
            term <= PeerMessage.numberMax, flags <= 3
        else { throw .malformedBody(.snapshotChunk) }
        self.init(
            from: PeerID(from), to: PeerID(to), term: term, number: number, isLast: flags & 1 != 0,
            mayResume: flags & 2 != 0, bytes: body)
    }
}

/// The answer to a piece: its number (4) and what became of it (1).
package struct SnapshotReceipt: Equatable, Sendable {
    package enum Outcome: UInt8, Sendable {
        case taken = 0
        /// The snapshot is whole, and its state durable.
        case complete = 1
        case refused = 2
        /// The header is known, and everything up to the piece of this number is here from an earlier connection.
        case resumed = 3
    }
    package var number: UInt32
    package var outcome: Outcome

    package init(number: UInt32, outcome: Outcome) {
        self.number = number
        self.outcome = outcome
    }

    package func write(to buffer: inout ByteBuffer) {
        buffer.writeFrame(.snapshotReceipt) { $0.writeMultipleIntegers(number, outcome.rawValue) }
    }

    package init(_ frame: Frame) throws(ProtocolError) {
        var body = frame.body
        guard frame.kind == .snapshotReceipt,
            let (number, code) = body.readMultipleIntegers(as: (UInt32, UInt8).self),
            let outcome = Outcome(rawValue: code)
        else { throw .malformedBody(.snapshotReceipt) }
        self.init(number: number, outcome: outcome)
    }
}
