/// The store in memory: sorted keys beside their values. `commit` keeps a copy, which is what a crash would leave.
package struct MemoryStore: OrderedStore {
    private var rows = SortedRows<[UInt8]>()
    private var committedRows = SortedRows<[UInt8]>()

    package init() {}

    package func read<Result>(
        _ key: [UInt8], _ body: (RawSpan?) throws(StateError) -> Result
    ) throws(StateError) -> Result {
        guard let row = rows[key] else { return try body(nil) }
        return try body(row.span.bytes)
    }

    package func scan(
        from key: [UInt8], _ visit: (RawSpan, RawSpan) throws(StateError) -> Bool
    ) throws(StateError) {
        var position = rows.position(from: key)
        while let row = rows[position], try visit(row.key.span.bytes, row.value.span.bytes) {
            position = rows.position(after: position)
        }
    }

    package mutating func put(
        _ key: [UInt8], byteCount: Int, weigh: (RawSpan) -> UInt128, fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(StateError) -> (old: UInt128?, new: UInt128) {
        let row = [UInt8](byteCount: byteCount, fill: fill)
        let old = rows[key].map { weigh($0.span.bytes) }
        rows.set(key, row)
        return (old, weigh(row.span.bytes))
    }

    @discardableResult
    package mutating func delete(_ key: [UInt8], weigh: (RawSpan) -> UInt128) throws(StateError) -> UInt128? {
        guard let old = rows[key] else { return nil }
        rows.remove(key)
        return weigh(old.span.bytes)
    }

    package mutating func commit() throws(StateError) { committedRows = rows }

    /// Everything through the last commit, without what came after it.
    fileprivate var committed: MemoryStore {
        var copy = self
        copy.rows = committedRows
        return copy
    }
}

extension FileTree where Store == MemoryStore {
    /// Lets what was executed count as executed up to the later `index`, and commits.
    package mutating func move(to index: UInt64) throws(StateError) {
        guard index >= applied.index else { throw .wrongIndex(expected: applied.index, got: index) }
        applied.index = index
        isAppliedWritten = false
        try commit()
    }

    /// What the last commit would give back after a crash.
    package var committed: MemoryStore { store.committed }

    /// What a crash would leave if the row that says what was applied were written apart from the others: a fault that the
    /// simulator plants.
    package var tornCommit: MemoryStore { store.torn(keeping: StateKey.applied) }
}

extension MemoryStore {
    /// A copy without the clients' sessions: a fault that the simulator plants.
    package var withoutSessions: MemoryStore {
        var copy = self
        var position = rows.start
        while let row = rows[position] {
            if row.key.first == StateKey.Table.sessions.rawValue { copy.rows.remove(row.key) }
            position = rows.position(after: position)
        }
        copy.committedRows = copy.rows
        return copy
    }

    /// Everything as it is now, but `key` as it was at the last commit.
    fileprivate func torn(keeping key: [UInt8]) -> MemoryStore {
        var copy = self
        if let committed = committedRows[key], rows[key] != nil { copy.rows.set(key, committed) }
        copy.committedRows = copy.rows
        return copy
    }
}
