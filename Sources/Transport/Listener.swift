import NIOCore
import NIOPosix
import WireProtocol

/// A host and a port, as in `127.0.0.1:7400`.
package struct Address: Hashable, Sendable, CustomStringConvertible {
    package var host: String
    package var port: Int

    /// Nil unless the text is `host:port`; an IPv6 host stands in brackets.
    package init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (0...65535).contains(port)
        else { return nil }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard !host.isEmpty else { return nil }
        self.host = String(host)
        self.port = port
    }

    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

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
                .writeBufferWaterMark, value: .init(low: 1 << 20, high: FrameConnection.unflushedBytesMax)
            )
            .childChannelOption(.maxMessagesPerRead, value: 4)
            .childChannelOption(Pipeline.userTimeout, value: Pipeline.unacknowledgedMillisecondsMax)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try Pipeline.configure(channel, accept.value()) }
            }
            .bind(host: address.host, port: address.port)
    }
}
