import Deflate
import NIOCore
import Raft

/// An entry in the very form in which it stands in the log and travels between members: 28 bytes, big-endian, and the
/// payload.
///
///     0   2  group: zero
///     2   1  kind: 0 no-op, 1 command, 2 configuration
///     3   1  version of the record: 1
///     4   4  length of the payload
///     8   8  index
///     16  8  term
///     24  4  CRC32 of the 24 bytes before and of the payload
///
/// The checksum is made once, by the leader, and checked by everyone who takes the record in.
package struct EntryRecord: Sendable {
    package static let headerByteCount = 28
    static let version: UInt8 = 1

    package var header: EntryHeader
    package var payload: ByteBuffer

    /// Takes the next record and checks it, unless that was done already.
    package init(from buffer: inout ByteBuffer, isChecked: Bool = false) throws(ProtocolError) {
        let start = buffer.readerIndex
        guard
            let (group, kind, version, length, index, term, checksum) = buffer.readMultipleIntegers(
                as: (UInt16, UInt8, UInt8, UInt32, UInt64, UInt64, UInt32).self),
            group == 0, version == Self.version, let kind = EntryKind(rawValue: kind),
            let payload = buffer.readSlice(length: Int(length))
        else { throw .malformedBody(.peerMessage) }
        header = EntryHeader(index: index, term: term, kind: kind, size: UInt32(Self.headerByteCount) + length)
        self.payload = payload
        if isChecked { return }
        var crc = CRC32()
        buffer.withVeryUnsafeBytes { bytes in crc.add(UnsafeRawBufferPointer(rebasing: bytes[start..<start + 24])) }
        payload.withUnsafeReadableBytes { crc.add($0) }
        guard crc.value == checksum else { throw .corruptRecord(index: index) }
    }
}

extension EntryRecord {
    /// Bytes of the record of an entry that brings this configuration; nil: of one without payload.
    package static func size(of configuration: Configuration?) -> UInt32 {
        guard let configuration else { return UInt32(headerByteCount) }
        var payload = ByteBuffer()
        configuration.write(to: &payload)
        return UInt32(headerByteCount + payload.readableBytes)
    }

    /// The record of an entry, in a buffer of its own.
    package static func bytes(_ kind: EntryKind, index: Index, term: Term, _ payload: ByteBuffer) -> ByteBuffer {
        var record = ByteBuffer()
        let start = record.beginRecord(kind, index: index, term: term, length: payload.readableBytes)
        record.writeImmutableBuffer(payload)
        record.sealRecord(at: start)
        return record
    }
}

extension ByteBuffer {
    /// Writes the head of a record whose payload of `length` bytes must follow; `sealRecord` completes it.
    package mutating func beginRecord(_ kind: EntryKind, index: Index, term: Term, length: Int) -> Int {
        let start = writerIndex
        writeMultipleIntegers(UInt16(0), kind.rawValue, EntryRecord.version, UInt32(length), index, term, UInt32(0))
        return start
    }

    /// Writes the checksum of the record that starts at `start` and ends here.
    package mutating func sealRecord(at start: Int) {
        let end = writerIndex
        let checksum = withVeryUnsafeBytes { bytes in
            var crc = CRC32()
            crc.add(UnsafeRawBufferPointer(rebasing: bytes[start..<start + 24]))
            crc.add(UnsafeRawBufferPointer(rebasing: bytes[start + EntryRecord.headerByteCount..<end]))
            return crc.value
        }
        setInteger(checksum, at: start + 24)
    }
}
