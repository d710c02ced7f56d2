/// The ordered key-value store that the tree stands on. Keys compare as bytes.
///
/// Two implementations: `OverlayStore`, and `MemoryStore` for simulations and tests. Everything since the last `commit` is
/// lost together when the process ends before the next.
package protocol OrderedStore: ~Copyable {
    /// Lends the value of `key`, or nil, to `body`.
    borrowing func read<Result>(
        _ key: [UInt8], _ body: (RawSpan?) throws(StateError) -> Result
    ) throws(StateError) -> Result

    /// Visits the pairs from `key` on in ascending order, until `visit` answers false.
    borrowing func scan(
        from key: [UInt8], _ visit: (_ key: RawSpan, _ value: RawSpan) throws(StateError) -> Bool
    ) throws(StateError)

    /// Sets `key` to `byteCount` bytes, all of which `fill` writes.
    ///
    /// - Parameter weigh: what a row of this key adds to the digest.
    /// - Returns: the weights of the row that was there, if any, and of the new one.
    mutating func put(
        _ key: [UInt8], byteCount: Int, weigh: (RawSpan) -> UInt128, fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(StateError) -> (old: UInt128?, new: UInt128)

    /// - Returns: the weight of the row that was there, if any.
    @discardableResult
    mutating func delete(_ key: [UInt8], weigh: (RawSpan) -> UInt128) throws(StateError) -> UInt128?

    /// Makes everything so far durable, as one; it may take a while after the call (see `DurableTree`).
    mutating func commit() throws(StateError)
}
