import NIOCore
import Raft

/// The state machine: one tree of directories and files, changed by commands in the order of the log.
///
/// It is deterministic: the same commands in the same order leave byte-identical rows in any store. Time, sizes and
/// ids reach it inside commands or stand in the state. Every operation decides fully before it writes, so that nothing
/// ever needs rolling back.
///
/// An operation's file holds all there is to say about it: see `Operations`.
package struct FileTree<Store: OrderedStore & ~Copyable>: ~Copyable {
    var store: Store
    package internal(set) var applied: Applied
    /// Whether `applied` changed since it was last written.
    var isAppliedWritten = true
    var sessions: Sessions
    private var oneTimeWrites: OneTimeWrites
    let directories = DirectoryCache()
    let listings = ListingCache()
    var reclaimed = Reclaimed()
    /// The highest cluster version whose commands this tree executes.
    let knownVersion: UInt16

    /// The tree that `store` holds; an empty one when it holds nothing.
    package init(
        store: consuming Store, knownVersion: UInt16 = Applied.clusterVersionMax
    ) throws(StateError) {
        let key = StateKey.applied
        let applied = try store.read(key) { row throws(StateError) in
            guard let row else { return Applied() }
            return try Applied(row: RowChecksum.verify(key: key.span.bytes, row: row), knownVersion: knownVersion)
        }
        let sessions = try Sessions(rowsOf: store)
        let oneTimeWrites = try OneTimeWrites(rowsOf: store)
        // Nothing throws from here on.
        self.applied = applied
        self.sessions = sessions
        self.oneTimeWrites = oneTimeWrites
        self.knownVersion = knownVersion
        self.store = store
    }

    /// How many sessions clients have.
    package var sessionCount: Int { sessions.count }
    /// How many writes of no session have answers that are kept.
    package var oneTimeWriteCount: Int { oneTimeWrites.count }

    /// Executes the entry at `index`, the one after the last, and appends a command's answer to `answer`.
    package mutating func apply(
        index: Index, term: Term, kind: EntryKind, payload: ByteBuffer, answer: inout ByteBuffer
    ) throws(StateError) {
        guard index == applied.index + 1 else {
            throw .wrongIndex(expected: applied.index + 1, got: index)
        }
        applied.index = index
        applied.term = term
        isAppliedWritten = false
        switch kind {
        case .noOperation: break
        case .configuration: try storeConfiguration(payload)
        case .command: try execute(payload, answer: &answer)
        }
    }

    /// Writes down what was applied, and has the store make it durable together with all rows.
    package mutating func commit() throws(StateError) {
        if !isAppliedWritten {
            let applied = applied
            try writeRow(StateKey.applied, byteCount: Applied.byteCount) { applied.write(to: $0) }
            isAppliedWritten = true
        }
        for (id, session) in sessions.takeDirty() {
            if let session {
                try writeRow(StateKey.session(id), byteCount: session.byteCount) { session.write(to: $0) }
            } else {
                try store.delete(StateKey.session(id), weigh: { _ in 0 })
            }
        }
        for (name, answer) in oneTimeWrites.takeDirty() {
            let key = StateKey.oneTimeWrite(name)
            if let answer {
                try writeRow(key, byteCount: OneTimeWrites.Answer.byteCount) { answer.write(to: $0) }
            } else {
                try store.delete(key, weigh: { _ in 0 })
            }
        }
        try store.commit()
    }

    /// The configuration at the applied index, as its entry encoded it; nil before the first.
    package borrowing func configuration() throws(StateError) -> [UInt8]? {
        try readRow(StateKey.configuration) { value in
            guard let value else { return nil }
            return value.withUnsafeBytes { Array($0) }
        }
    }

    private mutating func storeConfiguration(_ payload: ByteBuffer) throws(StateError) {
        try writeRow(StateKey.configuration, byteCount: payload.readableBytes) { row in
            payload.withUnsafeReadableBytes { row.copyMemory(from: $0) }
        }
    }

    private mutating func execute(_ payload: ByteBuffer, answer: inout ByteBuffer) throws(StateError) {
        var payload = payload
        guard let header = CommandHeader(from: &payload), header.version <= knownVersion else {
            throw .unknownFormat
        }
        applied.logTime = max(applied.logTime, header.logTime)
        oneTimeWrites.forget(logTime: applied.logTime, digest: &applied.digest)
        let outcome: Outcome
        if header.version > applied.clusterVersion {
            // No leader proposes it before its version is in force.
            outcome = .failed(.unsupported, revision: 0)
        } else if !header.isWellFormed {
            outcome = .failed(.malformed, revision: 0)
        } else if let name = header.oneTimeName {
            outcome = try executeOneTime(header, name, &payload)
        } else if header.sequence > 0 {
            outcome = try executeOnce(header, &payload)
        } else {
            outcome = try execute(header, &payload)
        }
        outcome.write(to: &answer)
    }

    /// A session's write: executed the first time that it comes, and answered alike each time.
    private mutating func executeOnce(
        _ header: CommandHeader, _ payload: inout ByteBuffer
    ) throws(StateError) -> Outcome {
        let fingerprint = Sessions.fingerprint(header.operation, payload)
        switch sessions.admit(header, fingerprint, logTime: applied.logTime, digest: &applied.digest) {
        case .answered(let outcome): return outcome
        case .refused(let error): return .failed(error, revision: 0)
        case .execute:
            let outcome = try execute(header, &payload)
            sessions.keep(
                Sessions.Answer(sequence: header.sequence, fingerprint: fingerprint, outcome: outcome),
                of: header.session, digest: &applied.digest)
            return outcome
        }
    }

    /// A write of no session: likewise, for as long as it says.
    private mutating func executeOneTime(
        _ header: CommandHeader, _ name: OneTimeWrites.Name, _ payload: inout ByteBuffer
    ) throws(StateError) -> Outcome {
        let fingerprint = Sessions.fingerprint(header.operation, payload)
        switch oneTimeWrites.admit(name, fingerprint, logTime: applied.logTime) {
        case .answered(let outcome): return outcome
        case .refused(let error): return .failed(error, revision: 0)
        case .execute:
            let outcome = try execute(header, &payload)
            oneTimeWrites.keep(
                OneTimeWrites.Answer(fingerprint: fingerprint, outcome: outcome), of: name, digest: &applied.digest)
            return outcome
        }
    }

    // MARK: rows

    /// Lends the checked value of `key`, without its checksum, or nil.
    borrowing func readRow<Result>(
        _ key: [UInt8], _ body: (RawSpan?) throws(StateError) -> Result
    ) throws(StateError) -> Result {
        try store.read(key) { row throws(StateError) in
            guard let row else { return try body(nil) }
            return try body(RowChecksum.verify(key: key.span.bytes, row: row))
        }
    }

    /// Writes a row that the digest does not cover.
    private mutating func writeRow(
        _ key: [UInt8], byteCount: Int, fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(StateError) {
        _ = try store.put(key, byteCount: byteCount + RowChecksum.byteCount, weigh: { _ in 0 }) {
            RowChecksum.seal($0, of: key, fill)
        }
    }

    /// Writes a row and moves the digest from its old value to its new one.
    mutating func setRow(
        _ key: [UInt8], byteCount: Int, fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(StateError) {
        if let directory = StateKey.directory(of: key.span.bytes) { listings.forget(directory) }
        let version = applied.clusterVersion
        let (old, new) = try store.put(
            key, byteCount: byteCount + RowChecksum.byteCount,
            weigh: { StateDigest.row(key: key.span.bytes, row: $0, clusterVersion: version) }
        ) { row in RowChecksum.seal(row, of: key, fill) }
        if let old { applied.digest.remove(old) }
        applied.digest.add(new)
    }

    mutating func deleteRow(_ key: [UInt8]) throws(StateError) {
        if let directory = StateKey.directory(of: key.span.bytes) { listings.forget(directory) }
        let version = applied.clusterVersion
        let old = try store.delete(key) {
            StateDigest.row(key: key.span.bytes, row: $0, clusterVersion: version)
        }
        if let old { applied.digest.remove(old) }
    }

    /// The digest as it goes at `clusterVersion`. Reads every row, but of a chunk the key alone.
    ///
    /// Each row's weight is exchanged, so that whatever is wrong with the rows stays as wrong by the new digest. A damaged
    /// row is no reason to stop here.
    borrowing func digest(at clusterVersion: UInt16) throws(StateError) -> StateDigest {
        var digest = applied.digest
        try store.scan(from: [StateKey.Table.entries.rawValue]) { key, row throws(StateError) in
            guard key.bigEndian(at: 0, as: UInt8.self) < StateKey.Table.sessions.rawValue else { return false }
            digest.remove(StateDigest.row(key: key, row: row, clusterVersion: applied.clusterVersion))
            digest.add(StateDigest.row(key: key, row: row, clusterVersion: clusterVersion))
            return true
        }
        return digest
    }
}
