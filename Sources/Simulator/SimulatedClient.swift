import FileTree
import Histories
import NIOCore

/// What a client of the simulation believes, and how it speaks.
struct SimulatedClient {
    /// Its request under way.
    var request: Int?
    /// The operation that it is about, in the history.
    var operation: Int?
    var tries = 0
    /// Its session, and whether it uses one at all.
    var session: UInt64?
    var usesSession = true
    /// Whether the request under way opens a session, for the operation that follows.
    var isOpening = false
    /// The sequence of the operation, and the next one's.
    var sequence: UInt64?
    var nextSequence: UInt64 = 1
    /// The write was sent before, and may have happened.
    var mayHaveHappened = false
    var isLease = false
    /// The member that it believes to lead.
    var leader: Int?
    /// What it last saw of each file.
    var known: [Int: (value: Int, revision: UInt64)] = [:]

    private static func path(_ file: Int) -> TreePath {
        do { return try TreePath("/files/\(file)") } catch { preconditionFailure("the simulation's paths are valid") }
    }

    static func query(_ operation: Operation) -> ByteBuffer {
        var query = ByteBuffer()
        Query.get(path(operation.file)).write(to: &query)
        return query
    }

    static func command(_ operation: Operation, known: (value: Int, revision: UInt64)?) -> ByteBuffer {
        var command = ByteBuffer()
        let path = path(operation.file)
        switch operation.kind {
        case .put(let value): Put(path: path, content: ByteBuffer(string: "\(value)")).write(to: &command)
        case .compareAndSet(_, let value):
            Put(path: path, content: ByteBuffer(string: "\(value)"), condition: .revision(known?.revision ?? 0))
                .write(to: &command)
        case .delete: Delete(path: path).write(to: &command)
        case .get: preconditionFailure("a get is a query")
        }
        return command
    }

    /// What an answer says of the operation, and of the file.
    static func outcome(
        of operation: Operation, _ answer: ByteBuffer
    ) -> (Operation.Outcome, known: (value: Int, revision: UInt64)?) {
        var answer = answer
        guard operation.kind != .get else {
            guard answer.readInteger(as: UInt16.self) == 0, let metadata = answer.readMetadata() else {
                return (.value(0), nil)
            }
            let value = Int(String(buffer: answer)) ?? -1
            return (.value(value), (value, metadata.revision))
        }
        guard case .done(let revision)? = Outcome(from: &answer) else { return (.refused, nil) }
        switch operation.kind {
        case .put(let value), .compareAndSet(_, let value): return (.done, (value, revision))
        case .delete, .get: return (.done, nil)
        }
    }
}
