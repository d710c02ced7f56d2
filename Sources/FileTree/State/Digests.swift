import Crypto

/// A chunk's name: the SHA-256 of its bytes.
package struct ContentHash: Equatable, Sendable {
    static let byteCount = 32
    let bytes: [UInt8]

    init(bytes: [UInt8]) { self.bytes = bytes }

    package init(of content: some Collection<UInt8>) {
        var hash = SHA256()
        let isContiguous: Void? = content.withContiguousStorageIfAvailable {
            hash.update(bufferPointer: UnsafeRawBufferPointer($0))
        }
        if isContiguous == nil { hash.update(data: Array(content)) }
        bytes = Array(hash.finalize())
    }
}

/// A sum over all rows, so that two members can compare a million files in sixteen bytes. A change adds the new row and
/// takes the old one away. It finds faults, not forgers: an additive hash is easy to collide on purpose.
package struct StateDigest: Equatable, Sendable, CustomStringConvertible {
    package private(set) var value: UInt128

    package init(_ value: UInt128 = 0) { self.value = value }

    mutating func add(_ row: UInt128) { value &+= row }
    mutating func remove(_ row: UInt128) { value &-= row }

    /// The first 128 bits of the SHA-256 over the key's length (2), the key and the value with its checksum.
    static func row(key: RawSpan, value: RawSpan) -> UInt128 {
        let count = 2 + key.byteCount + value.byteCount
        guard count > shortBytesMax else {
            // In one piece, since each costs as much as some hundred bytes.
            return withUnsafeTemporaryAllocation(byteCount: count, alignment: 1) { bytes in
                bytes.storeBigEndian(UInt16(key.byteCount), at: 0)
                let (keyPart, valuePart) = (bytes[2..<2 + key.byteCount], bytes[(2 + key.byteCount)...])
                key.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: keyPart).copyMemory(from: $0) }
                value.withUnsafeBytes { UnsafeMutableRawBufferPointer(rebasing: valuePart).copyMemory(from: $0) }
                var hash = SHA256()
                hash.update(bufferPointer: UnsafeRawBufferPointer(bytes))
                return first128(of: hash)
            }
        }
        var hash = SHA256()
        withUnsafeBytes(of: UInt16(key.byteCount).bigEndian) { hash.update(bufferPointer: $0) }
        key.withUnsafeBytes { hash.update(bufferPointer: $0) }
        value.withUnsafeBytes { hash.update(bufferPointer: $0) }
        return first128(of: hash)
    }

    private static let shortBytesMax = 4096

    private static func first128(of hash: SHA256) -> UInt128 {
        hash.finalize().withUnsafeBytes { UInt128(bigEndian: $0.loadUnaligned(as: UInt128.self)) }
    }

    package var description: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 32 - digits.count) + digits
    }
}
