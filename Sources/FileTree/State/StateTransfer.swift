import CrashPoints
import Glibc
import LMDB

/// A state at its last commit, as a snapshot is made from: a view that never changes while others write.
package struct StateView: ~Copyable {
    private let transaction: ReadTransaction
    private let state: StateEnvironment
    package let applied: Applied
    /// The configuration at the applied index, as its entry encoded it.
    package let configuration: [UInt8]

    package init(_ state: StateEnvironment) throws(StateError) {
        let database = state.database
        let transaction: ReadTransaction
        do { transaction = try state.environment.beginRead() } catch { throw .store(error.code) }
        guard let applied = try Self.row(StateKey.applied, transaction, database),
            let configuration = try Self.row(StateKey.configuration, transaction, database)
        else { throw .unknownFormat }
        self.applied = try Applied(row: applied.span.bytes)
        self.configuration = configuration
        self.state = state
        self.transaction = transaction
    }

    /// Bytes that are free on the disk under the state.
    package var freeDiskBytes: UInt64 { state.freeDiskBytes }

    fileprivate static func row(
        _ key: [UInt8], _ transaction: borrowing ReadTransaction, _ database: Database
    ) throws(StateError) -> [UInt8]? {
        let row: RawSpan?
        do { row = try transaction.get(key.span.bytes, in: database) } catch { throw .store(error.code) }
        guard let row else { return nil }
        let value = try RowChecksum.verify(key: key.span.bytes, row: row)
        return value.withUnsafeBytes { Array($0) }
    }

    /// Visits every row in the order of the keys, each checked against its checksum.
    package borrowing func forEach(
        _ visit: (_ key: RawSpan, _ row: RawSpan) throws(StateError) -> Void
    ) throws(StateError) {
        var failure: StateError?
        do throws(LMDBError) {
            var cursor = try transaction.cursor(state.database)
            var isThere = try cursor.first()
            while isThere {
                do throws(StateError) {
                    // A rotten row must not spread to another member.
                    _ = try RowChecksum.verify(key: cursor.key, row: cursor.value)
                    try visit(cursor.key, cursor.value)
                } catch {
                    failure = error
                    break
                }
                isThere = try cursor.next()
            }
        } catch {
            failure = .store(error.code)
        }
        if let failure { throw failure }
    }
}

/// A state that is being built from a snapshot's rows, in an environment of its own beside the present one.
///
/// It belongs to one thread from its beginning to its end, as LMDB's write transactions do.
package final class StateImport {
    /// Bytes of rows in one transaction.
    private static let transactionBytesMax = 32 << 20

    private let state: StateEnvironment
    private var transaction: WriteTransaction?
    private let reserve: UInt64
    private var bytes = 0

    /// Begins a state in the existing, empty directory `path`.
    ///
    /// - Parameter reserve: bytes of the disk that stay free: they are what deletes and the log need.
    package init(path: String, reserve: UInt64) throws(StateError) {
        let state = try StateEnvironment(path: path)
        do { transaction = try state.environment.beginWrite() } catch { throw .store(error.code) }
        self.state = state
        self.reserve = reserve
    }

    /// Adds a row that was checked. Keys must ascend.
    package func add(key: RawSpan, row: RawSpan) throws(StateError) {
        guard key.byteCount > 0, key.byteCount <= state.environment.keyBytesMax else { throw .unknownFormat }
        do throws(LMDBError) {
            try transaction?.put(key, row, in: state.database, append: true)
            bytes += key.byteCount + row.byteCount
        } catch {
            throw error == .keyExists ? .unknownFormat : .store(error.code)
        }
        guard bytes >= Self.transactionBytesMax else { return }
        try commit()
        CrashPoint.importStep.reach()
        do { transaction = try state.environment.beginWrite() } catch { throw .store(error.code) }
    }

    /// Makes everything durable. Nothing can be added after it.
    package func finish() throws(StateError) {
        CrashPoint.importCommitBefore.reach()
        try commit()
        CrashPoint.importCommitAfter.reach()
    }

    private func commit() throws(StateError) {
        // Rows fill pages to three quarters at the least, in the order of their keys.
        let free = state.freeDiskBytes
        guard free >= reserve, free - reserve >= UInt64(bytes) * 3 / 2 else { throw .store(ENOSPC) }
        guard let whole = transaction.take() else { return }
        do { try whole.commit() } catch { throw .store(error.code) }
        bytes = 0
    }
}

extension StateEnvironment {
    /// What was executed, as of the last commit; nil when nothing was.
    package func applied() throws(StateError) -> Applied? {
        let transaction: ReadTransaction
        do { transaction = try environment.beginRead() } catch { throw .store(error.code) }
        guard let row = try StateView.row(StateKey.applied, transaction, database) else { return nil }
        return try Applied(row: row.span.bytes)
    }

    /// Lets what was executed count as executed up to the later `index`: the next command is the one behind that. The rows
    /// stay as they are.
    package func move(to index: UInt64) throws(StateError) {
        var applied = try applied() ?? Applied()
        guard index >= applied.index else { throw .wrongIndex(expected: applied.index, got: index) }
        applied.index = index
        let key = StateKey.applied
        do throws(LMDBError) {
            var transaction = try environment.beginWrite()
            try transaction.put(
                key.span.bytes, byteCount: Applied.byteCount + RowChecksum.byteCount, in: database
            ) { row in RowChecksum.seal(row, of: key) { applied.write(to: $0) } }
            try transaction.commit()
        } catch { throw .store(error.code) }
    }
}
