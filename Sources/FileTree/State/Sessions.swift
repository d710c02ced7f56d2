import Deflate
import NIOCore

/// Clients' sessions: what makes a write that is sent again harmless (section 6.3 of the thesis).
///
/// A session remembers the first answer to each of its sequences that the client may still ask about again: not the
/// highest alone, since a pipeline of writes that is redirected arrives in any order. What the client says it has an
/// answer to is forgotten. A session that was idle for an hour of log time ends. When there are too many, one of whoever has
/// the most ends: of the host from which the most were opened, and there of the connection that opened the most, the one that
/// was idle the longest. So nobody's sessions push out those of others who have fewer. (Before cluster version 4, when
/// sessions had no owner: the one that was idle the longest of all.)
///
/// All sessions are in memory, since every write looks at one; their rows are written with the next commit. A row:
///
///     0   8  log time of the last write, to the minute
///     8   8  the lowest sequence that the client has no answer to
///     16  4  how many answers; with the highest bit, there is an owner
///     20  16 its host (8) and its connection (8), if it has one
///     .   .  the answers, ascending by sequence, and of each:
///            sequence (8), fingerprint of its command (4), result code (2), revision (8)
struct Sessions {
    struct Answer {
        var sequence: UInt64
        /// What tells a repeated command from another one under the same number.
        var fingerprint: UInt32
        var outcome: Outcome

        static let byteCount = 22
    }

    struct Session {
        /// The revision of the command that opened it.
        let id: UInt64
        var owner: SessionOwner
        var activeAt: UInt64
        var lowestUnanswered: UInt64 = 1
        /// Ascending by sequence.
        var answers: [Answer] = []
        var isDirty = true
    }

    enum Admission {
        case execute
        case answered(Outcome)
        case refused(TreeError)
    }

    /// Ascending by id, since ids are revisions.
    private var sessions: [Session] = []
    /// What changed, or ended, since the rows were last written.
    private var dirty: [UInt64] = []
    /// How many each owner has, ascending by owner.
    private var owners: [(owner: SessionOwner, count: Int)] = []

    var count: Int { sessions.count }

    private func position(of id: UInt64) -> Int? {
        var low = 0
        var high = sessions.count
        while low < high {
            let middle = (low + high) / 2
            if sessions[middle].id < id { low = middle + 1 } else { high = middle }
        }
        return low < sessions.count && sessions[low].id == id ? low : nil
    }

    // MARK: life

    mutating func open(
        _ id: UInt64, owner: SessionOwner, logTime: UInt64, clusterVersion: UInt16, digest: inout StateDigest
    ) {
        var position = 0
        while position < sessions.count {
            if logTime - min(logTime, sessions[position].activeAt) > FileTreeLimits.sessionIdleMillisecondsMax {
                end(at: position, digest: &digest)
            } else {
                position += 1
            }
        }
        count(owner, 1)
        if sessions.count >= FileTreeLimits.sessionsMax { makeRoom(clusterVersion, digest: &digest) }
        let session = Session(id: id, owner: owner, activeAt: logTime)
        sessions.append(session)
        dirty.append(id)
        digest.add(Self.digest(of: session))
    }

    /// Ending what has ended is fine.
    mutating func close(_ id: UInt64, digest: inout StateDigest) {
        if let position = position(of: id) { end(at: position, digest: &digest) }
    }

    private mutating func end(at position: Int, digest: inout StateDigest) {
        let session = sessions.remove(at: position)
        count(session.owner, -1)
        digest.remove(Self.digestWithAnswers(of: session))
        if !session.isDirty { dirty.append(session.id) }
    }

    // MARK: owners

    private func ownerPosition(_ owner: SessionOwner, in owners: [(owner: SessionOwner, count: Int)]) -> Int {
        var (low, high) = (0, owners.count)
        while low < high {
            let middle = (low + high) / 2
            if owners[middle].owner < owner { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private mutating func count(_ owner: SessionOwner, _ change: Int) {
        let position = ownerPosition(owner, in: owners)
        if position == owners.count || owners[position].owner != owner {
            owners.insert((owner, change), at: position)
        } else {
            owners[position].count += change
            if owners[position].count == 0 { owners.remove(at: position) }
        }
    }

    /// Ends the session that makes room for another one, whose owner has it counted already.
    private mutating func makeRoom(_ clusterVersion: UInt16, digest: inout StateDigest) {
        let greediest = clusterVersion >= OpenSession.ownedVersion ? greediest() : nil
        var idlest: Int?
        for position in sessions.indices {
            if let idlest, sessions[idlest].activeAt <= sessions[position].activeAt { continue }
            if let greediest {
                let owner = sessions[position].owner
                let place = ownerPosition(owner, in: greediest)
                guard place < greediest.count, greediest[place].owner == owner else { continue }
            }
            idlest = position
        }
        if let idlest { end(at: idlest, digest: &digest) }
    }

    /// The connections that opened the most sessions, of the hosts from which the most were opened; ascending.
    private func greediest() -> [(owner: SessionOwner, count: Int)] {
        var (most, found): (Int, [Range<Int>]) = (0, [])
        var start = 0
        while start < owners.count {
            var (end, sum) = (start, 0)
            while end < owners.count, owners[end].owner.host == owners[start].owner.host {
                sum += owners[end].count
                end += 1
            }
            if sum > most { (most, found) = (sum, []) }
            if sum == most { found.append(start..<end) }
            start = end
        }
        return found.flatMap { range in
            let most = owners[range].reduce(0) { max($0, $1.count) }
            return owners[range].filter { $0.count == most }
        }
    }

    // MARK: writes

    /// Whether a session's write is to be executed; if so, `keep` must follow with its answer. Forgets the answers that its client needs no more.
    mutating func admit(
        _ header: CommandHeader, _ fingerprint: UInt32, logTime: UInt64, digest: inout StateDigest
    ) -> Admission {
        guard let position = position(of: header.session) else { return .refused(.sessionEnded) }
        if header.sequence < sessions[position].lowestUnanswered { return .refused(.alreadyAnswered) }
        if let answer = sessions[position].answers.first(where: { $0.sequence == header.sequence }) {
            return answer.fingerprint == fingerprint ? .answered(answer.outcome) : .refused(.sequenceReused)
        }
        let lowest = max(sessions[position].lowestUnanswered, header.lowestUnanswered)
        if header.sequence - lowest >= FileTreeLimits.unansweredMax { return .refused(.tooManyUnanswered) }
        if lowest > sessions[position].lowestUnanswered {
            sessions[position].lowestUnanswered = header.lowestUnanswered
            let known = sessions[position].answers.prefix { $0.sequence < header.lowestUnanswered }
            for answer in known { digest.remove(Self.digest(of: answer, in: header.session)) }
            sessions[position].answers.removeFirst(known.count)
        }
        let minute = logTime / 60_000 * 60_000
        if minute > sessions[position].activeAt {
            digest.remove(Self.digest(of: sessions[position]))
            sessions[position].activeAt = minute
            digest.add(Self.digest(of: sessions[position]))
        }
        return .execute
    }

    /// Keeps the answer to a write that `admit` let through.
    mutating func keep(_ answer: Answer, of id: UInt64, digest: inout StateDigest) {
        guard let position = position(of: id) else { return }
        // Almost always at the end.
        let place = sessions[position].answers.lastIndex { $0.sequence < answer.sequence }.map { $0 + 1 } ?? 0
        sessions[position].answers.insert(answer, at: place)
        digest.add(Self.digest(of: answer, in: id))
        if !sessions[position].isDirty {
            sessions[position].isDirty = true
            dirty.append(id)
        }
    }

    /// - Parameter command: what stands behind the head.
    static func fingerprint(_ operation: CommandHeader.Operation, _ command: ByteBuffer) -> UInt32 {
        var checksum = CRC32()
        withUnsafeBytes(of: operation.rawValue) { checksum.add($0) }
        command.withUnsafeReadableBytes { checksum.add($0) }
        return checksum.value
    }

    // MARK: the digest

    private static func digestWithAnswers(of session: Session) -> UInt128 {
        session.answers.reduce(digest(of: session)) { $0 &+ digest(of: $1, in: session.id) }
    }

    private static func digest(of session: Session) -> UInt128 {
        session.owner == .unknown
            ? mixed([session.id, session.activeAt])
            : mixed([session.id, session.activeAt, session.owner.host, session.owner.connection])
    }

    private static func digest(of answer: Answer, in session: UInt64) -> UInt128 {
        let (code, revision) = answer.outcome.numbers
        return mixed([session, answer.sequence, UInt64(answer.fingerprint) << 16 | UInt64(code), revision])
    }

    /// Two chains of the finalizer of SplitMix64: a write must not pay for a cryptographic hash here.
    static func mixed<let count: Int>(_ words: InlineArray<count, UInt64>) -> UInt128 {
        var (high, low): (UInt64, UInt64) = (0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F)
        for position in words.indices {
            high = finalized(high ^ words[position])
            low = finalized(low &+ words[position])
        }
        return UInt128(high) << 64 | UInt128(low)
    }

    private static func finalized(_ word: UInt64) -> UInt64 {
        var mixed = word &+ 0x9E37_79B9_7F4A_7C15
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    // MARK: rows

    init(rowsOf store: borrowing some OrderedStore & ~Copyable) throws(StateError) {
        try store.scan(from: StateKey.session(0)) { key, row throws(StateError) in
            guard key.byteCount == 9, key.bigEndian(at: 0, as: UInt8.self) == StateKey.Table.sessions.rawValue else {
                return false
            }
            let session = try Self.session(
                key.bigEndian(at: 1, as: UInt64.self), row: RowChecksum.verify(key: key, row: row))
            sessions.append(session)
            count(session.owner, 1)
            return true
        }
    }

    private static func session(_ id: UInt64, row: RawSpan) throws(StateError) -> Session {
        guard row.byteCount >= 20 else { throw .unknownFormat }
        var session = Session(id: id, owner: .unknown, activeAt: row.bigEndian(at: 0, as: UInt64.self))
        session.lowestUnanswered = row.bigEndian(at: 8, as: UInt64.self)
        session.isDirty = false
        let head = row.bigEndian(at: 16, as: UInt32.self)
        let (count, isOwned) = (Int(head & ~Session.ownedFlag), head & Session.ownedFlag != 0)
        let answers = isOwned ? 36 : 20
        guard row.byteCount == answers + count * Answer.byteCount else { throw .unknownFormat }
        if isOwned {
            session.owner = SessionOwner(
                host: row.bigEndian(at: 20, as: UInt64.self), connection: row.bigEndian(at: 28, as: UInt64.self))
        }
        for position in 0..<count {
            let start = answers + position * Answer.byteCount
            guard
                let outcome = Outcome(
                    code: row.bigEndian(at: start + 12, as: UInt16.self),
                    revision: row.bigEndian(at: start + 14, as: UInt64.self))
            else { throw .unknownFormat }
            session.answers.append(
                Answer(
                    sequence: row.bigEndian(at: start, as: UInt64.self),
                    fingerprint: row.bigEndian(at: start + 8, as: UInt32.self), outcome: outcome))
        }
        return session
    }

    /// What a session's row adds to the digest.
    static func digest(ofRow key: RawSpan, _ row: RawSpan) throws(StateError) -> UInt128 {
        guard key.byteCount == 9 else { throw .unknownFormat }
        return digestWithAnswers(of: try session(key.bigEndian(at: 1, as: UInt64.self), row: row))
    }

    /// The sessions whose rows must be written, nil for those that ended, in the order in which they changed.
    mutating func takeDirty() -> [(id: UInt64, session: Session?)] {
        defer { dirty = [] }
        return dirty.map { id in
            guard let position = position(of: id) else { return (id, nil) }
            sessions[position].isDirty = false
            return (id, sessions[position])
        }
    }
}

extension Sessions.Session {
    fileprivate static let ownedFlag: UInt32 = 1 << 31
    private var answersStart: Int { owner == .unknown ? 20 : 36 }
    var byteCount: Int { answersStart + answers.count * Sessions.Answer.byteCount }

    func write(to row: UnsafeMutableRawBufferPointer) {
        row.storeBigEndian(activeAt, at: 0)
        row.storeBigEndian(lowestUnanswered, at: 8)
        row.storeBigEndian(UInt32(answers.count) | (owner == .unknown ? 0 : Self.ownedFlag), at: 16)
        if owner != .unknown {
            row.storeBigEndian(owner.host, at: 20)
            row.storeBigEndian(owner.connection, at: 28)
        }
        for (position, answer) in answers.enumerated() {
            let start = answersStart + position * Sessions.Answer.byteCount
            let (code, revision) = answer.outcome.numbers
            row.storeBigEndian(answer.sequence, at: start)
            row.storeBigEndian(answer.fingerprint, at: start + 8)
            row.storeBigEndian(code, at: start + 12)
            row.storeBigEndian(revision, at: start + 14)
        }
    }
}
