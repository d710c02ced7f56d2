import LMDB
import Raft

/// The store in LMDB, under a buffer of the rows that changed: a change costs its own bytes and not a page, and nobody
/// waits for a commit, since a thread of its own writes a full buffer while the next one fills.
///
/// A read looks at the buffer that fills, then at the one that is being written, then at LMDB's last commit. The Raft log
/// is the write-ahead log of all that is not written yet.
package struct OverlayStore: OrderedStore, ~Copyable {
    struct Change: Sendable {
        /// The new bytes; nil when the row was deleted.
        var row: [UInt8]?
    }

    typealias Changes = SortedRows<Change>

    private let state: StateEnvironment
    private let flusher: StateFlusher
    /// What was committed last.
    private var base: ReadTransaction
    private var filling = Changes()
    private var flushing = Changes()
    private(set) var isFlushing = false
    /// How many rows changed since the last `commit`.
    var changedRows: Int { filling.count }
    /// What the last read found: a command writes the row that it has just looked at.
    private let lastRead = LastRead()

    /// Where a row is.
    private enum Found {
        /// At the place that was looked up.
        case filling
        case flushing(Changes.Place)
        /// In LMDB's last commit, whose pages lend the bytes until the next one is read from.
        case committed(UnsafeRawBufferPointer)
        case nowhere
    }

    private final class LastRead {
        var key: [UInt8] = []
        /// Among the rows of the buffer that fills; void as soon as that changes.
        var place: Changes.Place?
        var found = Found.nowhere
    }

    package init(_ state: StateEnvironment) throws(StateError) {
        self.state = state
        do { base = try state.environment.beginRead() } catch { throw .store(error.code) }
        flusher = StateFlusher(state)
    }

    package borrowing func read<Result>(
        _ key: [UInt8], _ body: (RawSpan?) throws(StateError) -> Result
    ) throws(StateError) -> Result {
        let place = filling.place(of: key)
        let found = try find(key, place)
        (lastRead.key, lastRead.place, lastRead.found) = (key, place, found)
        return try lend(found, place, body)
    }

    private borrowing func find(_ key: [UInt8], _ place: Changes.Place) throws(StateError) -> Found {
        if place.isThere { return .filling }
        if isFlushing {
            let older = flushing.place(of: key)
            if older.isThere { return .flushing(older) }
        }
        do {
            guard let row = try base.get(key.span.bytes, in: state.database) else { return .nowhere }
            return .committed(unsafe row.withUnsafeBytes { $0 })
        } catch { throw StateError.store(error.code) }
    }

    private borrowing func lend<Result>(
        _ found: Found, _ place: Changes.Place, _ body: (RawSpan?) throws(StateError) -> Result
    ) throws(StateError) -> Result {
        switch found {
        case .filling:
            return try filling.withValue(at: place) { change throws(StateError) in try Self.lend(change, body) }
        case .flushing(let place):
            return try flushing.withValue(at: place) { change throws(StateError) in try Self.lend(change, body) }
        case .committed(let row): return try body(unsafe RawSpan(_unsafeBytes: row))
        case .nowhere: return try body(nil)
        }
    }

    @inline(__always)
    private static func lend<Result>(
        _ change: Change, _ body: (RawSpan?) throws(StateError) -> Result
    ) throws(StateError) -> Result {
        guard let row = change.row else { return try body(nil) }
        return try body(row.span.bytes)
    }

    package borrowing func scan(
        from key: [UInt8], _ visit: (RawSpan, RawSpan) throws(StateError) -> Bool
    ) throws(StateError) {
        var failure: StateError?
        do throws(LMDBError) {
            var cursor = try base.cursor(state.database)
            var isInBase = try cursor.seek(key.span.bytes)
            var newer = filling.position(from: key)
            var older = flushing.position(from: key)
            var (new, old) = (filling[newer], flushing[older])
            while true {
                // Of the two buffers' next rows, the one that comes first; of the same row, the newer.
                let isNewest = new.map { new in old.map { !$0.key.precedes(new.key) } ?? true } ?? false
                let change = isNewest ? new : old
                guard change != nil || isInBase else { break }
                let order = change.map { isInBase ? $0.key.order(to: cursor.key) : -1 } ?? 1
                if order > 0 {
                    do throws(StateError) { if try !visit(cursor.key, cursor.value) { break } } catch {
                        failure = error
                        break
                    }
                    isInBase = try cursor.next()
                    continue
                }
                guard let change else { break }
                if order == 0 { isInBase = try cursor.next() }
                if let next = old, next.key == change.key {
                    older = flushing.position(after: older)
                    old = flushing[older]
                }
                if isNewest {
                    newer = filling.position(after: newer)
                    new = filling[newer]
                }
                guard let row = change.value.row else { continue }
                do throws(StateError) { if try !visit(change.key.span.bytes, row.span.bytes) { break } } catch {
                    failure = error
                    break
                }
            }
        } catch {
            failure = .store(error.code)
        }
        if let failure { throw failure }
    }

    package mutating func put(
        _ key: [UInt8], byteCount: Int, weigh: (RawSpan) -> UInt128, fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(StateError) -> (old: UInt128?, new: UInt128) {
        let row = [UInt8](byteCount: byteCount, fill: fill)
        let new = weigh(row.span.bytes)
        return (try replace(key, Change(row: row), weigh), new)
    }

    @discardableResult
    package mutating func delete(_ key: [UInt8], weigh: (RawSpan) -> UInt128) throws(StateError) -> UInt128? {
        try replace(key, Change(row: nil), weigh)
    }

    /// Answers with the former row's weight, if there was one.
    private mutating func replace(
        _ key: [UInt8], _ change: Change, _ weigh: (RawSpan) -> UInt128
    ) throws(StateError) -> UInt128? {
        let known = lastRead.key == key ? lastRead.place : nil
        let place = known ?? filling.place(of: key)
        let found = known == nil ? try find(key, place) : lastRead.found
        let old = try lend(found, place) { row in
            guard let row else { return nil as UInt128? }
            return weigh(row)
        }
        filling.set(key, change, at: place)
        lastRead.place = nil
        return old
    }

    /// Hands everything so far to the flusher. Not while a flush is under way.
    package mutating func commit() throws(StateError) {
        precondition(!isFlushing, "a flush is under way")
        flushing = filling
        filling = Changes()
        lastRead.place = nil
        isFlushing = true
        flusher.begin(flushing)
    }

    /// Lets the store go without waiting for a flush that is under way. Nothing can be flushed after it.
    package func leave() { flusher.leave() }

    /// How long the flush took, if one is over; waits for it if asked to. What it wrote is durable then.
    mutating func endFlush(waiting: Bool) throws(StateError) -> Nanoseconds? {
        guard isFlushing, let duration = try flusher.end(waiting: waiting) else { return nil }
        lastRead.place = nil
        do { base = try state.environment.beginRead() } catch { throw .store(error.code) }
        flushing = Changes()
        isFlushing = false
        return duration
    }
}
