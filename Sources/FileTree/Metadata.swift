import NIOCore

/// What a directory lists of an entry. The same 40 bytes stand at the head of the entry's row, in an answer to `stat`
/// and `get`, and in a listing:
///
///     0   1  kind: 1 file, 2 directory
///     1   1  where the content is: 0 nowhere (a directory), 1 in the row, 2 in chunks named by their SHA-256
///     2   2  mode: POSIX permission bits
///     4   4  zero
///     8   8  inode
///     16  8  revision: the Raft index of the command that last changed the entry
///     24  8  mtime: nanoseconds since 1970, signed
///     32  8  size in bytes (0 for a directory)
package struct Metadata: Equatable, Sendable {
    package enum Kind: UInt8, Sendable { case file = 1, directory = 2 }
    package enum ContentPlace: UInt8, Sendable { case none = 0, inline = 1, chunks = 2 }

    package static let byteCount = 40

    package var kind: Kind
    package var place: ContentPlace
    package var mode: UInt16
    package var inode: UInt64
    package var revision: UInt64
    package var mtime: Int64
    package var size: UInt64

    package init(
        kind: Kind, place: ContentPlace, mode: UInt16, inode: UInt64, revision: UInt64, mtime: Int64, size: UInt64
    ) {
        self.kind = kind
        self.place = place
        self.mode = mode
        self.inode = inode
        self.revision = revision
        self.mtime = mtime
        self.size = size
    }

    init?(row: RawSpan) {
        guard row.byteCount >= Self.byteCount,
            let kind = Kind(rawValue: row.bigEndian(at: 0, as: UInt8.self)),
            let place = ContentPlace(rawValue: row.bigEndian(at: 1, as: UInt8.self))
        else { return nil }
        self.init(
            kind: kind, place: place, mode: row.bigEndian(at: 2, as: UInt16.self),
            inode: row.bigEndian(at: 8, as: UInt64.self), revision: row.bigEndian(at: 16, as: UInt64.self),
            mtime: Int64(bitPattern: row.bigEndian(at: 24, as: UInt64.self)),
            size: row.bigEndian(at: 32, as: UInt64.self))
    }

    func write(to row: UnsafeMutableRawBufferPointer) {
        row.storeBigEndian(kind.rawValue, at: 0)
        row.storeBigEndian(place.rawValue, at: 1)
        row.storeBigEndian(mode, at: 2)
        row.storeBigEndian(UInt32(0), at: 4)
        row.storeBigEndian(inode, at: 8)
        row.storeBigEndian(revision, at: 16)
        row.storeBigEndian(UInt64(bitPattern: mtime), at: 24)
        row.storeBigEndian(size, at: 32)
    }
}

extension ByteBuffer {
    package mutating func writeMetadata(_ metadata: Metadata) {
        writeWithUnsafeMutableBytes(minimumWritableBytes: Metadata.byteCount) { bytes in
            metadata.write(to: UnsafeMutableRawBufferPointer(rebasing: bytes[..<Metadata.byteCount]))
            return Metadata.byteCount
        }
    }

    package mutating func readMetadata() -> Metadata? {
        guard let bytes = readBytes(length: Metadata.byteCount) else { return nil }
        return Metadata(row: bytes.span.bytes)
    }
}

extension RawSpan {
    /// The integer at `offset`, which must lie within the span, most significant byte first.
    @inline(__always)
    func bigEndian<Number: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as type: Number.Type) -> Number {
        Number(bigEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: type))
    }
}

extension UnsafeMutableRawBufferPointer {
    @inline(__always)
    func storeBigEndian<Number: FixedWidthInteger & BitwiseCopyable>(_ number: Number, at offset: Int) {
        storeBytes(of: number.bigEndian, toByteOffset: offset, as: Number.self)
    }
}
