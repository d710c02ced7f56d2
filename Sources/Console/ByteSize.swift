import ArgumentParser

/// A number of bytes as people write it: 512MiB, 64k, 1GB, or a number alone.
public struct ByteSize: ExpressibleByArgument, Sendable {
    public var bytes: UInt64

    public init(bytes: UInt64) { self.bytes = bytes }

    /// Powers of 1,024 (KiB, or K alone) and of 1,000 (kB), in capital or small letters.
    public init?(argument: String) {
        let units: [(String, UInt64)] = [
            ("kib", 1 << 10), ("mib", 1 << 20), ("gib", 1 << 30), ("tib", 1 << 40), ("kb", 1000), ("mb", 1_000_000),
            ("gb", 1_000_000_000), ("tb", 1_000_000_000_000), ("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30),
            ("t", 1 << 40), ("b", 1), ("", 1),
        ]
        let text = argument.lowercased()
        guard let (suffix, factor) = units.first(where: { text.hasSuffix($0.0) }) else { return nil }
        let digits = text.dropLast(suffix.count)
        // UInt64 takes a sign.
        guard digits.utf8.allSatisfy({ (48...57).contains($0) }), let number = UInt64(digits) else { return nil }
        let (bytes, overflows) = number.multipliedReportingOverflow(by: factor)
        guard !overflows, bytes <= UInt64(Int64.max) else { return nil }
        self.bytes = bytes
    }

    /// In the largest unit that leaves a digit before the point: 1.2 GiB.
    public var rounded: String {
        let units: [(String, UInt64)] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        guard let (unit, size) = units.first(where: { bytes >= $0.1 }) else { return "\(bytes) B" }
        let tenths = Double(bytes) / Double(size) * 10
        return bytes >= 10 * size ? "\(bytes / size) \(unit)" : "\(Double(Int(tenths)) / 10) \(unit)"
    }

    public var defaultValueDescription: String {
        bytes > 0 && bytes % (1 << 30) == 0
            ? "\(bytes >> 30)GiB" : bytes > 0 && bytes % (1 << 20) == 0 ? "\(bytes >> 20)MiB" : "\(bytes)"
    }
}
