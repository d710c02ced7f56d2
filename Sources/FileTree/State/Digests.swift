import CXXHash
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

    /// XXH3 of the value with its checksum, 128 bits, seeded with the 64 bits of XXH3 of the key.
    static func row(key: RawSpan, value: RawSpan) -> UInt128 {
        let seed = key.withUnsafeBytes { XXH3_64bits($0.baseAddress, $0.count) }
        return value.withUnsafeBytes { hash($0, seed: seed) }
    }

    /// XXH3 of the numbers, most significant byte first.
    static func numbers(_ numbers: InlineArray<4, UInt64>) -> UInt128 {
        var bytes = InlineArray<4, UInt64>(repeating: 0)
        for position in numbers.indices { bytes[position] = numbers[position].bigEndian }
        return bytes.span.bytes.withUnsafeBytes { hash($0, seed: 0) }
    }

    private static func hash(_ bytes: UnsafeRawBufferPointer, seed: UInt64) -> UInt128 {
        let hash = XXH3_128bits_withSeed(bytes.baseAddress, bytes.count, seed)
        return UInt128(hash.high64) << 64 | UInt128(hash.low64)
    }

    package var description: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 32 - digits.count) + digits
    }
}
