import CZlib

/// The CRC-32 of zlib, gzip and PNG (polynomial 0xEDB88320, reflected).
package struct CRC32 {
    /// The checksum of what was added so far.
    package private(set) var value: UInt32 = 0

    package init() {}

    package mutating func add(_ bytes: UnsafeRawBufferPointer) {
        guard let base = bytes.baseAddress else { return }
        value = UInt32(truncatingIfNeeded: crc32_z(UInt(value), base.assumingMemoryBound(to: UInt8.self), bytes.count))
    }

    package mutating func add(_ bytes: RawSpan) { bytes.withUnsafeBytes { add($0) } }

    package static func of(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        var checksum = CRC32()
        checksum.add(bytes)
        return checksum.value
    }
}
