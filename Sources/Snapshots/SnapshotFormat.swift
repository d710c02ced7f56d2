import Deflate
import FileTree
import Glibc
import NIOCore
import Raft
import WireProtocol

/// Why a snapshot can't be written or used. Nothing of the present state was touched.
package enum SnapshotError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The system's error number.
    case file(Int32)
    /// The state can't be read, or not be written.
    case state(StateError)
    case notASnapshot
    /// Written in a format, or at a cluster version, that this program does not know.
    case unknownFormat(UInt16)
    /// A checksum, a length or the order is wrong.
    case corrupt
    case wrongCluster

    /// Whether there is no room on the disk.
    package var isFull: Bool {
        switch self {
        case .file(let code): code == ENOSPC || code == EDQUOT
        case .state(let error): error.isFull
        case .notASnapshot, .unknownFormat, .corrupt, .wrongCluster: false
        }
    }

    package var description: String {
        switch self {
        case .file(let code): "the file can't be read or written: \(String(cString: strerror(code)))"
        case .state(let error): "the state: \(error)"
        case .notASnapshot: "not a snapshot of Banyan's"
        case .unknownFormat(let version):
            "written by a newer program (version \(version) of the format or of the cluster), which this one can't read"
        case .corrupt: "damaged: it was cut short or changed; take another copy"
        case .wrongCluster: "a snapshot of another cluster"
        }
    }
}

/// A snapshot is a file of pieces: a header, chunks, and a trailer. Each piece travels as one frame. Big-endian.
///
///     header   "BNYNSNAP" (8), format (2): 1, cluster version (2), group (2): 0, zero (2), cluster id (8), index (8),
///              term (8), the configuration at that index: length (4) and bytes, CRC32 of all before it (4)
///     chunk    length of the compressed bytes (4, never zero), length of the bytes inside (4), CRC32 of the compressed
///              bytes (4), an independent zlib stream; inside, pairs in the order of their keys: length of the key (2),
///              of the row (4), key, row with its own checksum. A pair lies in one chunk.
///     trailer  zero (4), how many pairs (8), the SHA-256 of everything before it in the file (32)
package struct SnapshotHeader: Equatable, Sendable {
    package static let format: UInt16 = 1
    static let magic = Array("BNYNSNAP".utf8)
    /// Bytes of pairs in a chunk; one longer pair still passes alone.
    static let chunkBytesMax = 1 << 20
    /// The most that a chunk may hold: one pair of the longest content, its key and lengths.
    static let inflatedBytesMax = (1 << 20) + 4096

    package var clusterVersion: UInt16
    package var metadata: SnapshotMetadata

    package init(clusterVersion: UInt16, metadata: SnapshotMetadata) {
        self.clusterVersion = clusterVersion
        self.metadata = metadata
    }

    func encoded() -> ByteBuffer {
        var configuration = ByteBuffer()
        metadata.configuration.write(to: &configuration)
        var header = ByteBuffer(bytes: Self.magic)
        header.writeMultipleIntegers(Self.format, clusterVersion, UInt16(0), UInt16(0))
        header.writeMultipleIntegers(metadata.configuration.clusterID, metadata.index, metadata.term)
        header.writeInteger(UInt32(configuration.readableBytes))
        header.writeImmutableBuffer(configuration)
        header.writeInteger(header.withUnsafeReadableBytes { CRC32.of($0) })
        return header
    }

    package init(_ piece: ByteBuffer) throws(SnapshotError) {
        var header = piece
        guard header.readBytes(length: Self.magic.count) == Self.magic else { throw .notASnapshot }
        guard
            let (format, version, group, zero) = header.readMultipleIntegers(as: (UInt16, UInt16, UInt16, UInt16).self)
        else { throw .corrupt }
        guard format == Self.format else { throw .unknownFormat(format) }
        guard version <= Applied.clusterVersionMax else { throw .unknownFormat(version) }
        guard group == 0, zero == 0,
            let (cluster, index, term, length) = header.readMultipleIntegers(as: (UInt64, UInt64, UInt64, UInt32).self),
            var bytes = header.readSlice(length: Int(length)), let configuration = Configuration(from: &bytes),
            configuration.clusterID == cluster, max(index, term) <= PeerMessage.numberMax,
            let checksum = header.readInteger(as: UInt32.self),
            header.readableBytes == 0,
            piece.withUnsafeReadableBytes({ CRC32.of(UnsafeRawBufferPointer(rebasing: $0.dropLast(4))) }) == checksum
        else { throw .corrupt }
        clusterVersion = version
        metadata = SnapshotMetadata(index: index, term: term, configuration: configuration)
    }
}
