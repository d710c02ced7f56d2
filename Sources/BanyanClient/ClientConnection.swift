import NIOCore
import NIOPosix
import WireProtocol

/// A client's connection to one member, on the client's event loop.
final class ClientConnection: ChannelInboundHandler {
    typealias InboundIn = Frame

    let address: String
    private let core: ClientCore
    private var channel: (any Channel)?
    private var isReady = false
    private let began = NIODeadline.now()
    private var isOver = false
    /// Not sent: the member has not answered the hello.
    private var unsent: [(id: UInt64, request: ClientCore.Request)] = []
    private var sent: [UInt64: ClientCore.Request] = [:]
    /// When the member last answered, or was first asked after it had answered everything.
    private var lastProgress = NIODeadline.now()
    private var pending = ByteBuffer()

    init(address: String, core: ClientCore) {
        self.address = address
        self.core = core
    }

    var isIdle: Bool { unsent.isEmpty && sent.isEmpty }

    func connect() {
        guard let colon = address.lastIndex(of: ":"), let port = Int(address[address.index(after: colon)...]) else {
            end()
            return
        }
        let this = NIOLoopBound(self, eventLoop: core.loop)
        ClientBootstrap(group: core.loop)
            .connectTimeout(.seconds(1))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandlers([
                        ByteToMessageHandler(FrameReader()), this.value,
                    ])
                }
            }
            .connect(host: String(address[..<colon]), port: port)
            .whenComplete { result in
                if case .failure = result { this.value.end() }
            }
    }

    func channelActive(context: ChannelHandlerContext) {
        channel = context.channel
        var hello = ByteBuffer()
        Hello(role: .client).write(to: &hello)
        context.channel.writeAndFlush(hello, promise: nil)
    }

    func send(_ request: ClientCore.Request, id: UInt64) {
        guard isReady else {
            unsent.append((id, request))
            return
        }
        if sent.isEmpty { lastProgress = .now() }
        sent[id] = request
        let left = max(1, (request.deadline - .now()).nanoseconds / 1_000_000)
        pending.writeFrame(request.kind, requestID: id, deadlineMilliseconds: UInt32(clamping: left)) { body in
            body.writeImmutableBuffer(request.body)
        }
    }

    func flush() {
        guard isReady, let channel, pending.readableBytes > 0 else { return }
        channel.writeAndFlush(pending, promise: nil)
        pending = ByteBuffer()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let frame = unwrapInboundIn(data)
        lastProgress = .now()
        switch frame.kind {
        case .welcome where !isReady:
            isReady = true
            let requests = unsent
            unsent = []
            for (id, request) in requests { send(request, id: id) }
            flush()
        case .result, .refusal, .statusResult:
            if let request = sent.removeValue(forKey: frame.requestID) { core.received(frame, for: request) }
        default:
            context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    func channelInactive(context: ChannelHandlerContext) { end() }

    /// Whether the member let the hello wait for so long that it must be stopped or cut off: its system still accepts
    /// connections for it. What was not sent yet may go to another.
    func isMute(at now: NIODeadline) -> Bool { !isReady && now - began > .milliseconds(500) }

    /// Takes back the reads of a member that was asked and says nothing: it may be stopped or cut off, and another can
    /// answer them. A write has to wait, since it may have been proposed.
    func takeStalledReads(at now: NIODeadline) -> [ClientCore.Request] {
        guard !sent.isEmpty, now - lastProgress > .seconds(1) else { return [] }
        let reads = sent.filter { $0.value.kind == .read }
        for id in reads.keys { sent[id] = nil }
        lastProgress = now
        return Array(reads.values)
    }

    func close() { if let channel { channel.close(promise: nil) } else { end() } }

    func takeExpired(at now: NIODeadline) -> (unsent: [ClientCore.Request], sent: [ClientCore.Request]) {
        let late = unsent.filter { $0.request.deadline <= now }.map(\.request)
        unsent.removeAll { $0.request.deadline <= now }
        let lateSent = sent.filter { $0.value.deadline <= now }
        for id in lateSent.keys { sent[id] = nil }
        return (late, Array(lateSent.values))
    }

    private func end() {
        guard !isOver else { return }
        isOver = true
        isReady = false
        channel = nil
        let (unsent, sent) = (unsent.map(\.request), Array(sent.values))
        self.unsent = []
        self.sent = [:]
        core.closed(self, unsent: unsent, sent: sent)
    }
}

/// Cuts what a member sends into frames.
private struct FrameReader: ByteToMessageDecoder {
    typealias InboundOut = Frame
    private var decoder = FrameDecoder()

    mutating func decode(context: ChannelHandlerContext, buffer: inout ByteBuffer) throws -> DecodingState {
        guard let frame = try decoder.decode(buffer: &buffer) else { return .needMoreData }
        context.fireChannelRead(NIOAny(frame))
        return .continue
    }

    mutating func decodeLast(
        context: ChannelHandlerContext, buffer: inout ByteBuffer, seenEOF: Bool
    ) throws -> DecodingState {
        try decode(context: context, buffer: &buffer)
    }
}
