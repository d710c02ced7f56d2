import ArgumentParser

/// A number of bytes as people write it: 512MiB, 1GiB, or a number alone.
public struct ByteSize: ExpressibleByArgument, Sendable {
    public var bytes: UInt64

    public init(bytes: UInt64) { self.bytes = bytes }

    public init?(argument: String) {
        let units: [(String, UInt64)] = [
            ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("", 1),
        ]
        guard let (suffix, factor) = units.first(where: { argument.hasSuffix($0.0) }),
            let number = UInt64(argument.dropLast(suffix.count))
        else { return nil }
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
        bytes % (1 << 30) == 0 ? "\(bytes >> 30)GiB" : bytes % (1 << 20) == 0 ? "\(bytes >> 20)MiB" : "\(bytes)"
    }
}
