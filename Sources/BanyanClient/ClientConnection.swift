import Glibc
import NIOCore
import NIOPosix
import WireProtocol

/// A client's connection to one member, on the client's event loop.
final class ClientConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    let address: String
    private let core: ClientCore
    private var channel: (any Channel)?
    private var isReady = false
    /// When the hello was sent; before, the system still tries to connect.
    private var began: NIODeadline?
    /// Why it ended.
    private var trouble = Trouble.unreachable("it closed the connection")

    enum Trouble: Equatable {
        case unreachable(String)
        /// Trying again will not help.
        case hopeless(String)
        case noSuchHost(String)

        var reason: String {
            switch self {
            case .unreachable(let reason), .hopeless(let reason): reason
            case .noSuchHost(let host): "no such host: \(host)"
            }
        }
    }
    private var isOver = false
    /// Not sent: the member has not answered the hello.
    private var unsent: [(id: UInt64, request: ClientCore.Request)] = []
    private var sent: [UInt64: ClientCore.Request] = [:]
    /// When the member last answered, or was first asked after it had answered everything.
    private var lastProgress = NIODeadline.now()
    private var pending = ByteBuffer()
    private let frames = NIOSingleStepByteToMessageProcessor(FrameDecoder())

    init(address: String, core: ClientCore) {
        self.address = address
        self.core = core
    }

    var isIdle: Bool { unsent.isEmpty && sent.isEmpty }

    func connect() {
        let this = NIOLoopBound(self, eventLoop: core.loop)
        guard let address = Address(address) else {
            // Not at once: the request that wants this connection has yet to be given to it.
            core.loop.execute { this.value.end(.hopeless("it is not HOST:PORT")) }
            return
        }
        ClientBootstrap(group: core.loop)
            .connectTimeout(.seconds(2))
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(this.value)
                }
            }
            .connect(host: address.host, port: address.port)
            .whenComplete { result in
                if case .failure(let error) = result { this.value.end(Trouble(error)) }
            }
    }

    func channelActive(context: ChannelHandlerContext) {
        guard !isOver else { return context.close(promise: nil) }
        channel = context.channel
        began = .now()
        var hello = Hello(role: .client)
        hello.clusterID = core.clusterID
        var bytes = ByteBuffer()
        hello.write(to: &bytes)
        // Nothing is answered under this id. A web server takes it for the end of a request, and shows at once what it is.
        bytes.setInteger(Self.lineEnds, at: bytes.readerIndex + 8)
        context.channel.writeAndFlush(bytes, promise: nil)
    }

    private static let lineEnds: UInt64 = 0x0D0A_0D0A_0D0A_0D0A

    func send(_ request: ClientCore.Request, id: UInt64) {
        guard isReady else {
            unsent.append((id, request))
            return
        }
        if sent.isEmpty { lastProgress = .now() }
        sent[id] = request
        let left = max(1, (request.wireDeadline - .now()).nanoseconds / 1_000_000)
        pending.writeFrame(request.kind, requestID: id, deadlineMilliseconds: UInt32(clamping: left)) { body in
            body.writeImmutableBuffer(core.body(of: request))
        }
    }

    func flush() {
        guard isReady, let channel, pending.readableBytes > 0 else { return }
        channel.writeAndFlush(pending, promise: nil)
        pending = ByteBuffer()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let bytes = unwrapInboundIn(data)
        if !isReady, let stranger = Self.stranger(bytes) {
            trouble = .hopeless("\(stranger), and no member of Banyan")
            return context.close(promise: nil)
        }
        do {
            try frames.process(buffer: bytes) { received($0, context) }
            // What was used up must not be kept: it may be a MiB, and the channel reads into it again.
            if frames.unprocessedBytes == 0 { try frames.process(buffer: ByteBuffer()) { _ in } }
        } catch {
            trouble = .unreachable("it answers what is not Banyan's protocol")
            context.close(promise: nil)
        }
    }

    /// What answers a hello with these bytes, if it can be no member: a member's first frame is shorter than 64 KiB.
    static func stranger(_ bytes: ByteBuffer) -> String? {
        let first = Array(bytes.readableBytesView.prefix(5))
        guard let byte = first.first, byte != 0 else { return nil }
        if first.starts(with: "HTTP/".utf8) || first.starts(with: "<".utf8) { return "a web server answers there" }
        if first.starts(with: "SSH-".utf8) { return "an SSH server answers there" }
        if byte == 0x15 || byte == 0x16, first.count < 2 || first[1] == 3 { return "a TLS server answers there" }
        return "something else answers there"
    }

    private func received(_ frame: Frame, _ context: ChannelHandlerContext) {
        guard !isOver else { return }
        switch frame.kind {
        case .welcome where !isReady:
            guard let welcome = try? Welcome(frame) else {
                trouble = .unreachable("it answers what is not Banyan's protocol")
                return context.close(promise: nil)
            }
            guard core.accepts(welcome, from: address) else {
                core.isForeign(address)
                refuse("it belongs to another cluster than the members asked before; check --nodes")
                return context.close(promise: nil)
            }
            isReady = true
            let requests = unsent
            unsent = []
            for (id, request) in requests { send(request, id: id) }
            flush()
        case .result, .refusal, .statusResult:
            if let request = sent.removeValue(forKey: frame.requestID) {
                core.received(frame, for: request, from: address)
            }
        case .goodbye:
            if let goodbye = try? Goodbye(frame), goodbye.code != .shuttingDown {
                if goodbye.code == .wrongCluster { core.isForeign(address) }
                refuse(goodbye.reason)
            }
            context.close(promise: nil)
        default:
            context.close(promise: nil)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) { lastProgress = .now() }

    /// What was not sent will find no better answer here, and the user has to know why.
    private func refuse(_ reason: String) {
        trouble = .hopeless(reason)
        let requests = unsent
        unsent = []
        for (_, request) in requests { core.refuse(request, "\(address): \(reason)") }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        trouble = Trouble(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { end(trouble) }

    /// Whether the member let the hello wait for so long that it must be stopped or cut off: its system still accepts
    /// connections for it. What was not sent yet may go to another.
    func endIfMute(at now: NIODeadline) {
        guard !isReady, !isOver, let began, now - began > .seconds(2) else { return }
        trouble = .unreachable("it takes connections and says nothing: it is stopped, or no member of Banyan")
        close()
    }

    /// Takes back the requests of a member that was asked and says nothing: it may be stopped or cut off, and another can
    /// answer them. A write without a session has to wait, since it may have been proposed.
    func takeStalled(at now: NIODeadline) -> [ClientCore.Request] {
        guard !sent.isEmpty, now - lastProgress > .seconds(1) else { return [] }
        let stalled = sent.filter { $0.value.isRead || $0.value.ticket != nil || $0.value.oneTime != nil }
        for id in stalled.keys { sent[id] = nil }
        lastProgress = now
        return Array(stalled.values)
    }

    func close() { if let channel { channel.close(promise: nil) } else { end(trouble) } }

    func takeExpired(at now: NIODeadline) -> (unsent: [ClientCore.Request], sent: [ClientCore.Request]) {
        let late = unsent.filter { $0.request.deadline <= now }.map(\.request)
        unsent.removeAll { $0.request.deadline <= now }
        let lateSent = sent.filter { $0.value.deadline <= now }
        for id in lateSent.keys { sent[id] = nil }
        return (late, Array(lateSent.values))
    }

    private func end(_ trouble: Trouble) {
        guard !isOver else { return }
        isOver = true
        isReady = false
        channel = nil
        let (unsent, sent) = (unsent.map(\.request), Array(sent.values))
        self.unsent = []
        self.sent = [:]
        core.closed(self, trouble, unsent: unsent, sent: sent)
    }
}

extension ClientConnection.Trouble {
    /// Why there is no connection, in words.
    init(_ error: any Error) {
        switch error {
        case let error as NIOConnectionError:
            if let first = error.connectionErrors.first {
                self.init(first.error)
            } else {
                self = .noSuchHost(error.host)
            }
        case let error as IOError where [EMFILE, ENFILE].contains(error.errnoCode):
            self = .unreachable("this program may open no more files (see ulimit -n)")
        case let error as IOError: self = .unreachable(String(cString: strerror(error.errnoCode)).lowercased())
        case is ChannelError: self = .unreachable("nothing takes the connection")
        default: self = .unreachable("\(error)")
        }
    }
}
