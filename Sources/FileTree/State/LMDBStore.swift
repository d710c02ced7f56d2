import LMDB

/// The store in LMDB. It keeps one write transaction open as its write buffer: the Raft log is the write-ahead log, so
/// that no command needs a sync of its own here.
///
/// It belongs to the thread that made it.
package struct LMDBStore: OrderedStore, ~Copyable {
    private let database: Database
    private var transaction: WriteTransaction

    package init(_ state: StateEnvironment) throws(StateError) {
        do throws(LMDBError) {
            transaction = try state.environment.beginWrite()
        } catch {
            throw .store(error.code)
        }
        database = state.database
    }

    package borrowing func read<Result>(
        _ key: [UInt8], _ body: (RawSpan?) throws(StateError) -> Result
    ) throws(StateError) -> Result {
        let value: RawSpan?
        do { value = try transaction.get(key.span.bytes, in: database) } catch { throw StateError.store(error.code) }
        return try body(value)
    }

    package borrowing func scan(
        from key: [UInt8], _ visit: (RawSpan, RawSpan) throws(StateError) -> Bool
    ) throws(StateError) {
        var failure: StateError?
        do throws(LMDBError) {
            var cursor = try transaction.cursor(database)
            var goesOn = try cursor.seek(key.span.bytes)
            while goesOn {
                do throws(StateError) { goesOn = try visit(cursor.key, cursor.value) } catch {
                    failure = error
                    break
                }
                if goesOn { goesOn = try cursor.next() }
            }
        } catch {
            failure = .store(error.code)
        }
        if let failure { throw failure }
    }

    package mutating func put(
        _ key: [UInt8], byteCount: Int, fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(StateError) {
        do { try transaction.put(key.span.bytes, byteCount: byteCount, in: database, fill: fill) } catch {
            throw StateError.store(error.code)
        }
    }

    package mutating func delete(_ key: [UInt8]) throws(StateError) {
        do { try transaction.delete(key.span.bytes, in: database) } catch { throw StateError.store(error.code) }
    }

    package mutating func commit() throws(StateError) {
        do { try transaction.commitAndContinue() } catch { throw StateError.store(error.code) }
    }
}
