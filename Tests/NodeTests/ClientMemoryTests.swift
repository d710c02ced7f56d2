import NIOCore
import NIOEmbedded
import Raft
import Testing
import Transport
import WireProtocol

@testable import Node

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

    /// Connections as a member holds them.
    private final class Holder {
        var clients = ClientTable(memory: ClientMemory())
    }

    @Test("a connection that finds its socket broken when it is flushed leaves the table, while others are flushed")
    func brokenFlush() throws {
        let holder = Holder()
        var channels: [EmbeddedChannel] = []
        for id in 1...3 as ClosedRange<UInt64> {
            let connection = FrameConnection(
                id: id, memory: holder.clients.memory, onFrame: { _, _ in },
                onClose: { connection, _ in holder.clients.closed(connection) })
            let channel = EmbeddedChannel()
            if id == 2 { try channel.pipeline.syncOperations.addHandler(Broken()) }
            try channel.pipeline.syncOperations.addHandler(connection)
            try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
            channels.append(channel)
            holder.clients.opened(connection)
            connection.write { $0.writeInteger(UInt8(0)) }
            holder.clients.markDirty(connection)
            holder.clients.markDirty(connection)
        }
        let dirty = holder.clients.takeDirty()
        #expect(dirty.map(\.id) == [1, 2, 3] && holder.clients.takeDirty().isEmpty)
        for connection in dirty { connection.flush() }
        #expect(holder.clients.count == 2 && holder.clients[2] == nil)
        for channel in [channels[0], channels[2]] {
            #expect(try channel.readOutbound(as: ByteBuffer.self)?.readableBytes == 1)
            channel.close(promise: nil)
        }
        #expect(holder.clients.count == 0)
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
