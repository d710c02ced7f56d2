import NIOCore
import NIOPosix
import WireProtocol

/// The one port of a member, where peers and clients come in.
package enum Listener {
    /// Binds `address`. `accept` makes each connection's handler, on `loop`'s thread.
    package static func bind(
        _ address: Address, on loop: any EventLoop, accept: @escaping () -> FrameConnection
    ) -> EventLoopFuture<any Channel> {
        let accept = NIOLoopBound(accept, eventLoop: loop)
        return ServerBootstrap(group: loop)
            .serverChannelOption(.backlog, value: 1024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(
                .writeBufferWaterMark,
                value: .init(low: FrameConnection.unflushedBytesMax / 4, high: FrameConnection.unflushedBytesMax)
            )
            .childChannelOption(.maxMessagesPerRead, value: 4)
            .childChannelOption(Pipeline.userTimeout, value: Pipeline.unacknowledgedMillisecondsMax)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(accept.value()) }
            }
            .bind(host: address.host, port: address.port)
    }
}
