import NIOCore
import Testing

@testable import FileTree

@Suite("Writes of no session that take effect once")
struct OneTimeWriteTests {
    private static let minute: UInt64 = 60_000

    private static func put(
        _ tree: Tree, _ path: String, _ content: String, id: UInt128, until: UInt64, at logTime: UInt64 = 100,
        if condition: Condition = .always
    ) throws -> Outcome? {
        let put = Put(path: try TreePath(path), content: ByteBuffer(string: content), condition: condition)
        return try tree.apply(at: logTime) { buffer in
            put.write(to: &buffer)
            CommandHeader.enrollOnce(&buffer, id: id, until: until)
        }
    }

    private static func tree() throws -> Tree {
        let tree = try Tree()
        _ = try tree.apply { RaiseVersion(to: 5).write(to: &$0) }
        return tree
    }

    @Test(
        "a copy gets the first answer, whatever came in between, and changes nothing; another write needs another name")
    func copies() throws {
        let tree = try Self.tree()
        let first = try Self.put(tree, "/a", "1", id: 7, until: 5000, if: .absent)
        guard case .done? = first else {
            Issue.record("it was not done")
            return
        }
        _ = try Self.put(tree, "/a", "2", id: 8, until: 5000)
        let digest = tree.tree.applied.digest
        #expect(try Self.put(tree, "/a", "1", id: 7, until: 5000, if: .absent) == first)
        // Another leader reckons by another clock.
        #expect(try Self.put(tree, "/a", "1", id: 7, until: 9000, if: .absent) == first)
        #expect(try Self.put(tree, "/a", "x", id: 7, until: 5000) == .failed(.sequenceReused, revision: 0))
        #expect(tree.tree.applied.digest == digest && tree.tree.oneTimeWriteCount == 2)
        // A failure is an answer as well.
        let failed = try Self.put(tree, "/a", "3", id: 9, until: 5000, if: .absent)
        let path = try TreePath("/a")
        _ = try tree.apply { Delete(path: path).write(to: &$0) }
        #expect(try Self.put(tree, "/a", "3", id: 9, until: 5000, if: .absent) == failed)
    }

    @Test("from its end on any copy is refused, the answer is forgotten, and no end lies far away")
    func ends() throws {
        let tree = try Self.tree()
        _ = try Self.put(tree, "/a", "1", id: 7, until: Self.minute, at: 1)
        #expect(try Self.put(tree, "/a", "1", id: 7, until: Self.minute, at: Self.minute) != nil)
        #expect(tree.tree.oneTimeWriteCount == 1)
        let late = Outcome.failed(.sessionEnded, revision: 0)
        #expect(try Self.put(tree, "/a", "1", id: 7, until: Self.minute, at: Self.minute + 1) == late)
        #expect(tree.tree.oneTimeWriteCount == 0)
        // Log time never goes back, whatever a command says.
        #expect(try Self.put(tree, "/a", "1", id: 7, until: Self.minute, at: 1) == late)
        let far = Self.minute + 2 + FileTreeLimits.oneTimeMillisecondsMax
        #expect(
            try Self.put(tree, "/a", "1", id: 7, until: far, at: Self.minute + 1) == .failed(.malformed, revision: 0))
        guard case .done? = try Self.put(tree, "/a", "1", id: 7, until: far - 1, at: Self.minute + 1) else {
            Issue.record("it was not done")
            return
        }
    }

    @Test("answers are kept in the rows, which the digest covers, and other commands have no such name")
    func rows() throws {
        let tree = try Self.tree()
        for number in 1...20 as ClosedRange<UInt128> {
            _ = try Self.put(tree, "/\(number)", "x", id: number << 70 | number, until: UInt64(2000 - number))
        }
        let first = try Self.put(tree, "/1", "x", id: 1 << 70 | 1, until: 1999)
        #expect(try tree.audited() == tree.tree.applied.digest)
        let again = try FileTree(store: tree.tree.committed)
        #expect(again.oneTimeWriteCount == 20)
        _ = try Self.put(tree, "/b", "1", id: 99, until: 3000, at: 1990)
        #expect(tree.tree.oneTimeWriteCount == 20 - 10 + 1)
        #expect(try tree.audited() == tree.tree.applied.digest)
        #expect(try Self.put(tree, "/1", "x", id: 1 << 70 | 1, until: 1999, at: 1990) == first)
        let misuse: [(inout ByteBuffer) -> Void] = [
            { OpenSession().write(to: &$0) }, { CloseSession(7).write(to: &$0) }, { Reclaim().write(to: &$0) },
        ]
        for write in misuse {
            let outcome = try tree.apply {
                write(&$0)
                CommandHeader.enrollOnce(&$0, id: 5, until: 3000)
            }
            #expect(outcome == .failed(.malformed, revision: 0))
        }
        let early = try Tree()
        #expect(try Self.put(early, "/a", "1", id: 7, until: 3000) == .failed(.unsupported, revision: 0))
    }

    @Test("there is room for so many, and none makes room for another")
    func bound() throws {
        var table = try OneTimeWrites(rowsOf: MemoryStore())
        var digest = StateDigest()
        let answer = OneTimeWrites.Answer(fingerprint: 1, outcome: .done(revision: 1))
        for number in 1...UInt128(FileTreeLimits.oneTimeWritesMax) {
            table.keep(answer, of: .init(until: 100, id: number), digest: &digest)
        }
        let next = OneTimeWrites.Name(until: 200, id: 0)
        guard case .refused(.tooManyUnanswered) = table.admit(next, 1, logTime: 100) else {
            Issue.record("one too many was let in")
            return
        }
        // Those that were there are answered still.
        guard case .answered = table.admit(.init(until: 100, id: 5), 1, logTime: 100) else {
            Issue.record("an answer made room")
            return
        }
        table.forget(logTime: 101, digest: &digest)
        guard case .execute = table.admit(next, 1, logTime: 101) else {
            Issue.record("what has ended keeps its room")
            return
        }
    }
}
