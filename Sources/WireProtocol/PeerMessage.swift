import NIOCore
import Raft

/// A message of the core between members:
///
///     0  8  sender's incarnation   8  8  addressee's   16  8  term   24  1  type   25  .  by type:
///
///     1 pre-vote, 2 vote                  last index (8), last term (8)
///     3 pre-vote answer, 4 vote answer    granted (1)
///     5 append                            previous index (8), previous term (8), commit (8), records to the end
///     6 appended                          match (8), free bytes
///     7 append refused                    index (8), hint index (8), hint term (8), free bytes
///     8 heartbeat                         commit (8), round (8)
///     9 heartbeat answer                  round (8), free bytes
///     10 read index                       context (8)
///     11 read index answer                context (8), known (1), index (8)
///     12 vote, as the leader wants it     last index (8), last term (8)
///     13 timeout now
///
/// Free bytes (8): what the sender's disk has room for, after the answer itself; absent when it does not say. Behind them,
/// and behind a heartbeat, may stand an index (8) and the digest (16) that the state had there: of an answer the sender's
/// own, of a heartbeat the one that a majority had.
package struct PeerMessage: Sendable {
    package var message: Message
    /// The records of an append, in the order of its entries.
    package var records: ByteBuffer?
    /// What an answer says of its sender's disk.
    package var freeBytes: UInt64?
    /// What the state's digest was at an index: the sender's, or of a heartbeat a majority's.
    package var digest: (index: Index, digest: UInt128)?
}

extension Message {
    /// Writes the message; the records of an append must follow, `recordBytes` in all, in this or in other buffers.
    ///
    /// - Parameters:
    ///   - freeBytes: what an answer says of this member's disk.
    ///   - digest: what an answer to a leader or a leader's heartbeat says of the state.
    package func writeHead(
        to buffer: inout ByteBuffer, recordBytes: Int = 0, freeBytes: UInt64? = nil,
        digest: (index: Index, digest: UInt128)? = nil
    ) {
        let start = buffer.beginFrame(.peerMessage)
        buffer.writeMultipleIntegers(from.rawValue, to.rawValue, term)
        switch body {
        case .preVote(let index, let lastTerm): buffer.writeMultipleIntegers(UInt8(1), index, lastTerm)
        case .vote(let index, let lastTerm, let isTransfer):
            buffer.writeMultipleIntegers(UInt8(isTransfer ? 12 : 2), index, lastTerm)
        case .preVoteResponse(let granted): buffer.writeMultipleIntegers(UInt8(3), UInt8(granted ? 1 : 0))
        case .voteResponse(let granted): buffer.writeMultipleIntegers(UInt8(4), UInt8(granted ? 1 : 0))
        case .append(let append):
            buffer.writeMultipleIntegers(UInt8(5), append.previousIndex, append.previousTerm, append.commit)
        case .appendResponse(.accepted(let match)): buffer.writeMultipleIntegers(UInt8(6), match)
        case .appendResponse(.rejected(let index, let hint, let hintTerm)):
            buffer.writeMultipleIntegers(UInt8(7), index, hint, hintTerm)
        case .heartbeat(let commit, let round): buffer.writeMultipleIntegers(UInt8(8), commit, round)
        case .heartbeatResponse(let round): buffer.writeMultipleIntegers(UInt8(9), round)
        case .readIndex(let context): buffer.writeMultipleIntegers(UInt8(10), context)
        case .readIndexResponse(let context, let index):
            buffer.writeMultipleIntegers(UInt8(11), context, UInt8(index == nil ? 0 : 1), index ?? 0)
        case .timeoutNow: buffer.writeInteger(UInt8(13))
        case .installSnapshot:
            preconditionFailure("a snapshot announces itself by its chunks")
        }
        if let freeBytes, isAnswerToLeader { buffer.writeInteger(freeBytes) }
        if let digest, isHeartbeat || (isAnswerToLeader && freeBytes != nil) {
            buffer.writeMultipleIntegers(digest.index, digest.digest)
        }
        buffer.endFrame(at: start, extra: recordBytes)
    }
}

extension Message {
    /// Goes back to a leader often, and so carries what a leader should know of its members.
    fileprivate var isHeartbeat: Bool {
        if case .heartbeat = body { return true }
        return false
    }

    fileprivate var isAnswerToLeader: Bool {
        switch body {
        case .appendResponse, .heartbeatResponse: true
        default: false
        }
    }
}

extension PeerMessage {
    package init(_ frame: Frame) throws(ProtocolError) {
        var body = frame.body
        guard frame.kind == .peerMessage,
            let (from, to, term, type) = body.readMultipleIntegers(as: (UInt64, UInt64, UInt64, UInt8).self),
            term <= Self.numberMax,
            let content = try Self.content(type, &body, term: term)
        else { throw .malformedBody(.peerMessage) }
        message = Message(from: PeerID(from), to: PeerID(to), term: term, body: content)
        // What is left of the body is an append's records.
        if case .append = content { records = body }
        if message.isAnswerToLeader { freeBytes = body.readInteger() }
        if message.isAnswerToLeader || message.isHeartbeat {
            digest = body.readMultipleIntegers(as: (UInt64, UInt128).self).map { ($0, $1) }
        }
    }

    /// No term or index of a sound member comes near it; beyond, arithmetic on them could overflow.
    package static let numberMax: UInt64 = 1 << 62

    private static func content(
        _ type: UInt8, _ body: inout ByteBuffer, term: Term
    ) throws(ProtocolError) -> Message.Body? {
        switch type {
        case 1:
            return body.readNumbers().map { .preVote(lastIndex: $0, lastTerm: $1) }
        case 2, 12: return body.readNumbers().map { .vote(lastIndex: $0, lastTerm: $1, isTransfer: type == 12) }
        case 13: return .timeoutNow
        case 3: return body.readInteger(as: UInt8.self).map { .preVoteResponse(granted: $0 != 0) }
        case 4: return body.readInteger(as: UInt8.self).map { .voteResponse(granted: $0 != 0) }
        case 5: return try append(&body, term: term).map { .append($0) }
        case 6: return body.readNumber().map { .appendResponse(.accepted(match: $0)) }
        case 7:
            guard let index = body.readNumber(), let hint = body.readNumber(), let hintTerm = body.readNumber() else {
                return nil
            }
            return .appendResponse(.rejected(index, hintIndex: hint, hintTerm: hintTerm))
        case 8: return body.readNumbers().map { .heartbeat(commit: $0, round: $1) }
        case 9: return body.readInteger(as: UInt64.self).map { .heartbeatResponse(round: $0) }
        case 10: return body.readInteger(as: UInt64.self).map { .readIndex(context: $0) }
        case 11:
            return body.readMultipleIntegers(as: (UInt64, UInt8, UInt64).self).map {
                .readIndexResponse(context: $0, index: $1 == 0 ? nil : $2)
            }
        default: return nil
        }
    }

    /// Reads and checks an append's records, and leaves `body` at their start. The indexes must follow each other and
    /// the terms never fall, nor exceed the sender's: the core relies on it.
    private static func append(_ body: inout ByteBuffer, term: Term) throws(ProtocolError) -> Message.Append? {
        guard let (previousIndex, previousTerm, commit) = body.readMultipleIntegers(as: (UInt64, UInt64, UInt64).self)
        else { return nil }
        var append = Message.Append(
            previousIndex: previousIndex, previousTerm: previousTerm, commit: commit, entries: [])
        guard max(previousIndex, previousTerm, commit) <= numberMax else { return nil }
        var records = body
        var last = (index: previousIndex, term: previousTerm)
        while records.readableBytes > 0 {
            let record = try EntryRecord(from: &records)
            guard record.header.index == last.index + 1, record.header.term >= last.term, record.header.term <= term
            else { return nil }
            last = (record.header.index, record.header.term)
            append.entries.append(record.header)
            if record.header.kind == .configuration {
                var payload = record.payload
                guard let configuration = Configuration(from: &payload) else { return nil }
                append.configurations.append(
                    IndexedConfiguration(index: record.header.index, configuration: configuration))
            }
        }
        return append
    }
}

extension ByteBuffer {
    /// A term or an index.
    fileprivate mutating func readNumber() -> UInt64? {
        guard let number = readInteger(as: UInt64.self), number <= PeerMessage.numberMax else { return nil }
        return number
    }

    fileprivate mutating func readNumbers() -> (UInt64, UInt64)? {
        guard let first = readNumber(), let second = readNumber() else { return nil }
        return (first, second)
    }
}
