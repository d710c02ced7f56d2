import FileTree
import Glibc
import NIOCore
import WireProtocol

/// A snapshot in a file, piece by piece from the first.
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
    ///
    /// - Throws: `.corrupt` when the file ends before its trailer, or goes on behind it.
    package func next() throws(SnapshotError) -> (bytes: ByteBuffer, isLast: Bool)? {
        if isAtEnd {
            var byte: UInt8 = 0
            guard Glibc.read(descriptor, &byte, 1) == 0 else { throw .corrupt }
            return nil
        }
        if isAtStart {
            var magic = try read(SnapshotHeader.magic.count)
            isAtStart = false
            guard magic.readableBytesView.elementsEqual(SnapshotHeader.magic) else { throw .notASnapshot }
            // Up to the configuration's length.
            var head = try read(44 - SnapshotHeader.magic.count)
            magic.writeBuffer(&head)
            guard let length = magic.getInteger(at: 40, as: UInt32.self), length <= 1 << 20 else { throw .corrupt }
            var rest = try read(Int(length) + 4)
            magic.writeBuffer(&rest)
            return (magic, false)
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
            guard got > 0 else { throw isAtStart ? .notASnapshot : .corrupt }
        }
        return buffer
    }
}

/// Builds a state from the pieces of a snapshot as they come.
package final class SnapshotReceiver {
    private var checker: SnapshotChecker
    private let state: StateImport

    /// Begins with the header, and an empty directory.
    ///
    /// - Parameters:
    ///   - clusterID: of the only cluster whose snapshot will do; nil for any.
    ///   - reserve: bytes of the disk that stay free, or the snapshot is not taken.
    package init(
        header piece: ByteBuffer, clusterID: UInt64?, into path: String, reserve: UInt64
    ) throws(SnapshotError) {
        checker = try SnapshotChecker(header: piece, clusterID: clusterID)
        do { state = try StateImport(path: path, reserve: reserve) } catch { throw .state(error) }
    }

    package var header: SnapshotHeader { checker.header }
    /// Bytes of rows so far.
    package var bytes: UInt64 { checker.bytes }

    /// Takes in a chunk, or the trailer; true after the trailer, when the state is whole and durable.
    package func receive(_ piece: ByteBuffer) throws(SnapshotError) -> Bool {
        let state = state
        guard try checker.check(piece, { key, row throws(StateError) in try state.add(key: key, row: row) }) else {
            return false
        }
        do { try state.finish() } catch { throw .state(error) }
        return true
    }
}
