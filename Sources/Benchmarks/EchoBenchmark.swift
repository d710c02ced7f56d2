import ArgumentParser
import NIOCore
import NIOPosix
import Synchronization

/// The limit beside gets: frames over loopback that are answered at once.
struct EchoBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "echo",
        abstract: "Answer frames over loopback at once: what gets would reach if they cost nothing.",
        discussion:
            "A thread asks and another answers, over connections that each have their share of requests under way.")

    @Option(help: "Requests under way.") var clients = 256
    @Option(help: "Connections that they share.") var connections = 16
    @Option(help: "Bytes of a request.") var request = 48
    @Option(help: "Bytes of an answer.") var answer = 336
    @Option(help: "Seconds to measure.") var seconds = 3.0

    func validate() throws {
        guard connections > 0, clients >= connections else {
            throw ValidationError("--clients must be at least --connections, and those at least 1")
        }
        guard request >= 4, answer >= 4 else { throw ValidationError("a frame has at least 4 bytes, for its length") }
    }

    func run() throws {
        let rate = try Self.rate(
            clients: clients, connections: connections, request: request, answer: answer, seconds: seconds)
        say("echo       \(Int(rate)) frames/s")
    }

    /// Frames answered in a second. The sizes are those of a get of 256 bytes.
    static func rate(
        clients: Int = 256, connections: Int = 16, request: Int = 48, answer: Int = 336, seconds: Double
    ) throws -> Double {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        defer { try? group.syncShutdownGracefully() }
        let (asking, answering) = (group.next(), group.next())
        let answered = Atomic<Int>(0)
        let share = clients / connections
        let server = try ServerBootstrap(group: answering)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Answerer(answer: frame(answer)) { _ in })
                }
            }
            .bind(host: "127.0.0.1", port: 0).wait()
        guard let address = server.localAddress else { throw BenchmarkError("the server has no address") }
        for _ in 0..<connections {
            let channel = try ClientBootstrap(group: asking)
                .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        // Each answer is followed by the next request.
                        try channel.pipeline.syncOperations.addHandler(
                            Answerer(answer: frame(request)) { answered.add($0, ordering: .relaxed) })
                    }
                }
                .connect(to: address).wait()
            var first = ByteBuffer()
            for _ in 0..<share { first.writeImmutableBuffer(frame(request)) }
            try channel.writeAndFlush(first).wait()
        }
        let began = ContinuousClock.now
        let before = answered.load(ordering: .relaxed)
        let end = began + .seconds(seconds)
        while ContinuousClock.now < end { usleep(10_000) }
        return Double(answered.load(ordering: .relaxed) - before) / ((ContinuousClock.now - began) / .seconds(1))
    }
}

/// A frame of so many bytes: its length (4), and nothing of interest.
private func frame(_ byteCount: Int) -> ByteBuffer {
    var frame = ByteBuffer()
    frame.writeInteger(UInt32(byteCount - 4))
    frame.writeRepeatingByte(7, count: byteCount - 4)
    return frame
}

/// Writes one frame for each that it reads, all that came together in one write.
private final class Answerer: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let answer: ByteBuffer
    private let count: (Int) -> Void
    private var incoming = ByteBuffer()

    init(answer: ByteBuffer, count: @escaping (Int) -> Void) {
        (self.answer, self.count) = (answer, count)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        incoming.writeImmutableBuffer(unwrapInboundIn(data))
        var answers = context.channel.allocator.buffer(capacity: 1 << 13)
        var frames = 0
        while let length = incoming.getInteger(at: incoming.readerIndex, as: UInt32.self),
            incoming.readableBytes >= 4 + Int(length)
        {
            incoming.moveReaderIndex(forwardBy: 4 + Int(length))
            answers.writeImmutableBuffer(answer)
            frames += 1
        }
        incoming.discardReadBytes()
        count(frames)
        if frames > 0 { context.writeAndFlush(wrapOutboundOut(answers), promise: nil) }
    }
}
