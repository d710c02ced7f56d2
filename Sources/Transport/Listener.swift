import NIOCore
import NIOPosix
import WireProtocol

/// The one port of a member, where peers and clients come in.
package enum Listener {
    /// Without a free descriptor nothing can be taken in, and asking again at once would only keep the processor busy.
    private static let pause = TimeAmount.milliseconds(100)

    /// Binds `address`. `accept` makes each connection's handler, and `starved` hears why none could be made, on `loop`'s
    /// thread.
    package static func bind(
        _ address: Address, on loop: any EventLoop, accept: @escaping () -> FrameConnection,
        starved: @escaping (IOError) -> Void
    ) -> EventLoopFuture<any Channel> {
        let accept = NIOLoopBound(accept, eventLoop: loop)
        let starved = NIOLoopBound(starved, eventLoop: loop)
        return ServerBootstrap(group: loop)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        AcceptBackoffHandler { error in
                            starved.value(error)
                            return Self.pause
                        })
                }
            }
            .serverChannelOption(.backlog, value: 1024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(
                .writeBufferWaterMark,
                value: .init(low: FrameConnection.unflushedBytesMax / 4, high: FrameConnection.unflushedBytesMax)
            )
            .childChannelOption(.maxMessagesPerRead, value: 4)
            .childChannelOption(Pipeline.userTimeout, value: Pipeline.unacknowledgedMillisecondsMax)
            .childChannelOption(.socketOption(.so_keepalive), value: 1)
            .childChannelOption(Pipeline.keepAliveIdle, value: 15)
            .childChannelOption(Pipeline.keepAliveInterval, value: 5)
            .childChannelOption(Pipeline.keepAliveCount, value: 3)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(accept.value()) }
            }
            .bind(host: address.host, port: address.port)
    }

    /// Whether somebody listens at `address`. Else what is in the way of listening there is a connection, or what is left of
    /// one, and it passes.
    package static func isTaken(_ address: Address, on loop: any EventLoop) -> EventLoopFuture<Bool> {
        ClientBootstrap(group: loop)
            .connectTimeout(.milliseconds(500))
            .channelOption(.socketOption(.so_reuseaddr), value: 1)
            .connect(host: address.isWildcard ? "localhost" : address.host, port: address.port)
            .map { channel in
                let isItself = channel.localAddress == channel.remoteAddress
                channel.close(promise: nil)
                return !isItself
            }
            .recover { _ in false }
    }
}
