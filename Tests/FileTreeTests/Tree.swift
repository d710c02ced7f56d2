import NIOCore
import Raft
import Testing

@testable import FileTree

/// The value, or a failure of the test. (The macro of that kind can't read from a buffer, which changes it.)
func required<Value>(_ value: Value?) throws -> Value { try #require(value) }

/// A tree in memory that applies commands one after the other.
final class Tree {
    var tree: FileTree<MemoryStore>

    init() throws { tree = try FileTree(store: MemoryStore()) }

    /// - Parameter logTime: as the leader says; nil: the index of the last command.
    func apply(at logTime: UInt64? = nil, _ encode: (inout ByteBuffer) -> Void) throws -> Outcome? {
        var command = ByteBuffer()
        encode(&command)
        CommandHeader.stamp(&command, at: 0, logTime: logTime ?? tree.applied.index, wallTime: 1_000)
        var answer = ByteBuffer()
        try tree.apply(
            index: tree.applied.index + 1, term: 1, kind: .command, payload: command, answer: &answer)
        return Outcome(from: &answer)
    }

    func put(_ path: String, _ content: String = "x", if condition: Condition = .always) throws -> Outcome? {
        let put = Put(path: try TreePath(path), content: ByteBuffer(string: content), condition: condition)
        return try apply { put.write(to: &$0) }
    }

    func get(_ path: String) throws -> String {
        var answer = try ask(.get(TreePath(path)))
        _ = answer.readMetadata()
        return String(buffer: answer)
    }

    func names(_ path: String, after: String = "", limit: UInt32 = 100) throws -> [String] {
        var answer = try ask(.list(TreePath(path), after: Array(after.utf8), limit: limit))
        let (_, count) = try required(answer.readMultipleIntegers(as: (UInt8, UInt32).self))
        return try (0..<count).map { _ in
            let length = try required(answer.readInteger(as: UInt8.self))
            let name = try required(answer.readString(length: Int(length)))
            _ = try required(answer.readMetadata())
            return name
        }
    }

    func answer(_ query: Query) throws -> ByteBuffer {
        var body = ByteBuffer()
        query.write(to: &body)
        var answer = ByteBuffer()
        try tree.answer(body, into: &answer)
        return answer
    }

    /// The answer without its result code; a code that is not success is thrown.
    func ask(_ query: Query) throws -> ByteBuffer {
        var answer = try answer(query)
        let code = try required(answer.readInteger(as: UInt16.self))
        if code != 0 { throw try #require(TreeError(rawValue: code)) }
        return answer
    }
}

extension Tree {
    /// The digest that the rows of a commit have.
    func audited() throws -> StateDigest {
        try tree.commit()
        var audit = StateAudit()
        try tree.committed.scan(from: []) { key, row throws(StateError) in
            try audit.add(key: key, row: row)
            return true
        }
        return try audit.finish().digest
    }

    /// A put of a session's.
    func put(
        _ path: String, _ content: String, session: UInt64, sequence: UInt64, lowest: UInt64 = 1,
        if condition: Condition = .always
    ) throws -> Outcome? {
        let put = Put(path: try TreePath(path), content: ByteBuffer(string: content), condition: condition)
        return try apply { buffer in
            put.write(to: &buffer)
            CommandHeader.enroll(&buffer, session: session, sequence: sequence, lowestUnanswered: lowest)
        }
    }

    func openSession() throws -> UInt64 {
        guard case .done(let session)? = try apply({ OpenSession().write(to: &$0) }) else { return 0 }
        return session
    }
}
