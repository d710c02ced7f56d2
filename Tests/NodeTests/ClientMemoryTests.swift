import NIOCore
import NIOEmbedded
import Raft
import Testing
import Transport
import WireProtocol

@Suite("What clients hold in memory")
struct ClientMemoryTests {
    /// A socket whose other side is gone, as a write finds out.
    private final class Broken: ChannelOutboundHandler {
        typealias OutboundIn = ByteBuffer

        func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
            promise?.fail(ChannelError.ioOnClosedChannel)
            context.close(promise: nil)
        }
    }

    @Test("a connection gives back what it holds once, whether its reads or the connection end first")
    func ends() throws {
        let memory = ClientMemory()
        for isBroken in [false, true] {
            var hasClosed = false
            let connection = FrameConnection(
                id: 1, memory: memory, onFrame: { _, _ in }, onClose: { _, _ in hasClosed = true })
            let channel = EmbeddedChannel()
            if isBroken { try channel.pipeline.syncOperations.addHandler(Broken()) }
            try channel.pipeline.syncOperations.addHandler(connection)
            try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
            connection.readBegins(1000)
            connection.readBegins(2000)
            #expect(memory.heldBytes == 3000)
            // A long answer leaves at once, behind what was gathered.
            connection.write { $0.writeInteger(UInt8(0)) }
            connection.write(frames: ByteBuffer(repeating: 0, count: 100_000))
            #expect(hasClosed == isBroken)
            connection.readsEnd(1, reserved: 1000, bytesMax: 100_000)
            #expect(memory.heldBytes == (isBroken ? 0 : 2000))
            if !isBroken { channel.close(promise: nil) }
            #expect(memory.heldBytes == 0)
            connection.readBegins(10)
            connection.readsEnd(1, reserved: 2000, bytesMax: 0)
            #expect(memory.heldBytes == 0)
        }
    }
}
