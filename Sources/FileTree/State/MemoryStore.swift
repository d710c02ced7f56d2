/// The store in memory: sorted keys beside their values. `commit` keeps a copy, which is what a crash would leave.
package struct MemoryStore: OrderedStore {
    private var keys: [[UInt8]] = []
    private var values: [[UInt8]] = []
    private var committedKeys: [[UInt8]] = []
    private var committedValues: [[UInt8]] = []

    package init() {}

    /// The first position whose key is `key` or greater.
    private func position(of key: [UInt8]) -> Int {
        var low = 0
        var high = keys.count
        while low < high {
            let middle = (low + high) / 2
            if keys[middle].lexicographicallyPrecedes(key) { low = middle + 1 } else { high = middle }
        }
        return low
    }

    package func read<Result>(
        _ key: [UInt8], _ body: (RawSpan?) throws(StateError) -> Result
    ) throws(StateError) -> Result {
        let position = position(of: key)
        guard position < keys.count, keys[position] == key else { return try body(nil) }
        let value = values[position]
        return try body(value.span.bytes)
    }

    package func scan(
        from key: [UInt8], _ visit: (RawSpan, RawSpan) throws(StateError) -> Bool
    ) throws(StateError) {
        for position in position(of: key)..<keys.count {
            let (key, value) = (keys[position], values[position])
            if try !visit(key.span.bytes, value.span.bytes) { return }
        }
    }

    package mutating func put(
        _ key: [UInt8], byteCount: Int, fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(StateError) {
        var value = [UInt8](repeating: 0, count: byteCount)
        value.withUnsafeMutableBytes(fill)
        let position = position(of: key)
        if position < keys.count, keys[position] == key {
            values[position] = value
        } else {
            keys.insert(key, at: position)
            values.insert(value, at: position)
        }
    }

    package mutating func delete(_ key: [UInt8]) throws(StateError) {
        let position = position(of: key)
        guard position < keys.count, keys[position] == key else { return }
        keys.remove(at: position)
        values.remove(at: position)
    }

    /// Everything through the last commit, without what came after it.
    fileprivate var committed: MemoryStore {
        var copy = self
        (copy.keys, copy.values) = (committedKeys, committedValues)
        return copy
    }

    package mutating func commit() throws(StateError) {
        committedKeys = keys
        committedValues = values
    }

}

extension FileTree where Store == MemoryStore {
    /// What the last commit would give back after a crash.
    package var committed: MemoryStore { store.committed }

    /// What a crash would leave if the row that says what was applied were written apart from the others: a fault that the
    /// simulator plants.
    package var tornCommit: MemoryStore { store.torn(keeping: StateKey.applied) }
}

extension MemoryStore {
    /// A copy without the clients' sessions: a fault that the simulator plants.
    package var withoutSessions: MemoryStore {
        var copy = MemoryStore()
        for (key, value) in zip(keys, values) where key.first != StateKey.Table.sessions.rawValue {
            copy.keys.append(key)
            copy.values.append(value)
        }
        (copy.committedKeys, copy.committedValues) = (copy.keys, copy.values)
        return copy
    }

    /// Everything as it is now, but `key` as it was at the last commit.
    fileprivate func torn(keeping key: [UInt8]) -> MemoryStore {
        var copy = self
        let position = position(of: key)
        let committed = committedKeys.firstIndex(of: key)
        if let committed, position < keys.count, keys[position] == key {
            copy.values[position] = committedValues[committed]
        }
        (copy.committedKeys, copy.committedValues) = (copy.keys, copy.values)
        return copy
    }
}
