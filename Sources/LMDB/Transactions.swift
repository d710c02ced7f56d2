import CLMDB
import Glibc

/// What both kinds of transaction can do: look up, count and scan.
///
/// Spans point into LMDB's pages. The compiler keeps them, and cursors, inside the borrow of their transaction; a write
/// to the transaction ends that borrow.
package protocol Transaction: ~Copyable {
    var handle: OpaquePointer { get }
}

extension Transaction where Self: ~Copyable {
    /// The value of `key`, without a copy, or nil.
    @_lifetime(borrow self)
    package borrowing func get(_ key: RawSpan, in database: Database) throws(LMDBError) -> RawSpan? {
        var data = MDB_val()
        let code = withValue(key) { mdb_get(handle, database.identifier, &$0, &data) }
        guard try LMDBError.found(code) else { return nil }
        let span = RawSpan(_unsafeStart: UnsafeRawPointer(data.mv_data), byteCount: data.mv_size)
        return unsafe _overrideLifetime(span, borrowing: self)
    }

    /// A cursor over `database`, which can't outlive this borrow of the transaction.
    @_lifetime(borrow self)
    package borrowing func cursor(_ database: Database) throws(LMDBError) -> Cursor {
        var opened: OpaquePointer?
        try LMDBError.check(mdb_cursor_open(handle, database.identifier, &opened))
        guard let opened else { throw LMDBError(code: MDB_PANIC) }
        let cursor = Cursor(handle: opened)
        return unsafe _overrideLifetime(cursor, borrowing: self)
    }

    /// How many pairs `database` holds.
    package borrowing func count(_ database: Database) throws(LMDBError) -> Int {
        var stat = MDB_stat()
        try LMDBError.check(mdb_stat(handle, database.identifier, &stat))
        return stat.ms_entries
    }
}

/// A view of the last commit. It ends when it goes out of scope.
package struct ReadTransaction: ~Copyable, Transaction {
    package let handle: OpaquePointer
    /// Keeps the environment open while the transaction lives.
    private let environment: Environment

    init(environment: Environment) throws(LMDBError) {
        var begun: OpaquePointer?
        try LMDBError.check(mdb_txn_begin(environment.handle, nil, UInt32(MDB_RDONLY), &begun))
        guard let begun else { throw LMDBError(code: MDB_PANIC) }
        handle = begun
        self.environment = environment
    }

    deinit { mdb_txn_abort(handle) }
}

/// The one write transaction of an environment. Whoever lets it go out of scope without `commit()` aborts it.
///
/// It ends on the thread that began it: LMDB's lock belongs to that thread, and would be held for ever.
package struct WriteTransaction: ~Copyable, Transaction {
    package let handle: OpaquePointer
    private let thread = pthread_self()
    /// Keeps the environment open while the transaction lives.
    private let environment: Environment
    private var isOver = false
    /// What went wrong first. LMDB answers everything behind it with "bad transaction" alone.
    private var failure: LMDBError?

    init(environment: Environment) throws(LMDBError) {
        var begun: OpaquePointer?
        try LMDBError.check(mdb_txn_begin(environment.handle, nil, 0, &begun), "a write began")
        guard let begun else { throw LMDBError(code: MDB_PANIC) }
        handle = begun
        self.environment = environment
    }

    deinit {
        guard !isOver else { return }
        checkThread()
        mdb_txn_abort(handle)
    }

    private borrowing func checkThread() {
        precondition(pthread_equal(thread, pthread_self()) != 0, "a write transaction ends on another thread")
    }

    /// Makes the changes durable. When it throws, nothing is known of what reached the disk: the process must stop.
    package consuming func commit() throws(LMDBError) {
        checkThread()
        let (handle, first, environment) = (handle, failure, environment)
        // LMDB frees the handle whatever it answers, so that the deinit must not abort it again.
        isOver = true
        let code = mdb_txn_commit(handle)
        if code == MDB_BAD_TXN, let first { throw first }
        try LMDBError.check(environment.cause(of: code), "it committed")
    }

    /// Sets `key` to `value`.
    ///
    /// - Parameter append: the key is known to be greater than every other, which fills pages to the end; with a
    ///   smaller key the call throws `keyExists`.
    package mutating func put(
        _ key: RawSpan, _ value: RawSpan, in database: Database, append: Bool = false
    ) throws(LMDBError) {
        try put(key, byteCount: value.byteCount, in: database, append: append) { page in
            value.withUnsafeBytes { page.copyMemory(from: $0) }
        }
    }

    /// Sets `key` to `byteCount` bytes that `fill` writes straight into the page. It must write all of them.
    package mutating func put(
        _ key: RawSpan, byteCount: Int, in database: Database, append: Bool = false,
        fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(LMDBError) {
        var data = MDB_val(mv_size: byteCount, mv_data: nil)
        let flags = UInt32(MDB_RESERVE) | (append ? UInt32(MDB_APPEND) : 0)
        let (handle, identifier) = (handle, database.identifier)
        try check(withValue(key) { mdb_put(handle, identifier, &$0, &data, flags) }, "a row was written")
        fill(UnsafeMutableRawBufferPointer(start: data.mv_data, count: byteCount))
    }

    /// Removes `key`; false when it was not there.
    @discardableResult
    package mutating func delete(_ key: RawSpan, in database: Database) throws(LMDBError) -> Bool {
        let (handle, identifier) = (handle, database.identifier)
        let code = withValue(key) { mdb_del(handle, identifier, &$0, nil) }
        if code == MDB_NOTFOUND { return false }
        try check(code, "a row was removed")
        return true
    }

    private mutating func check(_ code: Int32, _ operation: String) throws(LMDBError) {
        guard code != MDB_SUCCESS else { return }
        if code == MDB_BAD_TXN, let failure { throw failure }
        let error = LMDBError(code: environment.cause(of: code), operation: operation)
        if failure == nil { failure = error }
        throw error
    }

    /// Removes every pair of `database`.
    package mutating func removeAll(in database: Database) throws(LMDBError) {
        try check(mdb_drop(handle, database.identifier, 0), "rows were removed")
    }
}
