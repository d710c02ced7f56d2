import Glibc

/// Values by key, in the order of the keys' bytes, in memory: leaves of a few hundred rows each, so that neither a search
/// nor an insertion moves more than a leaf.
struct SortedRows<Value: Sendable>: Sendable {
    struct Row: Sendable {
        let key: [UInt8]
        var value: Value
    }

    /// Where a row stands. Any change of the rows makes it void.
    struct Position {
        fileprivate var leaf: Int
        fileprivate var row: Int
    }

    private static var leafRowsMax: Int { 256 }

    /// None is empty.
    private var leaves: [[Row]] = []
    private(set) var count = 0

    var isEmpty: Bool { leaves.isEmpty }

    subscript(key: [UInt8]) -> Value? {
        let position = position(from: key)
        guard let row = self[position], row.key == key else { return nil }
        return row.value
    }

    /// The row at `position`; nil behind the last.
    subscript(position: Position) -> Row? {
        position.leaf < leaves.count ? leaves[position.leaf][position.row] : nil
    }

    var start: Position { Position(leaf: 0, row: 0) }

    /// The first row whose key is `key` or greater.
    func position(from key: [UInt8]) -> Position {
        let position = place(of: key)
        guard position.leaf < leaves.count, position.row == leaves[position.leaf].count else { return position }
        return Position(leaf: position.leaf + 1, row: 0)
    }

    /// Where `key` stands or would stand, perhaps behind its leaf's last row.
    private func place(of key: [UInt8]) -> Position {
        // The last leaf that begins at the key or before it.
        let leaf = max(0, Self.firstIndex(of: leaves.count) { key.precedes(leaves[$0][0].key) } - 1)
        guard leaf < leaves.count else { return start }
        return Position(
            leaf: leaf, row: Self.firstIndex(of: leaves[leaf].count) { !leaves[leaf][$0].key.precedes(key) })
    }

    func position(after position: Position) -> Position {
        position.row + 1 < leaves[position.leaf].count
            ? Position(leaf: position.leaf, row: position.row + 1) : Position(leaf: position.leaf + 1, row: 0)
    }

    /// Answers with the value that was there before.
    @discardableResult
    mutating func set(_ key: [UInt8], _ value: Value) -> Value? {
        guard !leaves.isEmpty else {
            leaves = [[Row(key: key, value: value)]]
            count = 1
            return nil
        }
        let place = place(of: key)
        let (leaf, row) = (place.leaf, place.row)
        if row < leaves[leaf].count, leaves[leaf][row].key == key {
            let old = leaves[leaf][row].value
            leaves[leaf][row].value = value
            return old
        }
        leaves[leaf].insert(Row(key: key, value: value), at: row)
        count += 1
        if leaves[leaf].count > Self.leafRowsMax { split(leaf, at: row) }
        return nil
    }

    mutating func remove(_ key: [UInt8]) {
        let position = position(from: key)
        guard let row = self[position], row.key == key else { return }
        leaves[position.leaf].remove(at: position.row)
        if leaves[position.leaf].isEmpty { leaves.remove(at: position.leaf) }
        count -= 1
    }

    /// Ascending keys leave full leaves behind them.
    private mutating func split(_ leaf: Int, at inserted: Int) {
        let middle = inserted == leaves[leaf].count - 1 ? inserted : leaves[leaf].count / 2
        let upper = Array(leaves[leaf][middle...])
        leaves[leaf].removeSubrange(middle...)
        leaves.insert(upper, at: leaf + 1)
    }

    /// The first of `count` indexes for which `isBehind` holds, which it then does for all that follow.
    @inline(__always)
    private static func firstIndex(of count: Int, where isBehind: (Int) -> Bool) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if isBehind(middle) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

extension [UInt8] {
    /// Whether it stands before `other` in the order of bytes, which is LMDB's.
    @inline(__always)
    func precedes(_ other: [UInt8]) -> Bool { order(to: other.span.bytes) < 0 }

    /// Less than, equal to or greater than zero as it stands before, at or behind `other`.
    @inline(__always)
    func order(to other: RawSpan) -> Int {
        let order = withUnsafeBytes { own in
            other.withUnsafeBytes { other in
                guard let own = own.baseAddress, let start = other.baseAddress else { return CInt(0) }
                return memcmp(own, start, Swift.min(count, other.count))
            }
        }
        return order == 0 ? count - other.byteCount : Int(order)
    }
}
