import CLMDB

/// A position in a database's order of keys.
package struct Cursor: ~Copyable, ~Escapable {
    private let handle: OpaquePointer
    private var currentKey = MDB_val()
    private var currentValue = MDB_val()

    @_lifetime(immortal)
    init(handle: OpaquePointer) { self.handle = handle }

    deinit { mdb_cursor_close(handle) }

    /// Moves to the first pair whose key is `key` or greater; false when there is none.
    @_lifetime(self: copy self)
    package mutating func seek(_ key: RawSpan) throws(LMDBError) -> Bool {
        try move(MDB_SET_RANGE, from: key)
    }

    /// Moves to the first pair; false when the database is empty.
    @_lifetime(self: copy self)
    package mutating func first() throws(LMDBError) -> Bool { try move(MDB_FIRST) }

    /// Moves to the last pair; false when the database is empty.
    @_lifetime(self: copy self)
    package mutating func last() throws(LMDBError) -> Bool { try move(MDB_LAST) }

    /// Moves to the next pair; false after the last.
    @_lifetime(self: copy self)
    package mutating func next() throws(LMDBError) -> Bool { try move(MDB_NEXT) }

    @_lifetime(self: copy self)
    private mutating func move(_ operation: MDB_cursor_op, from key: RawSpan = RawSpan()) throws(LMDBError) -> Bool {
        let (handle, empty) = (handle, MDB_val())
        let (code, foundKey, foundValue) = withValue(key) { position in
            var value = empty
            let code = mdb_cursor_get(handle, &position, &value, operation)
            return (code, position, value)
        }
        (currentKey, currentValue) = (foundKey, foundValue)
        return try LMDBError.found(code)
    }

    /// The key at the position. Only after a move that answered true.
    package var key: RawSpan {
        @_lifetime(borrow self)
        get {
            let span = RawSpan(_unsafeStart: UnsafeRawPointer(currentKey.mv_data), byteCount: currentKey.mv_size)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }

    /// The value at the position, without a copy. Only after a move that answered true.
    package var value: RawSpan {
        @_lifetime(borrow self)
        get {
            let span = RawSpan(_unsafeStart: UnsafeRawPointer(currentValue.mv_data), byteCount: currentValue.mv_size)
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }
}
