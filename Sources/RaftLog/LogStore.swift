import CrashPoints
import Deflate
import LMDB
import NIOCore
import Raft
import WireProtocol

/// What was wrong with a log's directory, or with the disk under it.
package enum LogError: Error, Equatable, Sendable, CustomStringConvertible {
    case store(Int32)
    /// The hard state can't be read: the directory counts as wiped.
    case unreadableHardState
    /// An entry's checksum does not match, or an entry is missing. It may have been acknowledged, so it is never cut off.
    case corruptEntry(Index)
    /// Written by a version with another format.
    case unknownFormat

    package var description: String {
        switch self {
        case .store(let code): LMDBError(code: code).description
        case .unreadableHardState:
            "the hard state can't be read: this member can't vote any more; move the directory away, start an empty one "
                + "with --join, and run 'banyan member replace'"
        case .corruptEntry(let index):
            "log entry \(index) is damaged or missing, and may have been acknowledged: this member votes no more until it "
                + "has a sound copy from the others"
        case .unknownFormat: "the log was written in a format that this version does not know"
        }
    }
}

/// Who a data directory belongs to.
package struct Identity: Equatable, Sendable {
    package var memberID: UInt64
    package var incarnation: UInt64
    /// The list of members that the directory was first started with, in their written form.
    package var founders: String
    /// Whether the directory waits, or waited, to be taken into a cluster that runs.
    package var isJoining: Bool
    /// The cluster that was given up when this directory was recovered; 0: none.
    package var formerClusterID: UInt64 = 0
    /// The configuration in which the directory became a member's: the first entry's of a new cluster, or the one that
    /// took it in. Nil before.
    package var genesis: Configuration?

    package init(
        memberID: UInt64, incarnation: UInt64, founders: String, isJoining: Bool = false, genesis: Configuration? = nil
    ) {
        self.isJoining = isJoining
        self.memberID = memberID
        self.incarnation = incarnation
        self.founders = founders
        self.genesis = genesis
    }
}

/// The durable log, hard state and identity of a member, in one LMDB environment that commits with full sync.
///
/// Database `entries`: key group (2, zero) and index (8), value an entry's record, exactly as it travels. Database
/// `meta`, each value followed by a CRC32 of key and value:
///
///     'identity'   format (2): 3, member id (8), incarnation (8), 1 if it joined a running cluster else 0 (1), the
///                  cluster that was given up when it was recovered (8), the list of members at the first start
///                  (length 2, bytes), then the genesis configuration or nothing
///     'hard'       term (8), vote: 1 if given (1), vote (8), commit index (8),
///                  compacted index (8), compacted term (8), number of the state's directory (8), index of the log's
///                  last entry (8), which rows of older programs lack
///     'base'       the configuration at the compacted index
///     'listed'     the last list of members that a start was given and that was another than the one before, and what
///                  the cluster had recorded then (each: length 2, bytes); missing while there was none but the first
// Sendable: the environment is; every other property is immutable.
package final class LogStore: Sendable {
    package static let mapBytes = 1 << 40
    private static let format: UInt16 = 3

    let environment: Environment
    let entries: Database
    let meta: Database

    /// Opens, or creates, the log in the existing directory `path`.
    package init(path: String) throws(LogError) {
        do {
            environment = try Environment(path: path, mapSize: Self.mapBytes, databases: 4)
            entries = try environment.database("entries")
            meta = try environment.database("meta")
        } catch { throw .store(error.code) }
        CrashPoint.logMade.reach()
    }

    /// Bytes that the file may still grow by, until its map is full.
    package var unmappedBytes: Int { environment.unmappedBytes }
    package var isInPlace: Bool { environment.isInPlace }
    /// Bytes of the file in use or free for reuse.
    package var usedBytes: Int { environment.usedBytes }
    /// Bytes of the file that hold nothing; 0 when that can't be found out.
    package var reusableBytes: Int { (try? environment.reusableBytes()) ?? 0 }

    // MARK: identity

    /// Nil in a new directory.
    package func identity() throws(LogError) -> Identity? {
        guard var row = try readMeta("identity") else { return nil }
        guard let (format, id, incarnation) = row.readMultipleIntegers(as: (UInt16, UInt64, UInt64).self),
            // Format 2, of programs that could neither join nor recover, lacks what says so.
            format == Self.format || format == 2,
            let (joining, former) = format == 2 ? (0, 0) : row.readMultipleIntegers(as: (UInt8, UInt64).self),
            let founders = row.readText()
        else { throw .unknownFormat }
        var identity = Identity(
            memberID: id, incarnation: incarnation, founders: founders, isJoining: joining != 0)
        identity.formerClusterID = former
        if row.readableBytes > 0 {
            guard let genesis = Configuration(from: &row) else { throw .unknownFormat }
            identity.genesis = genesis
        }
        return identity
    }

    /// The last list of members that a start was given and that was another than before, and what the cluster had recorded
    /// then.
    package func listedMembers() throws(LogError) -> (given: String, recorded: String)? {
        guard var row = try readMeta("listed") else { return nil }
        guard let given = row.readText(), let recorded = row.readText() else { throw .unknownFormat }
        return (given, recorded)
    }

    package func save(listedMembers given: String, recorded: String) throws(LogError) {
        var row = ByteBuffer()
        row.writeText(given)
        row.writeText(recorded)
        try commit(between: .identityBefore, .identityAfter) { transaction throws(LMDBError) in
            try writeMeta("listed", row, &transaction)
        }
    }

    package func save(_ identity: Identity) throws(LogError) {
        try commit(between: .identityBefore, .identityAfter) { transaction throws(LMDBError) in
            try write(identity, &transaction)
        }
    }

    /// Makes the directory a member's of a new cluster: its genesis configuration is the log's first entry, in term 1,
    /// and the same on every member.
    package func found(_ identity: Identity, genesis: Configuration) throws(LogError) {
        var identity = identity
        identity.genesis = genesis
        let record = Self.record(of: genesis, index: 1, term: 1)
        try commit { transaction throws(LMDBError) in
            try write(identity, &transaction)
            try append(record, at: 1, &transaction)
            var row = HardStateRow(hardState: HardState(term: 1, vote: nil, commit: 1))
            row.lastIndex = 1
            try write(row, &transaction)
            try writeBase(genesis, &transaction)
        }
    }

    /// Makes the directory a member's of a cluster that runs already. Its log is empty: everything comes from the others.
    ///
    /// - Parameters:
    ///   - configuration: in which the member was taken in; in force until the log brings another.
    ///   - term: the cluster's; 0: not known.
    package func join(_ identity: Identity, _ configuration: Configuration, term: Term) throws(LogError) {
        var identity = identity
        identity.genesis = configuration
        try commit { transaction throws(LMDBError) in
            try write(identity, &transaction)
            var row = HardStateRow(hardState: HardState(term: term))
            row.lastIndex = 0
            try write(row, &transaction)
            try writeBase(configuration, &transaction)
        }
    }

    /// Makes the directory that of a new cluster's only member, whose state is `state`, in the directory of `stateNumber`,
    /// with that cluster's configuration. Its entry is the one behind the state, in a new term, as committed; of what the
    /// log held before, nothing stays.
    package func begin(
        _ identity: Identity, behind state: SnapshotMetadata, stateNumber: UInt64
    ) throws(LogError) {
        var identity = identity
        identity.genesis = state.configuration
        let (term, index) = (state.term + 1, state.index + 1)
        var row = HardStateRow(hardState: HardState(term: term, vote: nil, commit: index))
        (row.compactedIndex, row.compactedTerm) = (state.index, state.term)
        row.stateNumber = stateNumber
        row.lastIndex = index
        let record = Self.record(of: state.configuration, index: index, term: term)
        try commit { transaction throws(LMDBError) in
            try write(identity, &transaction)
            try transaction.removeAll(in: entries)
            try append(record, at: index, &transaction)
            try write(row, &transaction)
            try writeBase(state.configuration, &transaction)
        }
    }

    private static func record(of configuration: Configuration, index: Index, term: Term) -> ByteBuffer {
        var payload = ByteBuffer()
        configuration.write(to: &payload)
        return EntryRecord.bytes(.configuration, index: index, term: term, payload)
    }

    /// Writes all of it in one commit, or nothing.
    private func commit(
        between before: CrashPoint = .foundBefore, _ after: CrashPoint = .foundAfter,
        _ write: (inout WriteTransaction) throws(LMDBError) -> Void
    ) throws(LogError) {
        do {
            var transaction = try environment.beginWrite()
            try write(&transaction)
            before.reach()
            try transaction.commit()
            after.reach()
        } catch { throw .store(error.code) }
    }

    func writeBase(_ configuration: Configuration, _ transaction: inout WriteTransaction) throws(LMDBError) {
        var base = ByteBuffer()
        configuration.write(to: &base)
        try writeMeta("base", base, &transaction)
    }

    private func write(_ identity: Identity, _ transaction: inout WriteTransaction) throws(LMDBError) {
        var row = ByteBuffer()
        row.writeMultipleIntegers(
            Self.format, identity.memberID, identity.incarnation, UInt8(identity.isJoining ? 1 : 0),
            identity.formerClusterID)
        row.writeText(identity.founders)
        identity.genesis?.write(to: &row)
        try writeMeta("identity", row, &transaction)
    }

    // MARK: recovery

    /// Everything that a member starts again from.
    package struct Recovered: Sendable {
        package var row: HardStateRow
        package var log: LogView
    }

    /// Reads the whole log once and checks every entry's checksum.
    package func recover() throws(LogError) -> Recovered {
        let beginning = try damaged()
        let (row, configuration) = (beginning.row, beginning.configuration)
        var headers: [EntryHeader] = []
        var configurations = [IndexedConfiguration(index: row.compactedIndex, configuration: configuration)]
        var unreadable: Index?
        // The commit index is saved with or after the entries that it covers: whatever it names was there.
        try scan(from: row.compactedIndex + 1, through: row.lastIndex ?? row.hardState.commit) { record, _ in
            if record.header.kind == .configuration {
                var payload = record.payload
                guard let next = Configuration(from: &payload) else {
                    unreadable = record.header.index
                    return false
                }
                configurations.append(IndexedConfiguration(index: record.header.index, configuration: next))
            }
            headers.append(record.header)
            return true
        }
        if let unreadable { throw .corruptEntry(unreadable) }
        let log = LogView(
            compactedIndex: row.compactedIndex, compactedTerm: row.compactedTerm, entries: headers,
            configurations: configurations)
        return Recovered(row: row, log: log)
    }

    // MARK: repair

    /// What is left of a log that can't be read through.
    package struct Damaged: Sendable {
        package var row: HardStateRow
        /// At the compacted index.
        package var configuration: Configuration
    }

    /// - Throws: `unreadableHardState` when nobody knows what this member promised.
    package func damaged() throws(LogError) -> Damaged {
        guard var hardRow = try readMeta("hard"), let row = HardStateRow(from: &hardRow),
            var base = try readMeta("base"), let configuration = Configuration(from: &base)
        else { throw .unreadableHardState }
        return Damaged(row: row, configuration: configuration)
    }

    /// The last index that is gone, as of the last commit.
    package func compactedIndex() throws(LogError) -> Index { try damaged().row.compactedIndex }

    /// Lets the log begin behind `snapshot`, whose state is durable in the directory of `stateNumber`. The sound tail behind
    /// it stays, if it goes on from the snapshot: it may have been acknowledged.
    ///
    /// - Parameters:
    ///   - isOwn: the snapshot is this log's own state, which the tail goes on from for certain.
    ///   - replacesCommitted: something that this log counts as committed is not what the cluster decided.
    /// - Returns: false, and nothing is changed, when there is damage in that tail, or may be: a later snapshot is needed.
    package func repair(
        with snapshot: SnapshotMetadata, stateNumber: UInt64, isOwn: Bool = false, replacesCommitted: Bool = false
    ) throws(LogError) -> Bool {
        var row = try damaged().row
        // What the cluster never decided may lie behind what it did.
        let goesBack = snapshot.index < row.compactedIndex
        guard !goesBack || replacesCommitted else { return false }
        let kept = if let index = row.lastIndex { index } else { try lastKept() ?? 0 }
        let last = max(kept, row.compactedIndex)
        var keepsTail = false
        if snapshot.index < last, !goesBack {
            guard try isSound(from: snapshot.index + 1, through: last) else { return false }
            if isOwn || snapshot.index == row.compactedIndex {
                keepsTail = true
            } else {
                guard let term = try header(at: snapshot.index)?.term else { return false }
                keepsTail = term == snapshot.term
            }
        }
        // Up to the snapshot the two agree, so that it lies behind it.
        if keepsTail, replacesCommitted, snapshot.index < row.hardState.commit { return false }
        (row.compactedIndex, row.compactedTerm) = (snapshot.index, snapshot.term)
        row.stateNumber = stateNumber
        row.hardState.commit = max(keepsTail ? row.hardState.commit : 0, snapshot.index)
        row.hardState.term = max(row.hardState.term, snapshot.term)
        row.lastIndex = keepsTail ? last : snapshot.index
        try commit(between: .repairBefore, .repairAfter) { transaction throws(LMDBError) in
            if goesBack {
                try transaction.removeAll(in: entries)
            } else if !keepsTail, last > snapshot.index {
                for index in snapshot.index + 1...last {
                    try transaction.delete(Self.key(index).span.bytes, in: entries)
                }
            }
            try write(row, &transaction)
            try writeBase(snapshot.configuration, &transaction)
        }
        return true
    }

    private func isSound(from first: Index, through last: Index) throws(LogError) -> Bool {
        do throws(LogError) { try scan(from: first, through: last) { _, _ in true } } catch {
            guard case .corruptEntry = error else { throw error }
            return false
        }
        return true
    }

    /// Nil when the entry is damaged or missing.
    private func header(at index: Index) throws(LogError) -> EntryHeader? {
        var header: EntryHeader?
        do throws(LogError) {
            try scan(from: index, through: index) { entry, _ in
                header = entry.header
                return false
            }
        } catch {
            guard case .corruptEntry = error else { throw error }
        }
        return header
    }

    private func lastKept() throws(LogError) -> Index? {
        do throws(LMDBError) {
            let transaction = try environment.beginRead()
            var cursor = try transaction.cursor(entries)
            guard try cursor.last(), cursor.key.byteCount == 10 else { return nil }
            return UInt64(bigEndian: unsafe cursor.key.unsafeLoadUnaligned(fromByteOffset: 2, as: UInt64.self))
        } catch { throw .store(error.code) }
    }

    /// Visits the entries from `first` on, until `visit` answers false or no more is there.
    ///
    /// - Parameters:
    ///   - last: of those that are there by all that is known.
    ///   - visit: gets each entry, and the record's bytes as the leader made them.
    /// - Throws: `corruptEntry` for an entry that is damaged, or missing up to `last`.
    package func scan(
        from first: Index, through last: Index, _ visit: (EntryRecord, ByteBuffer) -> Bool
    ) throws(LogError) {
        var failure: LogError?
        do throws(LMDBError) {
            let transaction = try environment.beginRead()
            var cursor = try transaction.cursor(entries)
            var expected = first
            var goesOn = try cursor.seek(Self.key(first).span.bytes)
            while goesOn {
                var bytes = ByteBuffer()
                cursor.value.withUnsafeBytes { _ = bytes.writeBytes($0) }
                let record = bytes
                guard let entry = try? EntryRecord(from: &bytes), entry.header.index == expected else {
                    failure = .corruptEntry(expected)
                    break
                }
                guard visit(entry, record) else { return }
                expected += 1
                goesOn = try cursor.next()
            }
            if failure == nil, expected <= last { failure = .corruptEntry(expected) }
        } catch {
            failure = .store(error.code)
        }
        if let failure { throw failure }
    }

    /// The first entry that is still in the table, whether it counts or waits to be erased.
    func firstKept() -> Index? {
        do throws(LMDBError) { return try firstKept(from: 0, environment.beginRead()) } catch { return nil }
    }

    /// The first entry from `index` on that is in the table.
    func firstKept(
        from index: Index, _ transaction: borrowing some Transaction & ~Copyable
    ) throws(LMDBError) -> Index? {
        var cursor = try transaction.cursor(entries)
        guard try cursor.seek(Self.key(index).span.bytes), cursor.key.byteCount == 10 else { return nil }
        return UInt64(bigEndian: unsafe cursor.key.unsafeLoadUnaligned(fromByteOffset: 2, as: UInt64.self))
    }

    // MARK: rows

    /// On the stack: it is made for each entry that is written or erased.
    static func key(_ index: Index) -> InlineArray<10, UInt8> {
        InlineArray { position in position < 2 ? 0 : UInt8(truncatingIfNeeded: index >> (72 - 8 * UInt64(position))) }
    }

    func append(_ record: ByteBuffer, at index: Index, _ transaction: inout WriteTransaction) throws(LMDBError) {
        let key = Self.key(index)
        // The end of the log is the end of the table: filling its pages to the brim halves what a sync has to write.
        try transaction.put(key.span.bytes, byteCount: record.readableBytes, in: entries, append: true) { page in
            record.withUnsafeReadableBytes { page.copyMemory(from: $0) }
        }
    }

    func write(_ row: HardStateRow, _ transaction: inout WriteTransaction) throws(LMDBError) {
        var bytes = ByteBuffer()
        row.write(to: &bytes)
        try writeMeta("hard", bytes, &transaction)
    }

    func writeMeta(_ name: String, _ value: ByteBuffer, _ transaction: inout WriteTransaction) throws(LMDBError) {
        let key = Array(name.utf8)
        var row = value
        row.writeInteger(Self.checksum(key, value))
        let bytes = Array(row.readableBytesView)
        try transaction.put(key.span.bytes, bytes.span.bytes, in: meta)
    }

    private func readMeta(_ name: String) throws(LogError) -> ByteBuffer? {
        let key = Array(name.utf8)
        var row = ByteBuffer()
        do {
            let transaction = try environment.beginRead()
            guard let value = try transaction.get(key.span.bytes, in: meta) else { return nil }
            value.withUnsafeBytes { _ = row.writeBytes($0) }
        } catch { throw .store(error.code) }
        guard row.readableBytes >= 4, let value = row.readSlice(length: row.readableBytes - 4),
            row.readInteger(as: UInt32.self) == Self.checksum(key, value)
        else { throw .unreadableHardState }
        return value
    }

    private static func checksum(_ key: [UInt8], _ value: ByteBuffer) -> UInt32 {
        var crc = CRC32()
        crc.add(key.span.bytes)
        value.withUnsafeReadableBytes { crc.add($0) }
        return crc.value
    }
}

/// The hard state, the log's bounds and the pointer to the state, which always change together.
package struct HardStateRow: Equatable, Sendable {
    package var hardState: HardState
    package var compactedIndex: Index = 0
    package var compactedTerm: Term = 0
    /// The state lives in the directory `state-N`.
    package var stateNumber: UInt64 = 1
    /// Nil in a row that an older program wrote.
    package var lastIndex: Index?

    init(hardState: HardState) { self.hardState = hardState }

    init?(from row: inout ByteBuffer) {
        guard
            let (term, hasVote, vote, commit, index, compactedTerm, number) = row.readMultipleIntegers(
                as: (UInt64, UInt8, UInt64, UInt64, UInt64, UInt64, UInt64).self)
        else { return nil }
        hardState = HardState(term: term, vote: hasVote == 0 ? nil : PeerID(vote), commit: commit)
        compactedIndex = index
        self.compactedTerm = compactedTerm
        stateNumber = number
        lastIndex = row.readInteger()
    }

    func write(to row: inout ByteBuffer) {
        row.writeMultipleIntegers(
            hardState.term, UInt8(hardState.vote == nil ? 0 : 1), hardState.vote?.rawValue ?? 0, hardState.commit,
            compactedIndex, compactedTerm, stateNumber)
        if let lastIndex { row.writeInteger(lastIndex) }
    }
}
