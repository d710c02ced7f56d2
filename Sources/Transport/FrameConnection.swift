import NIOCore
import Raft
import WireProtocol

/// One connection that speaks frames, on its event loop's thread alone.
///
/// What is written during a turn of the loop gathers in one buffer and leaves in one system call, when `flush` is called
/// at the turn's end.
package final class FrameConnection: ChannelInboundHandler {
    package typealias InboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    /// Bytes that may wait for a reader that does not read. A client beyond it is no longer read from, until it has
    /// taken its answers.
    package static let unflushedBytesMax = 2 << 20
    /// What its reads under way may answer on top of that, unless it is one alone.
    private static let reservedBytesMax = 2 << 20

    package let id: UInt64
    package private(set) var channel: (any Channel)?
    private var pending: ByteBuffer
    private let unfinishedFrames: UnfinishedFrames?
    /// Of the frame that has begun.
    package private(set) var unfinishedBytes = 0
    private var framesReceived: UInt64 = 0
    private var bytesReceived: UInt64 = 0
    private var bytesSeen: UInt64 = 0
    private var deadline = FrameDeadline()
    /// In this handler, since a handler of its own would have each frame boxed and passed on.
    private let frames = NIOSingleStepByteToMessageProcessor(FrameDecoder())
    private var onFrame: ((FrameConnection, Frame) -> Void)?
    private var onClose: ((FrameConnection, (any Error)?) -> Void)?
    private var failure: (any Error)?
    /// All places were taken: it is served what administration takes.
    package var isForOperators = false
    /// Set by whoever handles the frames, once the hello was answered.
    package var hello: Hello?
    /// Sessions that it may open: a client needs one, and another when that has ended.
    package var sessions = Allowance(every: 60_000_000_000, burst: 64)
    /// Requests of this connection that wait for their answers.
    package var requestsInFlight = 0
    /// Those of them that are reads under way.
    package private(set) var readsInFlight = 0
    /// Room for their answers.
    private var reservedBytes = 0
    /// What an answer to a read may hold, by the longest of late.
    private var answerBytes = ClientMemory.shareBytes
    private let memory: ClientMemory?
    /// Bytes of answers that the other side has not taken in, as last measured, and since when it has taken in none.
    private var unread: (bytes: Int, since: UInt64) = (0, 0)
    /// Whether the other side leaves its answers unread.
    package private(set) var isSlow = false
    /// Called when it has taken them in.
    package var onWritable: (() -> Void)?

    /// - Parameter memory: the account of a client's connection.
    package init(
        id: UInt64, memory: ClientMemory? = nil, unfinishedFrames: UnfinishedFrames? = nil,
        onFrame: @escaping (FrameConnection, Frame) -> Void,
        onClose: @escaping (FrameConnection, (any Error)?) -> Void
    ) {
        self.id = id
        self.memory = memory
        self.unfinishedFrames = unfinishedFrames
        self.onFrame = onFrame
        self.onClose = onClose
        pending = ByteBuffer()
    }

    /// A number of the host at the other side, never zero: alike for all of its connections. Of an IPv6 address the network
    /// counts, in which a host may take any address that it likes.
    package var hostNumber: UInt64 {
        var bytes: [UInt8] = []
        switch channel?.remoteAddress {
        case .v4(let address): bytes = withUnsafeBytes(of: address.address.sin_addr) { Array($0) }
        case .v6(let address):
            bytes = withUnsafeBytes(of: address.address.sin6_addr) { Array($0) }
            let isMapped = bytes.prefix(10).allSatisfy { $0 == 0 } && bytes[10...11].allSatisfy { $0 == 0xFF }
            bytes = Array(isMapped ? bytes.suffix(4) : bytes.prefix(8))
        case .unixDomainSocket, nil: break
        }
        // FNV-1a, whose beginning is of no address.
        return max(1, bytes.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 })
    }

    package func handlerAdded(context: ChannelHandlerContext) {
        channel = context.channel
        pending = context.channel.allocator.buffer(capacity: 256)
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let received = unwrapInboundIn(data)
        bytesReceived &+= UInt64(received.readableBytes)
        do {
            try frames.process(buffer: received) {
                framesReceived &+= 1
                onFrame?(self, $0)
            }
            // What was used up must not be kept: it may be a MiB, and the channel reads into it again.
            if frames.unprocessedBytes == 0 { try frames.process(buffer: ByteBuffer()) { _ in } }
        } catch {
            failure = error
            if let error = error as? ProtocolError { say(Goodbye(.protocolError, error.description)) }
            context.close(promise: nil)
        }
        count(unfinished: frames.unprocessedBytes)
    }

    private func count(unfinished bytes: Int) {
        guard bytes != unfinishedBytes, let unfinishedFrames else { return unfinishedBytes = bytes }
        // One that is gone counts no more.
        let bytes = channel == nil ? 0 : bytes
        unfinishedFrames.bytes += bytes - unfinishedBytes
        let hasGrown = bytes > unfinishedBytes
        unfinishedBytes = bytes
        if hasGrown, unfinishedFrames.bytes > UnfinishedFrames.bytesMax { unfinishedFrames.onExcess() }
    }

    /// To be called once a second: keeps no buffer of a connection that is idle.
    ///
    /// - Returns: whether anything was heard since the last time, and whether a frame takes too long.
    package func look(at now: Nanoseconds) -> (isHeard: Bool, isLate: Bool) {
        let isHeard = bytesReceived != bytesSeen
        bytesSeen = bytesReceived
        if !isHeard, pending.readableBytes == 0, pending.capacity > 4096 { pending = ByteBuffer() }
        let isLate = deadline.isOver(
            frames: framesReceived, bytes: bytesReceived, isUnfinished: unfinishedBytes > 0 && !isSlow, at: now)
        return (isHeard, isLate)
    }

    /// When the frame that has begun was first looked at, or last got on by what it must.
    package var unfinishedSince: Nanoseconds { deadline.since ?? .max }

    /// Whether something of it is under way. A frame that has begun is nothing yet: whoever sends it is heard meanwhile.
    package var isBusy: Bool { requestsInFlight > 0 || isSlow }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        failure = error
        context.close(promise: nil)
    }

    package func channelInactive(context: ChannelHandlerContext) {
        channel = nil
        memory?.release(reservedBytes)
        reservedBytes = 0
        count(unfinished: 0)
        onClose?(self, failure)
        // The closures hold their owner, which holds this connection.
        onFrame = nil
        onClose = nil
        onWritable = nil
        context.fireChannelInactive()
    }

    package func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable && isSlow {
            isSlow = false
            _ = context.channel.setOption(.autoRead, value: true)
            onWritable?()
        }
        context.fireChannelWritabilityChanged()
    }

    /// What the answer to the next read may hold. A longer one is read again with all the room that an answer can need.
    package var answerBytesMax: Int { answerBytes }
    package static let longestAnswerBytes = Frame.bodyBytesMax + Frame.headerByteCount

    /// Whether one more read may be taken up, whose answer may hold so many bytes: no more at once than whose answers may wait
    /// for a reader that does not read.
    package func mayRead(_ bytes: Int) -> Bool {
        guard !isSlow, readsInFlight < Self.readsInFlightMax else { return false }
        if readsInFlight > 0, reservedBytes + bytes > Self.reservedBytesMax { return false }
        guard let memory, memory.isFull else { return true }
        return reservedBytes + bytes <= ClientMemory.shareBytes
    }

    private static let readsInFlightMax = 64

    package func readBegins(_ bytes: Int) {
        guard channel != nil else { return }
        readsInFlight += 1
        reservedBytes += bytes
        memory?.reserve(bytes)
    }

    /// - Parameters:
    ///   - reserved: what they began with.
    ///   - bytesMax: of the longest answer.
    package func readsEnd(_ count: Int, reserved: Int, bytesMax: Int) {
        // What a connection held was given back when it ended.
        guard channel != nil else { return }
        readsInFlight -= count
        reservedBytes -= reserved
        memory?.release(reserved)
        answerBytes = min(max(bytesMax, answerBytes - answerBytes / 8, 1024), Self.longestAnswerBytes)
    }

    /// Measures what this connection holds beside its reads under way: answers that were not taken in, and a frame that has
    /// not wholly arrived. In between it may only have become less, or what was reserved.
    ///
    /// - Returns: those bytes, and since when its answers have waited without one of them being taken in.
    package func measure(now: UInt64) -> (bytes: Int, unreadSince: UInt64?) {
        let bytes = bufferedBytes + pending.readableBytes
        if bytes == 0 || bytes < unread.bytes || unread.bytes == 0 { unread.since = now }
        unread.bytes = bytes
        // A buffer is held until the socket has taken in the last of it.
        if bytes == 0 { (flushedBytes, longestFlush) = (0, 0) }
        let sent = max(0, flushedBytes - bytes) % max(1, longestFlush)
        return (bytes + sent + frames.unprocessedBytes, bytes > 0 ? unread.since : nil)
    }

    /// Gathers whole frames for the next flush: long ones as they are, without a copy.
    package func write(frames: ByteBuffer) {
        guard channel != nil, frames.readableBytes > 0 else { return }
        guard frames.readableBytes >= Self.uncopiedBytesMin else {
            pending.writeImmutableBuffer(frames)
            return
        }
        if pending.readableBytes > 0 { flush() }
        pending = frames
    }

    private static let uncopiedBytesMin = 64 << 10

    /// What was flushed since the socket had taken in everything, and the longest of it.
    private var flushedBytes = 0
    private var longestFlush = 0

    /// Counts at once what the socket does not take in, or many answers would be on their way before anybody looked.
    private func noteUnsent(_ bytes: Int) {
        guard bufferedBytes > 0 else {
            (flushedBytes, longestFlush) = (0, 0)
            return
        }
        (flushedBytes, longestFlush) = (flushedBytes + bytes, max(longestFlush, bytes))
        memory?.answersWait(bytes)
    }

    /// Handed to the socket, which has not taken them in.
    private var bufferedBytes: Int {
        channel.flatMap { try? $0.syncOptions?.getOption(.bufferedWritableBytes) } ?? 0
    }

    /// Gathers bytes for the next flush.
    package func write(_ body: (inout ByteBuffer) -> Void) {
        if channel != nil { body(&pending) }
    }

    /// Who is at the other end, for the log.
    package private(set) lazy var remoteAddress: String = {
        guard let address = channel?.remoteAddress, let host = address.ipAddress, let port = address.port else {
            return "?"
        }
        return Address(host: host, port: port).description
    }()

    package var hasUnflushed: Bool { pending.readableBytes > 0 }

    /// Hands what was gathered to the socket.
    package func flush() {
        guard let channel, pending.readableBytes > 0 else { return }
        let bytes = pending.readableBytes
        channel.writeAndFlush(pending, promise: nil)
        pending = channel.allocator.buffer(capacity: min(bytes, 1 << 16))
        if bytes >= Self.uncopiedBytesMin || flushedBytes > 0 { noteUnsent(bytes) }
        if !channel.isWritable && !isSlow {
            isSlow = true
            _ = channel.setOption(.autoRead, value: false)
        }
    }

    /// Tells the other side why, and closes.
    package func say(_ goodbye: Goodbye) {
        write { goodbye.write(to: &$0) }
        flush()
        channel?.close(promise: nil)
    }

    package func close() {
        flush()
        channel?.close(promise: nil)
    }
}

/// The options of every connection.
enum Pipeline {
    /// A cut link shows within this time: a socket whose bytes nobody acknowledges is closed (`TCP_USER_TIMEOUT`), and
    /// the next one works as soon as the link does.
    static let unacknowledgedMillisecondsMax = 3000
    static let userTimeout = ChannelOptions.Types.SocketOption(
        level: .tcp, name: NIOBSDSocket.Option(rawValue: 18))
    /// A connection may be idle for as long as it likes, if somebody is at its other end: the system asks
    /// (`TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`).
    static let keepAliveIdle = ChannelOptions.Types.SocketOption(level: .tcp, name: NIOBSDSocket.Option(rawValue: 4))
    static let keepAliveInterval = ChannelOptions.Types.SocketOption(
        level: .tcp, name: NIOBSDSocket.Option(rawValue: 5))
    static let keepAliveCount = ChannelOptions.Types.SocketOption(level: .tcp, name: NIOBSDSocket.Option(rawValue: 6))
}

/// What the frames that have begun, and are not whole, hold together.
package final class UnfinishedFrames {
    package static let bytesMax = 48 << 20
    package fileprivate(set) var bytes = 0
    /// Called when they hold more than that.
    package var onExcess: () -> Void = {}

    package init() {}
}
