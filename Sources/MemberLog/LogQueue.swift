/// Lines on their way out of a member, at most so many and so long: what finds no room is dropped and counted, and where
/// they are missing a line says so.
struct LogQueue {
    static let linesMax = 4096
    static let bytesMax = 1 << 20

    private var lines: [[UInt8]] = []
    private var bytes = 0
    private var dropped = 0

    /// Leaves a line. Answers whether it is the first that waits: whoever writes must be woken then.
    mutating func add(_ line: [UInt8]) -> Bool {
        guard lines.count < Self.linesMax, bytes + line.count <= Self.bytesMax else {
            dropped += 1
            return false
        }
        lines.append(line)
        bytes += line.count
        return lines.count == 1
    }

    var isEmpty: Bool { lines.isEmpty && dropped == 0 }

    /// Everything that waits, in order, and how many lines were dropped behind it.
    mutating func take() -> (lines: [[UInt8]], dropped: Int) {
        defer { self = LogQueue() }
        return (lines, dropped)
    }
}

/// Equal lines are told a few times, then counted: a stranger that causes them must not fill the log.
struct RepeatedLines {
    /// So many within an interval, in seconds.
    static let told = 20
    static let interval: UInt64 = 10
    static let kindsMax = 256

    private struct Kind {
        var name: String
        var since: UInt64
        var count: Int
    }
    private var kinds: [Kind] = []

    enum Verdict: Equatable {
        case tell
        /// As many before it were not told.
        case tellAfter(Int)
        case suppress
    }

    /// - Parameter now: seconds of any clock that does not go back.
    mutating func look(_ name: String, now: UInt64) -> Verdict {
        guard let position = kinds.firstIndex(where: { $0.name == name }) else {
            if kinds.count == Self.kindsMax { kinds.removeFirst() }
            kinds.append(Kind(name: name, since: now, count: 1))
            return .tell
        }
        if now - min(now, kinds[position].since) >= Self.interval {
            let missed = kinds[position].count - Self.told
            kinds[position] = Kind(name: name, since: now, count: 1)
            return missed > 0 ? .tellAfter(missed) : .tell
        }
        kinds[position].count += 1
        return kinds[position].count <= Self.told ? .tell : .suppress
    }
}
