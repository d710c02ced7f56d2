import CXXHash

/// XXH3 with 128 bits: finds faults at the speed of memory, and keeps no forger out.
package enum XXH3 {
    /// The hash of `bytes` as a number: its canonical form, most significant byte first, is the algorithm's own.
    package static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt128 {
        let hash = XXH3_128bits(bytes.baseAddress, bytes.count)
        return UInt128(hash.high64) << 64 | UInt128(hash.low64)
    }

    package static func hash(_ bytes: RawSpan) -> UInt128 { bytes.withUnsafeBytes { hash($0) } }
}
