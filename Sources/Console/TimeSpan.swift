import ArgumentParser

/// A time as people write it: 500ms, 5s, 1.5m, 1h, or a number of seconds.
public struct TimeSpan: ExpressibleByArgument, Sendable {
    public var seconds: Double

    public init(seconds: Double) { self.seconds = seconds }

    /// Up to a week, and not negative.
    public init?(argument: String) {
        let units: [(String, Double)] = [("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("", 1)]
        guard let (suffix, factor) = units.first(where: { argument.hasSuffix($0.0) }),
            let number = Double(argument.dropLast(suffix.count)), number >= 0, number * factor <= 604_800
        else { return nil }
        seconds = number * factor
    }

    public var duration: Duration { .milliseconds(Int64(seconds * 1000)) }

    public var defaultValueDescription: String { description }

    public var description: String { seconds == seconds.rounded() ? "\(Int(seconds))s" : "\(seconds)s" }
}
