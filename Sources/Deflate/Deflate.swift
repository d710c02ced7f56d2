import CZlib

/// Why a compressed chunk could not be written or read.
package enum DeflateError: Error, Equatable {
    /// zlib's own code.
    case zlib(Int32)
    /// The stream inflates to more, or to less, than it was said to hold.
    case wrongSize(expected: Int)
}

/// Whole chunks as independent zlib streams (RFC 1950).
package enum Deflate {
    /// A part that shows whether the whole is worth the time.
    private static let sampleBytes = 1 << 16

    /// Compresses `bytes`, fast rather than small; what does not compress is stored as it is, in the same format.
    package static func compress(_ bytes: UnsafeRawBufferPointer) throws(DeflateError) -> [UInt8] {
        guard bytes.count > 2 * sampleBytes else { return try compress(bytes, level: 1) }
        let middle = bytes.count / 2
        let sample = UnsafeRawBufferPointer(rebasing: bytes[middle..<middle + sampleBytes])
        let isWorthIt = try compress(sample, level: 1).count < sampleBytes - sampleBytes / 32
        return try compress(bytes, level: isWorthIt ? 1 : 0)
    }

    /// - Parameter level: zlib's: 0 stores, 1 is fast.
    private static func compress(_ bytes: UnsafeRawBufferPointer, level: Int32) throws(DeflateError) -> [UInt8] {
        var failure: Int32 = Z_OK
        var size = compressBound(UInt(bytes.count))
        let output = [UInt8](unsafeUninitializedCapacity: Int(size)) { buffer, count in
            failure = compress2(
                buffer.baseAddress, &size, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), UInt(bytes.count),
                level)
            count = failure == Z_OK ? Int(size) : 0
        }
        guard failure == Z_OK else { throw .zlib(failure) }
        return output
    }

    /// Inflates a stream that holds exactly `byteCount` bytes. A stream that would grow beyond them is refused without
    /// ever holding more than them in memory; the caller bounds `byteCount`.
    package static func decompress(_ bytes: UnsafeRawBufferPointer, byteCount: Int) throws(DeflateError) -> [UInt8] {
        var failure: Int32 = Z_OK
        // One spare byte shows a stream that goes on.
        var size = UInt(byteCount + 1)
        var consumed = UInt(bytes.count)
        let output = [UInt8](unsafeUninitializedCapacity: byteCount + 1) { buffer, count in
            failure = uncompress2(
                buffer.baseAddress, &size, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), &consumed)
            count = failure == Z_OK ? Int(size) : 0
        }
        if failure == Z_BUF_ERROR && size > UInt(byteCount) { throw .wrongSize(expected: byteCount) }
        guard failure == Z_OK, consumed == UInt(bytes.count) else {
            throw .zlib(failure == Z_OK ? Z_DATA_ERROR : failure)
        }
        guard output.count == byteCount else { throw .wrongSize(expected: byteCount) }
        return output
    }
}
