import Crypto
import Deflate
import FileTree
import NIOCore
import Raft

/// Checks the pieces of a snapshot in their order: every checksum, the hash of the whole, and the state's digest. The pairs
/// inside go to whoever builds something from them.
package struct SnapshotChecker {
    package let header: SnapshotHeader
    /// What the rows say was applied; nil before the trailer.
    package private(set) var applied: Applied?
    private var hash = SHA256()
    private var audit = StateAudit()

    /// Begins with the header.
    ///
    /// - Parameter clusterID: of the only cluster whose snapshot will do; nil for any.
    package init(header piece: ByteBuffer, clusterID: UInt64?) throws(SnapshotError) {
        header = try SnapshotHeader(piece)
        if let clusterID, header.metadata.configuration.clusterID != clusterID { throw .wrongCluster }
        piece.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
    }

    /// Rows so far, and their bytes with their keys.
    package var rows: UInt64 { audit.rows }
    package var bytes: UInt64 { audit.bytes }

    /// Takes in a chunk, or the trailer; true after the trailer, when the snapshot is whole.
    package mutating func check(
        _ piece: ByteBuffer, _ visit: (_ key: RawSpan, _ row: RawSpan) throws(StateError) -> Void
    ) throws(SnapshotError) -> Bool {
        guard applied == nil, let length = piece.getInteger(at: piece.readerIndex, as: UInt32.self) else {
            throw .corrupt
        }
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
        try add(bytes.span.bytes, visit)
        return false
    }

    private mutating func add(
        _ chunk: RawSpan, _ visit: (RawSpan, RawSpan) throws(StateError) -> Void
    ) throws(SnapshotError) {
        var offset = 0
        while offset < chunk.byteCount {
            guard offset + 6 <= chunk.byteCount else { throw .corrupt }
            let keyLength = Int(
                UInt16(bigEndian: unsafe chunk.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt16.self)))
            let rowLength = Int(
                UInt32(bigEndian: unsafe chunk.unsafeLoadUnaligned(fromByteOffset: offset + 2, as: UInt32.self)))
            let start = offset + 6 + keyLength
            let end = start + rowLength
            guard end <= chunk.byteCount else { throw .corrupt }
            let (key, row) = (chunk.extracting(offset + 6..<start), chunk.extracting(start..<end))
            do throws(StateError) {
                try audit.add(key: key, row: row)
                try visit(key, row)
            } catch {
                // The disk's fault, or a pair's: a checksum, a hash, a key that is too long, or the order.
                if case .store = error { throw .state(error) }
                throw .corrupt
            }
            offset = end
        }
    }

    private mutating func finish(_ trailer: ByteBuffer) throws(SnapshotError) {
        var trailer = trailer
        guard let head = trailer.readSlice(length: 12), trailer.readableBytes == 32 else { throw .corrupt }
        head.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
        guard head.getInteger(at: head.readerIndex + 4, as: UInt64.self) == audit.rows,
            hash.finalize().elementsEqual(trailer.readableBytesView)
        else { throw .corrupt }
        let applied: Applied
        do { applied = try audit.finish() } catch { throw .state(error) }
        let metadata = header.metadata
        guard (applied.index, applied.term) == (metadata.index, metadata.term) else { throw .corrupt }
        self.applied = applied
    }
}
