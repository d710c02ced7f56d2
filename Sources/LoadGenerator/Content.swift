import NIOCore
import Raft

/// Files' contents: each unlike any other, and nothing that compresses, so that no store can save itself the work.
struct Content {
    private var bytes: ByteBuffer
    private var random: SeededGenerator

    init(size: Int, seed: UInt64) {
        random = SeededGenerator(seed: seed)
        bytes = ByteBufferAllocator().buffer(capacity: size + 8)
        while bytes.writableBytes >= 8, bytes.readableBytes < size { bytes.writeInteger(random.next()) }
        bytes.moveWriterIndex(to: size)
    }

    mutating func next() -> ByteBuffer {
        if bytes.readableBytes >= 8 { bytes.setInteger(random.next(), at: bytes.readerIndex) }
        return bytes
    }
}
