import NIOCore

/// One frame of the protocol: a header of 24 bytes, big-endian, and a body.
///
///     0   4  length of all that follows this field: 20 and the body
///     4   1  kind
///     5   1  flags: zero
///     6   2  group: zero
///     8   8  request id: the answer to a request carries the same; zero where nothing is answered
///     16  4  for a request: the milliseconds that the client will still wait; else zero
///     20  4  zero
package struct Frame: Equatable, Sendable {
    package enum Kind: UInt8, Sendable {
        case hello = 1
        case welcome = 2
        /// The reason for which the sender closes the connection.
        case goodbye = 3

        case write = 16
        case read = 17
        case status = 18
        /// Hand leadership over to a member.
        case transferLeadership = 19
        /// A read by lease; the body is a query.
        case leaseRead = 20
        /// A read of what this member has: the greatest age in milliseconds (4; 0: any), and a query.
        case staleRead = 21
        /// See `MembershipRequest`.
        case changeMembership = 22
        /// Who the members are; the answer is a configuration.
        case listMembers = 23
        /// Begin a snapshot of all that was acknowledged, for this connection. The answer: zero (2), index (8), term (8).
        case openSnapshot = 24
        /// A piece of that snapshot, by its number (4). The answer: zero (2), 1 if it is the last (1), the piece.
        case readSnapshot = 25
        /// Read all that the member keeps, and say what is damaged: see `Verification`.
        case verify = 26
        /// Write the state anew, without the pages of its file that hold nothing: see `StateRewrite`.
        case rewriteState = 27

        case result = 32
        case refusal = 33
        case statusResult = 34

        case peerMessage = 48
        case genesis = 49
        case snapshotChunk = 50
        case snapshotReceipt = 51

        /// What a frame of the kind is to whom it comes to.
        package enum Purpose: Sendable {
            /// Who is there, and why one goes.
            case greeting
            /// A client's request for what the cluster keeps: it waits until its answer has room.
            case read
            /// A client's request to change what the cluster keeps.
            case write
            /// A client's request about the cluster itself.
            case administration
            case answer
            /// Between members.
            case peers
        }

        package var purpose: Purpose {
            switch self {
            case .hello, .welcome, .goodbye: .greeting
            case .read, .leaseRead, .staleRead, .openSnapshot, .readSnapshot: .read
            case .write: .write
            case .status, .transferLeadership, .changeMembership, .listMembers, .verify, .rewriteState: .administration
            case .result, .refusal, .statusResult: .answer
            case .peerMessage, .genesis, .snapshotChunk, .snapshotReceipt: .peers
            }
        }

        /// The longest body of such a frame. It is looked at before the body is waited for.
        package var bodyBytesMax: Int {
            switch self {
            case .hello, .welcome, .goodbye, .refusal: Frame.helloBytesMax
            case .read, .leaseRead, .staleRead: Frame.queryBytesMax
            case .status, .transferLeadership, .listMembers, .openSnapshot, .readSnapshot, .verify, .rewriteState: 64
            case .changeMembership, .genesis, .snapshotReceipt, .statusResult: 256 << 10
            case .write, .result, .peerMessage, .snapshotChunk: Frame.bodyBytesMax
            }
        }
    }

    package static let headerByteCount = 24
    /// The longest body: one command with its path and content, or 1 MiB of entries, and what stands around them.
    package static let bodyBytesMax = (1 << 20) + (64 << 10)
    /// Nobody waits longer for an answer, whatever a request says.
    package static let deadlineMillisecondsMax: UInt32 = 600_000
    /// The longest query: a path, and a name to go on behind.
    package static let queryBytesMax = 8 << 10
    /// The longest body before a hello was answered.
    package static let helloBytesMax = 16 << 10

    package var kind: Kind
    package var requestID: UInt64
    package var deadlineMilliseconds: UInt32
    package var body: ByteBuffer

    package init(kind: Kind, requestID: UInt64 = 0, deadlineMilliseconds: UInt32 = 0, body: ByteBuffer) {
        self.kind = kind
        self.requestID = requestID
        self.deadlineMilliseconds = deadlineMilliseconds
        self.body = body
    }
}

/// Why the bytes of a peer or a client can't be read. The connection is closed with the reason.
package enum ProtocolError: Error, Equatable, Sendable, CustomStringConvertible {
    case frameTooLong(Int)
    case frameTooShort(Int)
    case unknownKind(UInt8)
    case unsupportedFlags
    case malformedBody(Frame.Kind)
    case wrongMagic
    case corruptRecord(index: UInt64)

    package var description: String {
        switch self {
        case .frameTooLong(let length): "a frame of \(length) bytes is longer than the limit"
        case .frameTooShort(let length): "a frame of \(length) bytes is shorter than its header"
        case .unknownKind(let kind): "frames of kind \(kind) are not part of this version"
        case .unsupportedFlags: "flags, group and reserved bytes must be zero in this version"
        case .malformedBody(let kind): "the body of a frame of kind \(kind) can't be read"
        case .wrongMagic: "the first frame does not begin with BNYN: this port speaks Banyan's protocol"
        case .corruptRecord(let index): "the checksum of entry \(index) does not match"
        }
    }
}

extension ByteBuffer {
    /// Writes a frame whose body `writeBody` appends.
    package mutating func writeFrame(
        _ kind: Frame.Kind, requestID: UInt64 = 0, deadlineMilliseconds: UInt32 = 0,
        body writeBody: (inout ByteBuffer) -> Void
    ) {
        let start = beginFrame(kind, requestID: requestID, deadlineMilliseconds: deadlineMilliseconds)
        writeBody(&self)
        endFrame(at: start)
    }

    /// Writes a frame's header; `endFrame` with the answered position completes it once the body stands behind it.
    package mutating func beginFrame(
        _ kind: Frame.Kind, requestID: UInt64 = 0, deadlineMilliseconds: UInt32 = 0
    ) -> Int {
        let start = writerIndex
        writeMultipleIntegers(UInt32(0), kind.rawValue, UInt8(0), UInt16(0), requestID, deadlineMilliseconds, UInt32(0))
        return start
    }

    /// - Parameter extra: bytes of the body that follow in other buffers.
    package mutating func endFrame(at start: Int, extra: Int = 0) {
        setInteger(UInt32(writerIndex - start - 4 + extra), at: start)
    }

    /// Takes the next frame, or nil when it has not wholly arrived.
    package mutating func readFrame(bodyBytesMax: Int) throws(ProtocolError) -> Frame? {
        guard let length = getInteger(at: readerIndex, as: UInt32.self).map(Int.init) else { return nil }
        // The length is looked at before anything is waited for: nobody makes this side collect a gigabyte.
        guard length >= Frame.headerByteCount - 4 else { throw .frameTooShort(length) }
        guard length <= Frame.headerByteCount - 4 + bodyBytesMax else { throw .frameTooLong(length) }
        guard
            let (_, code, flags, group, requestID, deadline, reserved) = peekMultipleIntegers(
                as: (UInt32, UInt8, UInt8, UInt16, UInt64, UInt32, UInt32).self)
        else { return nil }
        guard let kind = Frame.Kind(rawValue: code) else { throw .unknownKind(code) }
        guard flags == 0, group == 0, reserved == 0 else { throw .unsupportedFlags }
        guard length <= Frame.headerByteCount - 4 + kind.bodyBytesMax else { throw .frameTooLong(length) }
        guard readableBytes >= 4 + length else { return nil }
        moveReaderIndex(forwardBy: Frame.headerByteCount)
        guard let body = readSlice(length: length + 4 - Frame.headerByteCount) else { return nil }
        return Frame(kind: kind, requestID: requestID, deadlineMilliseconds: deadline, body: body)
    }

    package mutating func writeText(_ text: String) {
        let bytes = text.utf8.prefix(Int(UInt16.max))
        writeInteger(UInt16(bytes.count))
        writeBytes(bytes)
    }

    package mutating func readText() -> String? {
        guard let length = readInteger(as: UInt16.self), let bytes = readBytes(length: Int(length)) else { return nil }
        return String(validating: bytes, as: UTF8.self)
    }
}

/// Cuts a connection's bytes into frames.
package struct FrameDecoder: NIOSingleStepByteToMessageDecoder {
    package typealias InboundOut = Frame
    /// Small until the first frame, the hello, has come.
    private var bodyBytesMax = Frame.helloBytesMax

    package init() {}

    package mutating func decode(buffer: inout ByteBuffer) throws -> Frame? {
        guard let frame = try buffer.readFrame(bodyBytesMax: bodyBytesMax) else { return nil }
        bodyBytesMax = Frame.bodyBytesMax
        return frame
    }

    package mutating func decodeLast(buffer: inout ByteBuffer, seenEOF: Bool) throws -> Frame? {
        try decode(buffer: &buffer)
    }
}
