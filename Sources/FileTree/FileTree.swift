import NIOCore
import Raft

/// The state machine: one tree of directories and files, changed by commands in the order of the log.
///
/// It is deterministic: the same commands in the same order leave byte-identical rows in any store. Time, sizes and
/// ids reach it inside commands or stand in the state. Every operation decides fully before it writes, so that nothing
/// ever needs rolling back.
///
/// An operation's file holds its encoding and its execution: see `Operations`.
package struct FileTree<Store: OrderedStore & ~Copyable>: ~Copyable {
    var store: Store
    package internal(set) var applied: Applied
    /// Whether `applied` changed since it was last written.
    private var isAppliedWritten = true

    /// The tree that `store` holds; an empty one when it holds nothing.
    package init(store: consuming Store) throws(StateError) {
        let key = StateKey.applied
        applied = try store.read(key) { row throws(StateError) in
            guard let row else { return Applied() }
            return try Applied(row: RowChecksum.verify(key: key.span.bytes, row: row))
        }
        self.store = store
    }

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

    /// Writes down what was applied, and makes it durable together with all rows.
    package mutating func commit() throws(StateError) {
        if !isAppliedWritten {
            let applied = applied
            try writeRow(StateKey.applied, byteCount: Applied.byteCount) { applied.write(to: $0) }
            isAppliedWritten = true
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
        guard let header = CommandHeader(from: &payload), header.version <= applied.clusterVersion else {
            throw .unknownFormat
        }
        applied.logTime = max(applied.logTime, header.logTime)
        let outcome: Outcome
        switch header.operation {
        case .makeDirectory:
            outcome = try decode(MakeDirectory.init, &payload) { command, tree throws(StateError) in
                try command.execute(on: &tree, header)
            }
        case .put:
            outcome = try decode(Put.init, &payload) { command, tree throws(StateError) in
                try command.execute(on: &tree, header)
            }
        case .rename:
            outcome = try decode(Rename.init, &payload) { command, tree throws(StateError) in
                try command.execute(on: &tree, header)
            }
        case .delete:
            outcome = try decode(Delete.init, &payload) { command, tree throws(StateError) in
                try command.execute(on: &tree, header)
            }
        case .reclaim:
            outcome = try decode(Reclaim.init, &payload) { command, tree throws(StateError) in
                try command.execute(on: &tree)
            }
        }
        outcome.write(to: &answer)
    }

    /// A command that can't be read was wrong when its client sent it: every member refuses it alike.
    private mutating func decode<Command>(
        _ read: (inout ByteBuffer) throws(TreeError) -> Command, _ payload: inout ByteBuffer,
        _ run: (Command, inout Self) throws(StateError) -> Outcome
    ) throws(StateError) -> Outcome {
        let command: Command
        do { command = try read(&payload) } catch { return .failed(error, revision: 0) }
        guard payload.readableBytes == 0 else { return .failed(.malformed, revision: 0) }
        return try run(command, &self)
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
        try store.put(key, byteCount: byteCount + RowChecksum.byteCount) { row in
            let value = UnsafeMutableRawBufferPointer(rebasing: row[..<byteCount])
            fill(value)
            row.storeBigEndian(RowChecksum.of(key: key.span.bytes, value: UnsafeRawBufferPointer(value)), at: byteCount)
        }
    }

    /// Writes a row and moves the digest from its old value to its new one.
    mutating func setRow(
        _ key: [UInt8], byteCount: Int, fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(StateError) {
        try takeFromDigest(key)
        try writeRow(key, byteCount: byteCount, fill: fill)
        applied.digest.add(try digest(of: key) ?? 0)
    }

    mutating func deleteRow(_ key: [UInt8]) throws(StateError) {
        try takeFromDigest(key)
        try store.delete(key)
    }

    private mutating func takeFromDigest(_ key: [UInt8]) throws(StateError) {
        if let old = try digest(of: key) { applied.digest.remove(old) }
    }

    private borrowing func digest(of key: [UInt8]) throws(StateError) -> UInt128? {
        try store.read(key) { row in
            guard let row else { return nil }
            let isChunk = key[0] == StateKey.Table.chunks.rawValue
            return StateDigest.row(key: key.span.bytes, value: isChunk ? RawSpan() : row)
        }
    }
}
