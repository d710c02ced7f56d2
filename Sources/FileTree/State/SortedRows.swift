import Glibc

/// Values by key, in the order of the keys' bytes, in memory: leaves of a few hundred rows each, so that neither a search
/// nor an insertion moves more than a leaf.
///
/// A key's first bytes stand beside it as a number, its head: most comparisons need not look at keys, each of which lies
/// elsewhere in memory.
struct SortedRows<Value: Sendable>: Sendable {
    struct Row: Sendable {
        fileprivate let head: UInt128
        let key: [UInt8]
        var value: Value

        @inline(__always)
        fileprivate func isBefore(_ other: [UInt8], _ otherHead: UInt128) -> Bool {
            head == otherHead ? key.order(to: other.span.bytes) < 0 : head < otherHead
        }
    }

    /// Where a row stands. Any change of the rows makes it void.
    struct Position {
        fileprivate var leaf: Int
        fileprivate var row: Int
    }

    /// Where a key stands, or would stand: perhaps behind its leaf's last row. Any change of the rows makes it void.
    struct Place {
        fileprivate var position: Position
        fileprivate var head: UInt128
        var isThere: Bool
    }

    private static var leafRowsMax: Int { 256 }

    /// None is empty.
    private var leaves: [[Row]] = []
    /// Of each leaf's first row.
    private var heads: [UInt128] = []
    private(set) var count = 0

    var isEmpty: Bool { leaves.isEmpty }

    subscript(key: [UInt8]) -> Value? {
        let place = place(of: key)
        return place.isThere ? withValue(at: place) { $0 } : nil
    }

    /// Lends the value at `place`, where there must be one.
    @inline(__always)
    func withValue<Result, Failure>(
        at place: Place, _ body: (Value) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try leaves[place.position.leaf].withUnsafeBufferPointer { rows throws(Failure) in
            try body(rows[place.position.row].value)
        }
    }

    /// The row at `position`; nil behind the last.
    subscript(position: Position) -> Row? {
        position.leaf < leaves.count ? leaves[position.leaf][position.row] : nil
    }

    var start: Position { Position(leaf: 0, row: 0) }

    /// The first row whose key is `key` or greater.
    func position(from key: [UInt8]) -> Position {
        let position = place(of: key).position
        guard position.leaf < leaves.count, position.row == leaves[position.leaf].count else { return position }
        return Position(leaf: position.leaf + 1, row: 0)
    }

    func place(of key: [UInt8]) -> Place {
        let head = key.head
        guard !leaves.isEmpty else { return Place(position: start, head: head, isThere: false) }
        // The last leaf that begins at the key or before it.
        let behind = Self.firstIndex(of: heads.count) { leaf in
            heads[leaf] == head
                ? leaves[leaf][0].key.order(to: key.span.bytes) > 0 : heads[leaf] > head
        }
        let leaf = max(0, behind - 1)
        return leaves[leaf].withUnsafeBufferPointer { rows in
            let row = Self.firstIndex(of: rows.count) { !rows[$0].isBefore(key, head) }
            let isThere =
                row < rows.count && rows[row].head == head
                && rows[row].key.order(to: key.span.bytes) == 0
            return Place(position: Position(leaf: leaf, row: row), head: head, isThere: isThere)
        }
    }

    func position(after position: Position) -> Position {
        position.row + 1 < leaves[position.leaf].count
            ? Position(leaf: position.leaf, row: position.row + 1) : Position(leaf: position.leaf + 1, row: 0)
    }

    mutating func set(_ key: [UInt8], _ value: Value) { set(key, value, at: place(of: key)) }

    /// - Parameter place: the key's.
    mutating func set(_ key: [UInt8], _ value: Value, at place: Place) {
        let head = place.head
        guard !leaves.isEmpty else {
            (leaves, heads, count) = ([[Row(head: head, key: key, value: value)]], [head], 1)
            return
        }
        let (leaf, row) = (place.position.leaf, place.position.row)
        if place.isThere {
            leaves[leaf][row].value = value
            return
        }
        leaves[leaf].insert(Row(head: head, key: key, value: value), at: row)
        if row == 0 { heads[leaf] = head }
        count += 1
        if leaves[leaf].count > Self.leafRowsMax { split(leaf, at: row) }
    }

    mutating func remove(_ key: [UInt8]) {
        let place = place(of: key)
        guard place.isThere else { return }
        let leaf = place.position.leaf
        leaves[leaf].remove(at: place.position.row)
        if let first = leaves[leaf].first {
            heads[leaf] = first.head
        } else {
            leaves.remove(at: leaf)
            heads.remove(at: leaf)
        }
        count -= 1
    }

    /// Ascending keys leave full leaves behind them.
    private mutating func split(_ leaf: Int, at inserted: Int) {
        let middle = inserted == leaves[leaf].count - 1 ? inserted : leaves[leaf].count / 2
        let upper = Array(leaves[leaf][middle...])
        leaves[leaf].removeSubrange(middle...)
        leaves.insert(upper, at: leaf + 1)
        heads.insert(upper[0].head, at: leaf + 1)
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
    /// `byteCount` bytes, all of which `fill` writes.
    ///
    /// Short ones by way of the stack: for an array that begins without values, the standard library looks up the type of
    /// its storage, which costs more than the copy.
    init(byteCount: Int, fill: (UnsafeMutableRawBufferPointer) -> Void) {
        guard byteCount <= 1024 else {
            self.init(unsafeUninitializedCapacity: byteCount) { bytes, count in
                fill(UnsafeMutableRawBufferPointer(bytes))
                count = byteCount
            }
            return
        }
        self = []
        withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 1) { bytes in
            fill(bytes)
            self = Array(bytes)
        }
    }

    /// The first 16 bytes, most significant first, with zeros behind a shorter key. Of keys whose heads differ, these have
    /// the keys' order.
    fileprivate var head: UInt128 {
        withUnsafeBytes { bytes in
            if bytes.count >= 16 { return UInt128(bigEndian: bytes.loadUnaligned(as: UInt128.self)) }
            var head: UInt128 = 0
            Swift.withUnsafeMutableBytes(of: &head) { $0.copyMemory(from: bytes) }
            return UInt128(bigEndian: head)
        }
    }

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
