import NIOCore
import Raft
import Testing

@testable import FileTree

/// The value, or a failure of the test. (The macro of that kind can't read from a buffer, which changes it.)
private func required<Value>(_ value: Value?) throws -> Value { try #require(value) }

/// A tree in memory that applies commands one after the other.
private final class Tree {
    var tree: FileTree<MemoryStore>

    init() throws { tree = try FileTree(store: MemoryStore()) }

    func apply(_ encode: (inout ByteBuffer) -> Void) throws -> Outcome? {
        var command = ByteBuffer()
        encode(&command)
        CommandHeader.stamp(&command, at: 0, logTime: tree.applied.index, wallTime: 1_000)
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

    /// The answer without its result code; a code that is not success is thrown.
    func ask(_ query: Query) throws -> ByteBuffer {
        var body = ByteBuffer()
        query.write(to: &body)
        var answer = ByteBuffer()
        try tree.answer(body, into: &answer)
        let code = try required(answer.readInteger(as: UInt16.self))
        if code != 0 { throw try #require(TreeError(rawValue: code)) }
        return answer
    }
}

@Suite("The file tree")
struct FileTreeTests {
    @Test("a put makes the directories above it, and a get gives its bytes back")
    func putMakesParents() throws {
        let tree = try Tree()
        #expect(try tree.put("/a/b/c", "hello") == .done(revision: 1))
        #expect(try tree.get("/a/b/c") == "hello")
        #expect(try tree.names("/a") == ["b"])
        #expect(throws: TreeError.notFound) { try tree.get("/a/x") }
        #expect(throws: TreeError.isDirectory) { try tree.get("/a/b") }
        #expect(throws: TreeError.notDirectory) { try tree.get("/a/b/c/d") }
    }

    @Test("content over 1,024 bytes is stored once under its hash, and goes with its last file")
    func sharedChunks() throws {
        let tree = try Tree()
        let empty = tree.tree.applied.digest
        let long = String(repeating: "z", count: 1025)
        #expect(try tree.put("/one", long) == .done(revision: 1))
        #expect(try tree.put("/two", long) == .done(revision: 2))
        #expect(try tree.put("/one", long) == .done(revision: 3))
        let remove = { (path: String) in Delete(path: try TreePath(path)) }
        let (one, two) = (try remove("/one"), try remove("/two"))
        #expect(try tree.apply { one.write(to: &$0) } == .done(revision: 4))
        #expect(try tree.get("/two") == long)
        #expect(try tree.apply { two.write(to: &$0) } == .done(revision: 5))
        #expect(tree.tree.applied.digest == empty)
        #expect(tree.tree.applied.files == 0)
        #expect(tree.tree.applied.bytes == 0)
    }

    @Test("a condition that does not hold changes nothing and names the current revision")
    func conditions() throws {
        let tree = try Tree()
        #expect(try tree.put("/f", "1", if: .revision(7)) == .failed(.conditionFailed, revision: 0))
        #expect(try tree.put("/f", "1", if: .absent) == .done(revision: 2))
        #expect(try tree.put("/f", "2", if: .absent) == .failed(.conditionFailed, revision: 2))
        #expect(try tree.put("/f", "2", if: .revision(2)) == .done(revision: 4))
        #expect(try tree.get("/f") == "2")
    }

    @Test("a directory moves with all below it, and never into itself")
    func renameDirectory() throws {
        let tree = try Tree()
        _ = try tree.put("/a/b/f", "1")
        let into = Rename(source: try TreePath("/a"), destination: try TreePath("/a/b/c"))
        #expect(try tree.apply { into.write(to: &$0) } == .failed(.invalidMove, revision: 0))
        let move = Rename(source: try TreePath("/a"), destination: try TreePath("/z"))
        #expect(try tree.apply { move.write(to: &$0) } == .done(revision: 3))
        #expect(try tree.get("/z/b/f") == "1")
        #expect(throws: TreeError.notFound) { try tree.get("/a/b/f") }
    }

    @Test("a directory removed with all below it is gone at once and reclaimed in bounded steps")
    func recursiveDelete() throws {
        let tree = try Tree()
        let empty = tree.tree.applied.digest
        for number in 0..<50 { _ = try tree.put("/d/\(number % 5)/\(number)", "content") }
        let plain = Delete(path: try TreePath("/d"))
        #expect(try tree.apply { plain.write(to: &$0) } == .failed(.directoryNotEmpty, revision: 0))
        let whole = Delete(path: try TreePath("/d"), isRecursive: true)
        #expect(try tree.apply { whole.write(to: &$0) } == .done(revision: 52))
        #expect(try tree.names("/") == [])
        var steps = 0
        while tree.tree.applied.orphans > 0, steps < 100 {
            _ = try tree.apply { Reclaim(rowsMax: 3).write(to: &$0) }
            steps += 1
        }
        #expect(steps > 50 / 3)
        #expect(tree.tree.applied.files == 0)
        #expect(tree.tree.applied.digest == empty)
    }

    @Test("a listing is ordered by bytes and continues where its last page ended")
    func pagedListing() throws {
        let tree = try Tree()
        let composed = "\u{E9}"
        let decomposed = "e\u{301}"
        for name in ["b", "a", composed, decomposed, "B"] { _ = try tree.put("/d/" + name) }
        let names = try tree.names("/d")
        #expect(names.map { Array($0.utf8) } == ["B", "a", "b", decomposed, composed].map { Array($0.utf8) })
        #expect(try tree.names("/d", limit: 2) == ["B", "a"])
        #expect(try tree.names("/d", after: "a", limit: 1) == ["b"])
    }

    @Test("forbidden paths are refused", arguments: ["", "a", "/a/", "//", "/a//b", "/.", "/a/../b", "/a\0b"])
    func forbiddenPaths(path: String) {
        #expect(throws: TreeError.invalidPath) { try TreePath(path) }
    }

    @Test("names end at 255 bytes, paths at 4,096, and both are UTF-8")
    func pathLimits() throws {
        _ = try TreePath("/" + String(repeating: "n", count: 255))
        #expect(throws: TreeError.nameTooLong) { try TreePath("/" + String(repeating: "n", count: 256)) }
        #expect(throws: TreeError.invalidPath) { try TreePath(String(repeating: "/n", count: 2049)) }
        #expect(throws: TreeError.invalidPath) { try TreePath(bytes: [0x2F, 0xFF]) }
    }

    @Test("a command that can't be read is refused alike by everyone, an unknown version stops the member")
    func malformedCommands() throws {
        let tree = try Tree()
        let answer = try tree.apply { CommandHeader(.put).write(to: &$0) }
        #expect(answer == .failed(.malformed, revision: 0))
        var header = CommandHeader(.put)
        header.version = 2
        #expect(throws: StateError.unknownFormat) { _ = try tree.apply { header.write(to: &$0) } }
    }

    @Test("entries must come in order")
    func wrongIndex() throws {
        var tree = try FileTree(store: MemoryStore())
        var answer = ByteBuffer()
        #expect(throws: StateError.wrongIndex(expected: 1, got: 2)) {
            try tree.apply(index: 2, term: 1, kind: .noOperation, payload: ByteBuffer(), answer: &answer)
        }
    }

    @Test("the same commands leave the same digest", arguments: [1, 2, 3])
    func determinism(seed: UInt64) throws {
        let (first, second) = (try Tree(), try Tree())
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<500 {
            let path = "/\(UInt8.random(in: 0..<4, using: &generator))/\(UInt8.random(in: 0..<9, using: &generator))"
            let size = Int.random(in: 0..<2000, using: &generator)
            let content = String(repeating: "c", count: size)
            if Bool.random(using: &generator) {
                #expect(try first.put(path, content) == second.put(path, content))
            } else {
                let delete = Delete(path: try TreePath(path))
                #expect(try first.apply { delete.write(to: &$0) } == second.apply { delete.write(to: &$0) })
            }
        }
        #expect(first.tree.applied == second.tree.applied)
    }
}
