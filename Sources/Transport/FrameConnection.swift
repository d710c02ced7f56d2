import NIOCore
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
    package static let unflushedBytesMax = 4 << 20

    package let id: UInt64
    package private(set) var channel: (any Channel)?
    private var pending: ByteBuffer
    /// In this handler, since a handler of its own would have each frame boxed and passed on.
    private let frames = NIOSingleStepByteToMessageProcessor(FrameDecoder())
    private var onFrame: ((FrameConnection, Frame) -> Void)?
    private var onClose: ((FrameConnection, (any Error)?) -> Void)?
    private var failure: (any Error)?
    /// Set by whoever handles the frames, once the hello was answered.
    package var hello: Hello?
    /// Requests of this connection that wait for their answers.
    package var requestsInFlight = 0
    /// Those of them that are reads under way.
    package private(set) var readsInFlight = 0
    /// What an answer to a read may hold, by the longest of late.
    private var answerBytes = 256 << 10
    /// Whether the other side leaves its answers unread.
    package private(set) var isSlow = false
    /// Called when it has taken them in.
    package var onWritable: (() -> Void)?

    package init(
        id: UInt64, onFrame: @escaping (FrameConnection, Frame) -> Void,
        onClose: @escaping (FrameConnection, (any Error)?) -> Void
    ) {
        self.id = id
        self.onFrame = onFrame
        self.onClose = onClose
        pending = ByteBuffer()
    }

    package func handlerAdded(context: ChannelHandlerContext) {
        channel = context.channel
        pending = context.channel.allocator.buffer(capacity: 4096)
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        do {
            try frames.process(buffer: unwrapInboundIn(data)) { onFrame?(self, $0) }
            // What was used up must not be kept: it may be a MiB, and the channel reads into it again.
            if frames.unprocessedBytes == 0 { try frames.process(buffer: ByteBuffer()) { _ in } }
        } catch {
            failure = error
            if let error = error as? ProtocolError { say(Goodbye(.protocolError, error.description)) }
            context.close(promise: nil)
        }
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        failure = error
        context.close(promise: nil)
    }

    package func channelInactive(context: ChannelHandlerContext) {
        channel = nil
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

    /// Whether one more read may be taken up: no more at once than whose answers may wait for a reader that does not read.
    package var mayRead: Bool {
        !isSlow && readsInFlight < min(Self.readsInFlightMax, max(1, Self.unflushedBytesMax / answerBytes))
    }

    private static let readsInFlightMax = 64

    package func readBegins() { readsInFlight += 1 }

    /// - Parameter bytesMax: of the longest answer.
    package func readsEnd(_ count: Int, bytesMax: Int) {
        readsInFlight -= count
        answerBytes = max(bytesMax, answerBytes - answerBytes / 8, 1)
    }

    /// Gathers bytes for the next flush.
    package func write(_ body: (inout ByteBuffer) -> Void) {
        if channel != nil { body(&pending) }
    }

    package var hasUnflushed: Bool { pending.readableBytes > 0 }

    /// Hands what was gathered to the socket.
    package func flush() {
        guard let channel, pending.readableBytes > 0 else { return }
        let bytes = pending.readableBytes
        channel.writeAndFlush(pending, promise: nil)
        pending = channel.allocator.buffer(capacity: min(bytes, 1 << 16))
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
}
