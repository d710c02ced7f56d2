import LMDB
import NIOCore
import Raft

/// The tree in an LMDB environment of its own: what a member's state thread owns.
///
/// Not `Sendable`: it must be made, used and let go on one thread, as LMDB demands of a write transaction.
package final class DurableTree {
    /// The addresses set aside for a state; its file is sparse and grows with use.
    package static let mapBytes = 1 << 40

    package let environment: Environment
    private var tree: FileTree<LMDBStore>
    /// What the last commit made durable.
    package private(set) var durable: Applied
    /// Commands executed since the last commit, and their bytes.
    package private(set) var uncommittedCommands = 0
    package private(set) var uncommittedBytes = 0

    package init(environment: Environment) throws(StateError) {
        self.environment = environment
        do { tree = try FileTree(store: LMDBStore(environment: environment)) } catch let error as StateError {
            throw error
        } catch let error as LMDBError {
            throw .store(error.code)
        } catch {
            preconditionFailure("opening a tree throws two types of error alone")
        }
        durable = tree.applied
    }

    package static func openEnvironment(path: String) throws(StateError) -> Environment {
        do { return try Environment(path: path, mapSize: mapBytes, databases: 4) } catch {
            throw .store(error.code)
        }
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
