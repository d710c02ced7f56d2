import Foundation
import NIOCore
import NIOPosix
import Synchronization

/// Which links between members are cut or slow, from whoever opened the connection to whom.
final class LinkRules: Sendable {
    struct Link: Hashable, Sendable {
        var from: Int
        var to: Int
    }

    private struct State {
        var cut: Set<Link> = []
        var slow: Set<Link> = []
    }

    private let state = Mutex(State())

    func isCut(_ from: Int, _ to: Int) -> Bool { state.withLock { $0.cut.contains(Link(from: from, to: to)) } }
    func isSlow(_ from: Int, _ to: Int) -> Bool { state.withLock { $0.slow.contains(Link(from: from, to: to)) } }

    func cut(_ from: Int, _ to: Int) { state.withLock { _ = $0.cut.insert(Link(from: from, to: to)) } }
    func slow(_ from: Int, _ to: Int) { state.withLock { _ = $0.slow.insert(Link(from: from, to: to)) } }

    /// Cuts the member off from `others`, in both directions.
    func isolate(_ member: Int, from others: some Sequence<Int>) {
        for other in others where other != member {
            cut(member, other)
            cut(other, member)
        }
    }

    func heal() { state.withLock { $0 = State() } }
}

/// Stands before a member's port on loopback, and does to each connection what the rules say of its link: lets the bytes
/// through, holds them back for a while, or lets nothing through any more, as a cut cable does. Who opens a connection says
/// so in its first frame; clients' connections are let through always.
///
/// A connection whose link was cut never comes back: when the link does, it is closed, and its ends connect anew.
final class LinkProxy: Sendable {
    private let server: any Channel

    init(of member: Int, on port: Int, to target: Int, _ rules: LinkRules) throws {
        let group = MultiThreadedEventLoopGroup.singleton
        server = try ServerBootstrap(group: group)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { inbound in
                let pair = NIOLoopBound(Pair(inbound, member: member, rules), eventLoop: inbound.eventLoop)
                return ClientBootstrap(group: inbound.eventLoop)
                    .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                    .channelInitializer { outbound in
                        outbound.eventLoop.makeCompletedFuture {
                            try outbound.pipeline.syncOperations.addHandler(Pump(pair.value, isOpener: false))
                        }
                    }
                    .connect(host: "127.0.0.1", port: target)
                    .flatMapThrowing { outbound in
                        pair.value.outbound = outbound
                        try inbound.pipeline.syncOperations.addHandler(Pump(pair.value, isOpener: true))
                        pair.value.watch()
                    }
            }
            .bind(host: "127.0.0.1", port: port).wait()
    }

    func close() { server.close(promise: nil) }

    /// The two halves of a connection.
    private final class Pair {
        let inbound: any Channel
        var outbound: (any Channel)?
        let member: Int
        let rules: LinkRules
        /// Who opened it; nil before the first frame, 0 for a client.
        private var opener: Int?
        private var head = ByteBuffer()
        private var wasCut = false
        private var isClosed = false

        init(_ inbound: any Channel, member: Int, _ rules: LinkRules) {
            self.inbound = inbound
            self.member = member
            self.rules = rules
        }

        /// Reads the opener out of the hello: role and member id stand at fixed places of its body.
        func learn(from bytes: ByteBuffer) {
            guard opener == nil else { return }
            head.writeImmutableBuffer(bytes)
            guard let role = head.getInteger(at: 24 + 8, as: UInt8.self),
                let id = head.getInteger(at: 24 + 20, as: UInt64.self)
            else { return }
            opener = role == 2 ? Int(clamping: id) : 0
        }

        private var isCut: Bool { opener.map { $0 > 0 && rules.isCut($0, member) } ?? false }

        /// Nil: the bytes are lost.
        func delay() -> TimeAmount? {
            if wasCut || isCut {
                wasCut = true
                return nil
            }
            guard let opener, opener > 0, rules.isSlow(opener, member) else { return .nanoseconds(0) }
            return .milliseconds(40)
        }

        func watch() {
            if isCut { wasCut = true }
            if wasCut, !isCut { return close() }
            guard !isClosed else { return }
            let this = NIOLoopBound(self, eventLoop: inbound.eventLoop)
            inbound.eventLoop.scheduleTask(in: .milliseconds(20)) { this.value.watch() }
        }

        func close() {
            isClosed = true
            inbound.close(promise: nil)
            outbound?.close(promise: nil)
        }
    }

    /// One direction.
    private final class Pump: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let pair: Pair
        private let isOpener: Bool

        init(_ pair: Pair, isOpener: Bool) {
            self.pair = pair
            self.isOpener = isOpener
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let bytes = unwrapInboundIn(data)
            if isOpener { pair.learn(from: bytes) }
            guard let delay = pair.delay(), let other = isOpener ? pair.outbound : pair.inbound else { return }
            if delay == .nanoseconds(0) {
                other.writeAndFlush(bytes, promise: nil)
            } else {
                context.eventLoop.scheduleTask(in: delay) { other.writeAndFlush(bytes, promise: nil) }
            }
        }

        func channelInactive(context: ChannelHandlerContext) { pair.close() }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
