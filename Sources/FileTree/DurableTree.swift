import NIOCore
import Raft

/// The tree in an LMDB environment of its own: what a member's state thread owns.
///
/// Commands are executed in memory; a second thread makes them durable, many at a time. `keepUp` bounds what waits for
/// it, in commands, in rows and in bytes.
package final class DurableTree {
    /// What is executed and not yet on its way to the disk goes there when it is so much, or so old, or when it is the
    /// member's turn.
    package static let flushCommands = 16_384
    /// One command may change many: reclaiming does.
    static let flushRows = 32_768
    package static let flushBytes = 8 << 20
    static let flushAgeMax: Nanoseconds = 1_000_000_000
    /// While a flush is under way, commands are executed up to this many times those bounds.
    private static let fullness = 2.0
    /// A flush of less is not worth its commit.
    private static let turnLoadMin = 1.0 / 8

    package let environment: StateEnvironment
    private var tree: FileTree<OverlayStore>
    /// What is durable.
    package private(set) var durable: Applied
    /// What will be when the last flush that began is over, and the load that it took up.
    private var flushing: (applied: Applied, load: Double)
    /// How long the last flush took, or would have taken for a full load, in nanoseconds.
    private var timePerLoad = 0.0
    /// Of the load, what has been rested for.
    private var paidLoad = 0.0
    /// Commands executed that no flush has taken up, and their bytes.
    private var commands = 0
    private var bytes = 0
    private let phase: Index
    /// When the first of them was executed, as far as `keepUp` was told.
    private var since: Nanoseconds?

    /// Answers that are kept to writes of no session.
    package var oneTimeWriteCount: Int { tree.oneTimeWriteCount }

    /// Opens, or creates, the state in the existing directory `path`.
    ///
    /// - Parameters:
    ///   - knownVersion: the highest cluster version whose commands are executed.
    ///   - member: whose tree it is. The members of a cluster execute the same commands, and begin to flush at different ones
    ///     of them: else they would all burden their disks at once.
    package convenience init(
        path: String, knownVersion: UInt16 = Applied.clusterVersionMax, member: UInt64 = 0
    ) throws(StateError) {
        try self.init(StateEnvironment(path: path), knownVersion: knownVersion, member: member)
    }

    /// Begins with what was committed last.
    package init(_ environment: StateEnvironment, knownVersion: UInt16, member: UInt64) throws(StateError) {
        self.environment = environment
        tree = try FileTree(store: OverlayStore(environment), knownVersion: knownVersion)
        durable = tree.applied
        flushing = (tree.applied, 0)
        // By the golden section, which spreads members whose ids stand in a row.
        phase = UInt64(0.618 * Double(Self.flushCommands)) &* member % UInt64(Self.flushCommands)
    }

    /// The number of the member's turn that the index belongs to: at each new one a flush is due.
    private func turn(of index: Index) -> UInt64 { (index + phase) / UInt64(Self.flushCommands) }

    package var applied: Applied { tree.applied }

    package func configuration() throws(StateError) -> [UInt8]? { try tree.configuration() }

    package func apply(
        index: Index, term: Term, kind: EntryKind, payload: ByteBuffer, answer: inout ByteBuffer
    ) throws(StateError) {
        try tree.apply(index: index, term: term, kind: kind, payload: payload, answer: &answer)
        commands += 1
        bytes += payload.readableBytes
    }

    package func answer(_ query: ByteBuffer, into answer: inout ByteBuffer) throws(StateError) {
        try tree.answer(query, into: &answer)
    }

    /// How much of what may be executed before the next flush begins was: 1 when it is due at the latest.
    private var load: Double {
        max(
            Double(commands) / Double(Self.flushCommands), Double(tree.store.changedRows) / Double(Self.flushRows),
            Double(bytes) / Double(Self.flushBytes))
    }

    /// Begins a flush when one is due, and takes note of the end of one. To be called often.
    ///
    /// - Returns: how long to rest for what was executed since the last call, in nanoseconds. When the disk is slower than
    ///   the commands, they come in as it takes them: each waits a little, and none for a whole flush.
    package func keepUp(now: Nanoseconds) throws(StateError) -> Nanoseconds {
        if commands > 0, since == nil { since = now }
        let load = load
        let isTurn = turn(of: applied.index) > turn(of: flushing.applied.index) && load >= Self.turnLoadMin
        let isDue = load >= 1 || isTurn || since.map { now - $0 >= Self.flushAgeMax } ?? false
        try endFlush(waiting: load >= Self.fullness)
        if tree.store.isFlushing {
            let unpaid = load - max(paidLoad, 0.5)
            guard unpaid > 0 else { return 0 }
            paidLoad = load
            return Nanoseconds(unpaid * timePerLoad)
        }
        if isDue { try beginFlush() }
        return 0
    }

    private func beginFlush() throws(StateError) {
        // The rows count until they are handed over.
        let load = load
        try tree.commit()
        flushing = (tree.applied, load)
        (commands, bytes, since, paidLoad) = (0, 0, nil, 0)
    }

    private func endFlush(waiting: Bool) throws(StateError) {
        guard let duration = try tree.store.endFlush(waiting: waiting) else { return }
        // A flush of little takes what the disk takes for any: that says nothing of a full one.
        timePerLoad = Double(duration) / max(1, flushing.load)
        durable = flushing.applied
    }

    /// Lets the tree go without waiting for its disk, for one that will never be opened again in this process.
    package func leave() { tree.store.leave() }

    /// Makes everything so far durable, and waits until it is.
    package func commit() throws(StateError) {
        try endFlush(waiting: true)
        try beginFlush()
        try endFlush(waiting: true)
    }
}
