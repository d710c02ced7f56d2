import Crypto
import Deflate
import FileTree
import Glibc
import NIOCore
import Raft
import WireProtocol

/// A spooled snapshot, piece by piece, as it is sent.
package final class SnapshotFile {
    private let descriptor: CInt
    private var isAtStart = true
    private var isAtEnd = false

    package init(path: String) throws(SnapshotError) {
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .file(errno) }
    }

    deinit { close(descriptor) }

    /// The next piece, and whether it is the trailer; nil after that.
    package func next() throws(SnapshotError) -> (bytes: ByteBuffer, isLast: Bool)? {
        if isAtEnd { return nil }
        if isAtStart {
            isAtStart = false
            // 40 bytes stand before the configuration's length.
            var head = try read(44)
            guard let length = head.getInteger(at: 40, as: UInt32.self), length <= 1 << 20 else { throw .corrupt }
            var rest = try read(Int(length) + 4)
            head.writeBuffer(&rest)
            return (head, false)
        }
        var piece = try read(12)
        let length = piece.getInteger(at: 0, as: UInt32.self) ?? 0
        isAtEnd = length == 0
        guard length <= Frame.bodyBytesMax else { throw .corrupt }
        var rest = try read(isAtEnd ? 32 : Int(length))
        piece.writeBuffer(&rest)
        return (piece, isAtEnd)
    }

    private func read(_ count: Int) throws(SnapshotError) -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: count)
        while buffer.readableBytes < count {
            let wanted = count - buffer.readableBytes
            let got = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: wanted) { bytes in
                max(0, Glibc.read(descriptor, bytes.baseAddress, wanted))
            }
            guard got > 0 else { throw .corrupt }
        }
        return buffer
    }
}

/// Checks the pieces of a snapshot as they come, and builds a state from them.
package final class SnapshotReceiver {
    package let header: SnapshotHeader
    private let state: StateImport
    private var hash = SHA256()
    private var pairs: UInt64 = 0
    private var isComplete = false

    /// Begins with the header, and an empty environment.
    package init(header piece: ByteBuffer, clusterID: UInt64, into state: StateImport) throws(SnapshotError) {
        header = try SnapshotHeader(piece)
        guard header.metadata.configuration.clusterID == clusterID else { throw .wrongCluster }
        self.state = state
        piece.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
    }

    /// Takes in a chunk, or the trailer; true after the trailer, when the state is whole and durable.
    package func receive(_ piece: ByteBuffer) throws(SnapshotError) -> Bool {
        guard !isComplete, let length = piece.getInteger(at: piece.readerIndex, as: UInt32.self) else { throw .corrupt }
        if length == 0 {
            try finish(piece)
            return true
        }
        piece.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
        var piece = piece
        guard let (_, inflated, checksum) = piece.readMultipleIntegers(as: (UInt32, UInt32, UInt32).self),
            piece.readableBytes == length, inflated <= SnapshotHeader.inflatedBytesMax,
            piece.withUnsafeReadableBytes({ CRC32.of($0) }) == checksum
        else { throw .corrupt }
        let bytes: [UInt8]
        do throws(DeflateError) {
            bytes = try piece.withUnsafeReadableBytes { buffer throws(DeflateError) in
                try Deflate.decompress(buffer, byteCount: Int(inflated))
            }
        } catch { throw .corrupt }
        try add(bytes.span.bytes)
        return false
    }

    private func add(_ chunk: RawSpan) throws(SnapshotError) {
        var offset = 0
        while offset < chunk.byteCount {
            guard offset + 6 <= chunk.byteCount else { throw .corrupt }
            let keyLength = Int(
                UInt16(bigEndian: unsafe chunk.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self)))
            let rowLength = Int(
                UInt32(bigEndian: unsafe chunk.unsafeLoadUnaligned(fromByteOffset: offset + 2, as: UInt32.self)))
            let row = offset + 6 + keyLength
            let end = row + rowLength
            guard end <= chunk.byteCount else { throw .corrupt }
            do throws(StateError) {
                try state.add(key: chunk.extracting(offset + 6..<row), row: chunk.extracting(row..<end))
            } catch {
                // The disk's fault, or a pair's: a checksum, a key that is too long, or the order.
                if case .store = error { throw .state(error) }
                throw .corrupt
            }
            pairs += 1
            offset = end
        }
    }

    private func finish(_ trailer: ByteBuffer) throws(SnapshotError) {
        var trailer = trailer
        guard let head = trailer.readSlice(length: 12), trailer.readableBytes == 32 else { throw .corrupt }
        head.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
        guard head.getInteger(at: head.readerIndex + 4, as: UInt64.self) == pairs,
            hash.finalize().elementsEqual(trailer.readableBytesView)
        else { throw .corrupt }
        let applied: Applied
        do { applied = try state.finish() } catch { throw .state(error) }
        let metadata = header.metadata
        guard (applied.index, applied.term) == (metadata.index, metadata.term) else { throw .corrupt }
        isComplete = true
    }
}
