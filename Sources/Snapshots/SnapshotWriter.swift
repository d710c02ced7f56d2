import CrashPoints
import Crypto
import Deflate
import FileTree
import Glibc
import NIOCore
import Raft
import WireProtocol

/// Writes a state into a snapshot file, from a view that pins LMDB's pages for no longer than the writing takes.
package enum SnapshotWriter {
    /// Spools `view` into `path`, which is replaced as a whole.
    package static func spool(_ view: borrowing StateView, to path: String) throws(SnapshotError) -> SnapshotHeader {
        var bytes = ByteBuffer(bytes: view.configuration)
        guard let configuration = Configuration(from: &bytes) else { throw .state(.unknownFormat) }
        let header = SnapshotHeader(
            clusterVersion: view.applied.clusterVersion,
            metadata: SnapshotMetadata(
                index: view.applied.index, term: view.applied.term, configuration: configuration))
        let file = try SpoolFile(path: path + ".new")
        try file.write(header.encoded())
        var chunk = ByteBuffer()
        var pairs: UInt64 = 0
        var failure: SnapshotError?
        do throws(StateError) {
            try view.forEach { key, row throws(StateError) in
                guard failure == nil else { return }
                let size = 6 + key.byteCount + row.byteCount
                if chunk.readableBytes > 0, chunk.readableBytes + size > SnapshotHeader.chunkBytesMax {
                    do throws(SnapshotError) { try file.write(compressed(chunk)) } catch { failure = error }
                    chunk.clear()
                }
                chunk.writeMultipleIntegers(UInt16(key.byteCount), UInt32(row.byteCount))
                key.withUnsafeBytes { _ = chunk.writeBytes($0) }
                row.withUnsafeBytes { _ = chunk.writeBytes($0) }
                pairs += 1
            }
        } catch { throw .state(error) }
        if let failure { throw failure }
        if chunk.readableBytes > 0 { try file.write(compressed(chunk)) }
        var trailer = ByteBuffer()
        trailer.writeMultipleIntegers(UInt32(0), pairs)
        try file.write(trailer)
        try file.finish(as: path)
        return header
    }

    private static func compressed(_ chunk: ByteBuffer) -> ByteBuffer {
        let bytes: [UInt8]
        do throws(DeflateError) {
            bytes = try chunk.withUnsafeReadableBytes { buffer throws(DeflateError) in try Deflate.compress(buffer) }
        } catch { preconditionFailure("zlib refuses to compress a chunk in memory: \(error)") }
        var piece = ByteBufferAllocator().buffer(capacity: 12 + bytes.count)
        piece.writeMultipleIntegers(
            UInt32(bytes.count), UInt32(chunk.readableBytes), bytes.withUnsafeBytes { CRC32.of($0) })
        piece.writeBytes(bytes)
        return piece
    }
}

/// A file that is written from its start to its end, and hashed on the way.
private final class SpoolFile {
    private let path: String
    private let descriptor: CInt
    private var hash = SHA256()
    private var isFinished = false

    init(path: String) throws(SnapshotError) {
        self.path = path
        descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw .file(errno) }
    }

    deinit {
        close(descriptor)
        if !isFinished { unlink(path) }
    }

    func write(_ piece: ByteBuffer) throws(SnapshotError) {
        piece.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
        try put(piece)
    }

    private func put(_ piece: ByteBuffer) throws(SnapshotError) {
        let isWritten = piece.withUnsafeReadableBytes { bytes in
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                guard count > 0 else { return false }
                rest = rest.dropFirst(count)
            }
            return true
        }
        guard isWritten else { throw .file(errno) }
    }

    func finish(as final: String) throws(SnapshotError) {
        try put(ByteBuffer(bytes: Array(hash.finalize())))
        CrashPoint.spoolWritten.reach()
        guard fsync(descriptor) == 0 else { throw .file(errno) }
        CrashPoint.spoolSynced.reach()
        guard rename(path, final) == 0 else { throw .file(errno) }
        CrashPoint.spoolRenamed.reach()
        isFinished = true
    }
}
