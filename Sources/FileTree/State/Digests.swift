import Crypto
import XXHash

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

    /// What a row of the tables 02 to 05 adds. Of a chunk the key alone counts: it is the hash of the value.
    ///
    /// From cluster version 3 on, the XXH3 (128 bits) over those of the key and of the row with its checksum. Before, the
    /// first 128 bits of the SHA-256 over the key's length (2), the key and the row: slower, for no need.
    static func row(key: RawSpan, row: RawSpan, clusterVersion: UInt16) -> UInt128 {
        let isChunk = key.bigEndian(at: 0, as: UInt8.self) == StateKey.Table.chunks.rawValue
        let row = isChunk ? RawSpan() : row
        guard clusterVersion >= 3 else { return sha256(key, row) }
        let hashes = [XXH3.hash(key).bigEndian, XXH3.hash(row).bigEndian] as InlineArray<2, UInt128>
        return XXH3.hash(hashes.span.bytes)
    }

    private static func sha256(_ key: RawSpan, _ row: RawSpan) -> UInt128 {
        var hash = SHA256()
        withUnsafeBytes(of: UInt16(key.byteCount).bigEndian) { hash.update(bufferPointer: $0) }
        key.withUnsafeBytes { hash.update(bufferPointer: $0) }
        row.withUnsafeBytes { hash.update(bufferPointer: $0) }
        return hash.finalize().withUnsafeBytes { UInt128(bigEndian: $0.loadUnaligned(as: UInt128.self)) }
    }

    package var description: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 32 - digits.count) + digits
    }
}
