import NIOCore
import Raft

/// The tree in an LMDB environment of its own: what a member's state thread owns.
///
/// Not `Sendable`: it must be made, used and let go on one thread, as LMDB demands of a write transaction.
package final class DurableTree {
    package let environment: StateEnvironment
    private var tree: FileTree<LMDBStore>
    /// What the last commit made durable.
    package private(set) var durable: Applied
    /// Commands executed since the last commit, and their bytes.
    package private(set) var uncommittedCommands = 0
    package private(set) var uncommittedBytes = 0

    /// Opens, or creates, the state in the existing directory `path`.
    ///
    /// - Parameter knownVersion: the highest cluster version whose commands are executed.
    package init(path: String, knownVersion: UInt16 = Applied.clusterVersionMax) throws(StateError) {
        environment = try StateEnvironment(path: path)
        tree = try FileTree(store: LMDBStore(environment), knownVersion: knownVersion)
        durable = tree.applied
    }

    package var applied: Applied { tree.applied }

    package func configuration() throws(StateError) -> [UInt8]? { try tree.configuration() }

    package func apply(
        index: Index, term: Term, kind: EntryKind, payload: ByteBuffer, answer: inout ByteBuffer
    ) throws(StateError) {
        try tree.apply(index: index, term: term, kind: kind, payload: payload, answer: &answer)
        uncommittedCommands += 1
        uncommittedBytes += payload.readableBytes
    }

    package func answer(_ query: ByteBuffer, into answer: inout ByteBuffer) throws(StateError) {
        try tree.answer(query, into: &answer)
    }

    package func commit() throws(StateError) {
        try tree.commit()
        durable = tree.applied
        uncommittedCommands = 0
        uncommittedBytes = 0
    }
}
