import Logging
import NIOCore
import NIOPosix
import WireProtocol

/// This member's own connection to a peer, for one lane. It connects, says hello, and comes back by itself after a
/// break; what is sent while it is down is lost, as Raft allows.
package final class PeerLink {
    private enum State {
        case idle
        case connecting
        /// The hello is out.
        case greeting(FrameConnection)
        case ready(FrameConnection)
        case stopped
    }

    /// A peer that does not answer the hello for so long is stopped or gone, whatever its system says.
    private static let greetingMax = TimeAmount.seconds(2)

    /// Bytes that may wait for a peer. More than the core ever has under way to one: what it sends must not be dropped, or it
    /// would have to be sent again.
    private static let unsentBytesMax = 16 << 20

    package let address: Address
    private let loop: any EventLoop
    private let hello: () -> Hello
    private let onWelcome: (PeerLink, FrameConnection, Welcome) -> Bool
    private let onBreak: (PeerLink, Goodbye?, _ wasReady: Bool) -> Void
    private let onFrame: (PeerLink, FrameConnection, Frame) -> Void
    private var state = State.idle
    private var pause = LinkPause()
    private var readySince: NIODeadline?
    private var isRejected = false
    private var lastGoodbye: Goodbye?

    /// - Parameters:
    ///   - hello: what to say at each connection.
    ///   - onWelcome: the peer answered; false ends the link.
    ///   - onBreak: the connection is gone, or could not be made; with the peer's reason if it gave one, and whether it
    ///     was ready: the peer had answered, and was the one that was meant.
    ///   - onFrame: anything after the welcome.
    package init(
        to address: Address, on loop: any EventLoop, hello: @escaping () -> Hello,
        onWelcome: @escaping (PeerLink, FrameConnection, Welcome) -> Bool,
        onBreak: @escaping (PeerLink, Goodbye?, _ wasReady: Bool) -> Void,
        onFrame: @escaping (PeerLink, FrameConnection, Frame) -> Void = { _, _, _ in }
    ) {
        self.address = address
        self.loop = loop
        self.hello = hello
        self.onWelcome = onWelcome
        self.onBreak = onBreak
        self.onFrame = onFrame
    }

    package var connection: FrameConnection? {
        if case .ready(let connection) = state { return connection }
        return nil
    }

    package func start() {
        guard case .idle = state else { return }
        state = .connecting
        let this = NIOLoopBound(self, eventLoop: loop)
        ClientBootstrap(group: loop)
            .connectTimeout(.milliseconds(1000))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            // The port that the system takes for it may be a member's: what is left of this connection must not keep that one
            // from listening.
            .channelOption(.socketOption(.so_reuseaddr), value: 1)
            .channelOption(.writeBufferWaterMark, value: .init(low: Self.unsentBytesMax / 2, high: Self.unsentBytesMax))
            .channelOption(Pipeline.userTimeout, value: Pipeline.unacknowledgedMillisecondsMax)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let link = this.value
                    let connection = FrameConnection(
                        id: 0, onFrame: { [link] in link.received($1, on: $0) },
                        onClose: { [link] _, _ in link.broke() })
                    try channel.pipeline.syncOperations.addHandler(connection)
                    switch link.state {
                    case .connecting: link.state = .greeting(connection)
                    // Stopped while it connected: nobody waits for this channel.
                    default: channel.close(promise: nil)
                    }
                }
            }
            .connect(host: address.host, port: address.port)
            .whenComplete { result in
                switch result {
                case .failure: this.value.broke()
                // Nobody listens there, and the system happened to connect the port with itself.
                case .success(let channel) where channel.localAddress == channel.remoteAddress:
                    channel.close(promise: nil)
                case .success: this.value.greet()
                }
            }
    }

    /// The peer is not the one that was meant: it is asked again after a while.
    package func reject() {
        guard case .ready(let connection) = state else { return }
        // It never counted as ready. What follows the end of the connection may happen within `close`.
        state = .greeting(connection)
        isRejected = true
        connection.close()
    }

    /// Ends the link for good.
    package func stop() {
        let old = state
        state = .stopped
        switch old {
        case .greeting(let connection), .ready(let connection): connection.close()
        default: break
        }
    }

    private func greet() {
        guard case .greeting(let connection) = state else { return }
        let hello = hello()
        connection.write { hello.write(to: &$0) }
        connection.flush()
        let this = NIOLoopBound((self, connection), eventLoop: loop)
        loop.scheduleTask(in: Self.greetingMax) {
            let (link, greeted) = this.value
            if case .greeting(let connection) = link.state, connection === greeted { connection.close() }
        }
    }

    private func received(_ frame: Frame, on connection: FrameConnection) {
        do {
            switch (state, frame.kind) {
            case (_, .goodbye):
                lastGoodbye = try Goodbye(frame)
                connection.close()
            case (.greeting, .welcome):
                let welcome = try Welcome(frame)
                state = .ready(connection)
                readySince = .now()
                if !onWelcome(self, connection, welcome) { stop() }
            case (.ready, _): onFrame(self, connection, frame)
            default: connection.close()
            }
        } catch {
            connection.close()
        }
    }

    private func broke() {
        let wasReady = connection != nil
        switch state {
        case .stopped, .idle: return
        case .connecting, .greeting, .ready: state = .idle
        }
        let goodbye = lastGoodbye
        let isRefused = isRejected || goodbye.map { $0.code != .shuttingDown } ?? false
        let wait = pause.next(wasReadyFor: readySince.map { .now() - $0 }, isRefused: isRefused)
        (lastGoodbye, readySince, isRejected) = (nil, nil, false)
        onBreak(self, goodbye, wasReady)
        guard case .idle = state else { return }
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: wait) { this.value.start() }
    }
}
