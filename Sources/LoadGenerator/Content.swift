import NIOCore
import Raft

/// Files' contents: each unlike any other, and nothing that compresses, alone or beside others, so that no store can save
/// itself the work.
struct Content {
    private static let poolBytes = 1 << 20

    private let size: Int
    /// Random bytes, of which each content is another part, with a number of its own at its end.
    private let pool: ByteBuffer
    private var random: SeededGenerator

    init(size: Int, seed: UInt64) {
        self.size = size
        random = SeededGenerator(seed: seed)
        var pool = ByteBufferAllocator().buffer(capacity: Self.poolBytes + size + 8)
        while pool.readableBytes < Self.poolBytes + size { pool.writeInteger(random.next()) }
        self.pool = pool
    }

    /// Has `write` put a content at the end of `body`, and makes it unlike all others there.
    mutating func next(in body: inout ByteBuffer, _ write: (ByteBuffer, inout ByteBuffer) -> Void) {
        let offset = Int(random.next() % UInt64(Self.poolBytes))
        write(pool.getSlice(at: offset, length: size) ?? ByteBuffer(), &body)
        var number = random.next()
        withUnsafeBytes(of: &number) { bytes in
            let count = min(size, bytes.count)
            _ = body.setBytes(bytes.prefix(count), at: body.writerIndex - count)
        }
    }

    mutating func next() -> ByteBuffer {
        var content = ByteBuffer()
        next(in: &content) { $1.writeImmutableBuffer($0) }
        return content
    }
}
