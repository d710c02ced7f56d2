import CrashPoints
import Crypto
import Deflate
import Dispatch
import FileTree
import Glibc
import NIOCore
import Raft
import Synchronization
import WireProtocol

/// A snapshot that is being written to a file, readable piece by piece while it grows: so that whoever takes it slowly pins
/// none of LMDB's pages, several share it, and the first piece leaves before the last is made.
///
/// The file has no name: it goes with its last reader, or with the process.
package final class Spool: Sendable {
    package let header: SnapshotHeader
    private let descriptor: CInt
    private let reserve: UInt64
    private let progress = Mutex(Progress())

    private struct Progress {
        /// Where each piece ends in the file.
        var ends: [Int] = []
        var isWhole = false
        var failure: SnapshotError?
        /// Who waits for more than there is.
        var waiters: [(number: UInt32, body: @Sendable () -> Void)] = []

        /// Whether there is a piece of this number, or will never be.
        func isSettled(_ number: UInt32) -> Bool { ends.count > Int(number) || isWhole || failure != nil }
    }

    /// Begins with the header.
    ///
    /// - Parameters:
    ///   - directory: where the file lives.
    ///   - reserve: bytes of the disk that stay free, or the snapshot fails.
    package init(of view: borrowing StateView, in directory: String, reserve: UInt64) throws(SnapshotError) {
        var configurationBytes = ByteBuffer(bytes: view.configuration)
        guard let configuration = Configuration(from: &configurationBytes) else { throw .state(.unknownFormat) }
        header = SnapshotHeader(
            clusterVersion: view.applied.clusterVersion,
            metadata: SnapshotMetadata(
                index: view.applied.index, term: view.applied.term, configuration: configuration))
        self.reserve = reserve
        let path = directory + "/snapshot"
        descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .file(errno) }
        CrashPoint.spoolMade.reach()
        unlink(path)
    }

    deinit { close(descriptor) }

    /// Bytes in the file so far.
    package var bytes: Int { progress.withLock { $0.ends.last ?? 0 } }
    /// Bytes of the whole file; nil while it is being written.
    package var wholeBytes: Int? { progress.withLock { $0.isWhole ? $0.ends.last : nil } }
    package var hasFailed: Bool { progress.withLock { $0.failure != nil } }

    /// Writes everything, at most `chunksAtOnce` chunks in memory at once, each compressed by a thread of its own.
    ///
    /// - Parameter isGivenUp: asked now and then.
    package func fill(from view: borrowing StateView, unless isGivenUp: () -> Bool = { false }) {
        do throws(SnapshotError) {
            var file = Writer(spool: self)
            try file.write(header.encoded())
            var chunks: [ByteBuffer] = [ByteBuffer()]
            var pairs: UInt64 = 0
            var failure: SnapshotError?
            do throws(StateError) {
                try view.forEach { key, row throws(StateError) in
                    guard failure == nil else { throw .store(ECANCELED) }
                    let size = 6 + key.byteCount + row.byteCount
                    let last = chunks[chunks.count - 1].readableBytes
                    if last > 0, last + size > SnapshotHeader.chunkBytesMax {
                        if chunks.count == Self.chunksAtOnce {
                            // The file stands beside the state, on the same disk.
                            guard view.freeDiskBytes >= reserve else { return failure = .file(ENOSPC) }
                            guard !isGivenUp() else { return failure = .file(ECANCELED) }
                            do throws(SnapshotError) { try file.write(compressing: chunks) } catch { failure = error }
                            chunks = []
                        }
                        chunks.append(ByteBufferAllocator().buffer(capacity: SnapshotHeader.chunkBytesMax))
                    }
                    chunks[chunks.count - 1].writeMultipleIntegers(UInt16(key.byteCount), UInt32(row.byteCount))
                    key.withUnsafeBytes { _ = chunks[chunks.count - 1].writeBytes($0) }
                    row.withUnsafeBytes { _ = chunks[chunks.count - 1].writeBytes($0) }
                    pairs += 1
                }
            } catch { throw failure ?? .state(error) }
            if let failure { throw failure }
            if pairs > 0 { try file.write(compressing: chunks) }
            var trailer = ByteBuffer()
            trailer.writeMultipleIntegers(UInt32(0), pairs)
            try file.finish(trailer)
            CrashPoint.spoolWritten.reach()
        } catch {
            notify { $0.failure = error }
        }
    }

    private static let chunksAtOnce = 4

    /// The piece of this number, 0 the header; nil when it is not written yet.
    package func piece(_ number: UInt32) throws(SnapshotError) -> (bytes: ByteBuffer, isLast: Bool)? {
        let number = Int(number)
        let (range, isLast): (Range<Int>?, Bool) = try progress.withLock { progress throws(SnapshotError) in
            if let failure = progress.failure { throw failure }
            guard number < progress.ends.count else {
                if progress.isWhole { throw .corrupt }
                return (nil, false)
            }
            let start = number == 0 ? 0 : progress.ends[number - 1]
            return (start..<progress.ends[number], progress.isWhole && number == progress.ends.count - 1)
        }
        guard let range else { return nil }
        var buffer = ByteBufferAllocator().buffer(capacity: range.count)
        while buffer.readableBytes < range.count {
            let wanted = range.count - buffer.readableBytes
            let offset = range.lowerBound + buffer.readableBytes
            let got = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: wanted) { bytes in
                max(0, pread(descriptor, bytes.baseAddress, wanted, off_t(offset)))
            }
            guard got > 0 else { throw .file(errno) }
        }
        return (buffer, isLast)
    }

    /// Calls `body` once, when there is a piece of this number, or will never be: at once, or on the writer's thread.
    package func whenAvailable(_ number: UInt32, _ body: @escaping @Sendable () -> Void) {
        let isReady = progress.withLock { progress in
            if progress.isSettled(number) { return true }
            progress.waiters.append((number, body))
            return false
        }
        if isReady { body() }
    }

    private func notify(_ change: (inout Progress) -> Void) {
        let waiters = progress.withLock { progress in
            change(&progress)
            let (all, isSettled) = (progress.waiters, progress.isSettled)
            progress.waiters = all.filter { !isSettled($0.number) }
            return all.filter { isSettled($0.number) }
        }
        for waiter in waiters { waiter.body() }
    }

    /// The file's end, and the hash of all before it.
    private struct Writer {
        let spool: Spool
        private var hash = SHA256()
        private var end = 0

        init(spool: Spool) { self.spool = spool }

        mutating func write(compressing chunks: [ByteBuffer]) throws(SnapshotError) {
            let pieces = Mutex([ByteBuffer?](repeating: nil, count: chunks.count))
            DispatchQueue.concurrentPerform(iterations: chunks.count) { number in
                let piece = Self.compressed(chunks[number])
                pieces.withLock { $0[number] = piece }
            }
            for piece in pieces.withLock({ $0 }) { if let piece { try write(piece) } }
        }

        mutating func write(_ piece: ByteBuffer) throws(SnapshotError) {
            piece.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
            try put(piece)
            let end = end
            spool.notify { $0.ends.append(end) }
        }

        mutating func finish(_ trailer: ByteBuffer) throws(SnapshotError) {
            trailer.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
            var trailer = trailer
            trailer.writeBytes(Array(hash.finalize()))
            try put(trailer)
            let end = end
            spool.notify {
                $0.ends.append(end)
                $0.isWhole = true
            }
        }

        private mutating func put(_ piece: ByteBuffer) throws(SnapshotError) {
            let (descriptor, start) = (spool.descriptor, end)
            let isWritten = piece.withUnsafeReadableBytes { bytes in
                var written = 0
                while written < bytes.count {
                    let rest = UnsafeRawBufferPointer(rebasing: bytes[written...])
                    let count = pwrite(descriptor, rest.baseAddress, rest.count, off_t(start + written))
                    guard count > 0 else { return false }
                    written += count
                }
                return true
            }
            guard isWritten else { throw .file(errno) }
            end += piece.readableBytes
        }

        private static func compressed(_ chunk: ByteBuffer) -> ByteBuffer {
            let bytes: [UInt8]
            do throws(DeflateError) {
                bytes = try chunk.withUnsafeReadableBytes { buffer throws(DeflateError) in
                    try Deflate.compress(buffer)
                }
            } catch { preconditionFailure("zlib refuses to compress a chunk in memory: \(error)") }
            var piece = ByteBufferAllocator().buffer(capacity: 12 + bytes.count)
            piece.writeMultipleIntegers(
                UInt32(bytes.count), UInt32(chunk.readableBytes), bytes.withUnsafeBytes { CRC32.of($0) })
            piece.writeBytes(bytes)
            return piece
        }
    }
}
