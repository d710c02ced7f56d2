import NIOCore
import Raft

/// Files' contents: each unlike any other, and nothing that compresses, alone or beside others, so that no store can save
/// itself the work.
struct Content {
    private static let sizeMax = 1 << 20

    /// Random bytes, of which each content is another part, with a number of its own at its end.
    private static let pool: ByteBuffer = {
        var pool = ByteBufferAllocator().buffer(capacity: 2 * sizeMax)
        var random = SeededGenerator(seed: .random(in: 0...UInt64.max))
        while pool.readableBytes < 2 * sizeMax { pool.writeInteger(random.next()) }
        return pool
    }()

    private let size: Int
    private var random: SeededGenerator

    /// - Parameter size: 1 MiB at the most.
    init(size: Int, seed: UInt64) {
        self.size = size
        random = SeededGenerator(seed: seed)
        // Not at the first request: what is measured has begun by then.
        _ = Self.pool
    }

    /// Has `write` put a content at the end of `body`, and makes it unlike all others there.
    mutating func next(in body: inout ByteBuffer, _ write: (ByteBuffer, inout ByteBuffer) -> Void) {
        let offset = Int(random.next() % UInt64(Self.sizeMax))
        write(Self.pool.getSlice(at: offset, length: size) ?? ByteBuffer(), &body)
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
