import DequeModule

/// Writes that belong to no session and take effect once all the same: each carries 128 random bits and a log time. Until
/// then its answer is kept, and a copy gets it again; from then on the copy is refused. So a client that writes once, and
/// has no session, needs one entry of the log and not three.
///
/// There is room for so many answers, and none makes room for another: when they are too many, others are refused for a while,
/// and their clients open sessions. All are in memory; their rows are written with the next commit. A row:
///
///     0   4  fingerprint of the command   4  2  result code   6  8  revision
struct OneTimeWrites {
    /// What names a write: first to be forgotten is who has the lowest.
    struct Name: Comparable, Hashable {
        /// The log time, in milliseconds, from which on it is refused.
        let until: UInt64
        let id: UInt128

        static func < (one: Name, other: Name) -> Bool { (one.until, one.id) < (other.until, other.id) }
    }

    struct Answer {
        let fingerprint: UInt32
        let outcome: Outcome

        static let byteCount = 14
    }

    /// So many answers are forgotten with each command, at most.
    private static let forgottenAtOnce = 16

    /// Ascending by name.
    private var names: Deque<Name> = []
    private var answers: [UInt128: (until: UInt64, answer: Answer)] = [:]
    /// What came, or was forgotten, since the rows were last written.
    private var dirty: [Name] = []

    var count: Int { names.count }

    /// Whether a write is to be executed; if so, `keep` must follow with its answer.
    func admit(_ name: Name, _ fingerprint: UInt32, logTime: UInt64) -> Sessions.Admission {
        // A copy may say another end: leaders that follow each other reckon log time by their own clocks.
        if let known = answers[name.id] {
            let isSame = known.answer.fingerprint == fingerprint
            return isSame ? .answered(known.answer.outcome) : .refused(.sequenceReused)
        }
        // Whoever comes too late may have been answered, and forgotten.
        guard name.until >= logTime else { return .refused(.sessionEnded) }
        guard name.until - logTime <= FileTreeLimits.oneTimeMillisecondsMax else { return .refused(.malformed) }
        return names.count < FileTreeLimits.oneTimeWritesMax ? .execute : .refused(.tooManyUnanswered)
    }

    /// To be called with every command: log time went on.
    mutating func forget(logTime: UInt64, digest: inout StateDigest) {
        var left = Self.forgottenAtOnce
        while left > 0, let first = names.first, first.until < logTime {
            names.removeFirst()
            if let gone = answers.removeValue(forKey: first.id) { digest.remove(Self.digest(first, gone.answer)) }
            dirty.append(first)
            left -= 1
        }
    }

    /// Keeps the answer to a write that `admit` let through.
    mutating func keep(_ answer: Answer, of name: Name, digest: inout StateDigest) {
        // Almost always at the end, or near it.
        var place = names.count
        while place > 0, name < names[place - 1] { place -= 1 }
        names.insert(name, at: place)
        answers[name.id] = (name.until, answer)
        digest.add(Self.digest(name, answer))
        dirty.append(name)
    }

    private static func digest(_ name: Name, _ answer: Answer) -> UInt128 {
        let (code, revision) = answer.outcome.numbers
        let (high, low) = (UInt64(truncatingIfNeeded: name.id >> 64), UInt64(truncatingIfNeeded: name.id))
        return Sessions.mixed([high, low, name.until, UInt64(answer.fingerprint) << 16 | UInt64(code), revision])
    }

    // MARK: rows

    init(rowsOf store: borrowing some OrderedStore & ~Copyable) throws(StateError) {
        try store.scan(from: [StateKey.Table.oneTimeWrites.rawValue]) { key, row throws(StateError) in
            guard key.bigEndian(at: 0, as: UInt8.self) == StateKey.Table.oneTimeWrites.rawValue else { return false }
            let (name, answer) = try Self.read(key, RowChecksum.verify(key: key, row: row))
            names.append(name)
            answers[name.id] = (name.until, answer)
            return true
        }
    }

    private static func read(_ key: RawSpan, _ row: RawSpan) throws(StateError) -> (Name, Answer) {
        guard key.byteCount == 25, row.byteCount == Answer.byteCount,
            let outcome = Outcome(
                code: row.bigEndian(at: 4, as: UInt16.self), revision: row.bigEndian(at: 6, as: UInt64.self))
        else { throw .unknownFormat }
        let id =
            UInt128(key.bigEndian(at: 9, as: UInt64.self)) << 64 | UInt128(key.bigEndian(at: 17, as: UInt64.self))
        return (
            Name(until: key.bigEndian(at: 1, as: UInt64.self), id: id),
            Answer(fingerprint: row.bigEndian(at: 0, as: UInt32.self), outcome: outcome)
        )
    }

    /// What a row adds to the digest.
    static func digest(ofRow key: RawSpan, _ row: RawSpan) throws(StateError) -> UInt128 {
        let (name, answer) = try read(key, row)
        return digest(name, answer)
    }

    /// The rows that must be written, nil for those that go, in the order in which they changed.
    mutating func takeDirty() -> [(name: Name, answer: Answer?)] {
        defer { dirty = [] }
        return dirty.map { name in (name, answers[name.id].flatMap { $0.until == name.until ? $0.answer : nil }) }
    }
}

extension OneTimeWrites.Answer {
    func write(to row: UnsafeMutableRawBufferPointer) {
        let (code, revision) = outcome.numbers
        row.storeBigEndian(fingerprint, at: 0)
        row.storeBigEndian(code, at: 4)
        row.storeBigEndian(revision, at: 6)
    }
}
