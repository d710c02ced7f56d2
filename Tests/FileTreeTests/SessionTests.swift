import NIOCore
import Raft
import Testing

@testable import FileTree

@Suite("Sessions")
struct SessionTests {
    @Test("a repeated write gets the first answer, in whatever order the sequences arrive, and happens once")
    func repeated() throws {
        let tree = try Tree()
        #expect(try tree.apply { RaiseVersion(to: 2).write(to: &$0) } != nil)
        let session = try tree.openSession()
        // 3 comes before 2: a pipeline was redirected.
        let first = try tree.put("/a", "1", session: session, sequence: 1)
        let third = try tree.put("/c", "3", session: session, sequence: 3)
        let second = try tree.put("/b", "2", session: session, sequence: 2, if: .absent)
        #expect([first, third, second] == [3, 4, 5].map { .done(revision: $0) })
        let digest = tree.tree.applied.digest
        #expect(try tree.put("/b", "2", session: session, sequence: 2, if: .absent) == second)
        #expect(try tree.put("/a", "1", session: session, sequence: 1) == first)
        #expect(try tree.put("/c", "3", session: session, sequence: 3) == third)
        #expect(tree.tree.applied.digest == digest)
        // An answer is the first one even when the tree has moved on, and a failure is an answer too.
        _ = try tree.put("/b", "other")
        #expect(try tree.put("/b", "2", session: session, sequence: 2, if: .absent) == second)
        let failed = try tree.put("/b", "4", session: session, sequence: 4, if: .absent)
        #expect(failed == .failed(.conditionFailed, revision: 9))
        let delete = Delete(path: try TreePath("/b"))
        #expect(try tree.apply { delete.write(to: &$0) } != nil)
        #expect(try tree.put("/b", "4", session: session, sequence: 4, if: .absent) == failed)
    }

    @Test("what the client has an answer to is forgotten, and what does not fit is refused")
    func refused() throws {
        let tree = try Tree()
        _ = try tree.apply { RaiseVersion(to: 2).write(to: &$0) }
        let session = try tree.openSession()
        let before = tree.tree.applied.digest
        _ = try tree.put("/a", "1", session: session, sequence: 1)
        _ = try tree.put("/a", "2", session: session, sequence: 2, lowest: 2)
        #expect(try tree.put("/a", "1", session: session, sequence: 1) == .failed(.alreadyAnswered, revision: 0))
        // Two clients use one session.
        #expect(
            try tree.put("/a", "x", session: session, sequence: 2, lowest: 2) == .failed(.sequenceReused, revision: 0))
        #expect(
            try tree.put("/a", "x", session: session, sequence: 2 + 1024, lowest: 2)
                == .failed(.tooManyUnanswered, revision: 0))
        #expect(try tree.put("/a", "x", session: 999, sequence: 1) == .failed(.sessionEnded, revision: 0))
        _ = try tree.apply { CloseSession(session).write(to: &$0) }
        #expect(
            try tree.put("/a", "x", session: session, sequence: 3, lowest: 3) == .failed(.sessionEnded, revision: 0))
        #expect(try tree.get("/a") == "2")
        #expect(tree.tree.sessionCount == 0)
        let delete = Delete(path: try TreePath("/a"))
        _ = try tree.apply { delete.write(to: &$0) }
        let other = try Tree()
        _ = try other.apply { RaiseVersion(to: 2).write(to: &$0) }
        #expect(tree.tree.applied.digest == other.tree.applied.digest)
        #expect(before != other.tree.applied.digest)
    }

    @Test("sessions outlive a restart, end after an hour of log time, and are bounded in number")
    func bounded() throws {
        let tree = try Tree()
        _ = try tree.apply { RaiseVersion(to: 2).write(to: &$0) }
        let session = try tree.openSession()
        let first = try tree.put("/a", "1", session: session, sequence: 1)
        try tree.tree.commit()
        tree.tree = try FileTree(store: tree.tree.committed)
        #expect(try tree.put("/a", "1", session: session, sequence: 1) == first)
        for _ in 0..<FileTreeLimits.sessionsMax { _ = try tree.openSession() }
        #expect(tree.tree.sessionCount == FileTreeLimits.sessionsMax)
        // The oldest made room.
        #expect(try tree.put("/a", "2", session: session, sequence: 2) == .failed(.sessionEnded, revision: 0))
        var command = ByteBuffer()
        OpenSession().write(to: &command)
        CommandHeader.stamp(&command, at: 0, logTime: 100_000_000, wallTime: 0)
        var answer = ByteBuffer()
        try tree.tree.apply(
            index: tree.tree.applied.index + 1, term: 1, kind: .command, payload: command, answer: &answer)
        #expect(tree.tree.sessionCount == 1)
    }

    @Test("when there are too many sessions, one of whoever opened the most makes room, and none of another's")
    func sessionOwners() throws {
        let tree = try Tree()
        _ = try tree.apply { RaiseVersion(to: 4).write(to: &$0) }
        func open(_ host: UInt64, _ connection: UInt64) throws -> UInt64 {
            let owner = SessionOwner(host: host, connection: connection)
            guard case .done(let session)? = try tree.apply({ OpenSession(owner: owner).write(to: &$0) }) else {
                return 0
            }
            return session
        }
        func isOpen(_ session: UInt64) throws -> Bool {
            try tree.put("/s\(session)", "x", session: session, sequence: 1) != .failed(.sessionEnded, revision: 0)
        }
        let honest = try (1...40).map { try open($0, $0) }
        let greedy = try (41..<FileTreeLimits.sessionsMax).map { _ in try open(99, 7) }
        let other = try open(99, 8)
        #expect(tree.tree.sessionCount == FileTreeLimits.sessionsMax)
        let late = try open(50, 50)
        for session in try honest + [other, late, greedy[2], open(99, 7)] { #expect(try isOpen(session)) }
        #expect(try !isOpen(greedy[0]) && !isOpen(greedy[1]))
        #expect(tree.tree.sessionCount == FileTreeLimits.sessionsMax)
        // As long as nobody has more than another, the one that was idle the longest goes, as before.
        let even = try Tree()
        _ = try even.apply { RaiseVersion(to: 4).write(to: &$0) }
        for number in 1...UInt64(FileTreeLimits.sessionsMax + 1) {
            _ = try even.apply { OpenSession(owner: SessionOwner(host: number, connection: number)).write(to: &$0) }
        }
        #expect(try even.put("/first", "x", session: 2, sequence: 1) == .failed(.sessionEnded, revision: 0))
        #expect(try even.put("/second", "x", session: 3, sequence: 1) != .failed(.sessionEnded, revision: 0))
        // What is written says whose they are, and a tree that reads it goes on alike.
        try tree.tree.commit()
        let again = try Tree()
        again.tree = try FileTree(store: tree.tree.store)
        #expect(again.tree.sessionCount == FileTreeLimits.sessionsMax)
        let owner = SessionOwner(host: 1, connection: 1)
        for tree in [tree, again] { _ = try tree.apply { OpenSession(owner: owner).write(to: &$0) } }
        #expect(again.tree.applied == tree.tree.applied)
        // A client does not say whose a session is.
        var command = ByteBuffer()
        OpenSession(owner: owner).write(to: &command)
        #expect(CommandHeader.refusal(of: command, clusterVersion: 4) == .malformed)
        // A leader that missed the rise of the version can't say that a session's write was refused; of what no program here
        // knows, and of what no session answers for, it can.
        var write = ByteBuffer()
        Delete(path: try TreePath("/f")).write(to: &write)
        #expect(!CommandHeader.mayBeExecuted(write))
        CommandHeader.enroll(&write, session: 7, sequence: 1, lowestUnanswered: 1)
        #expect(CommandHeader.refusal(of: write, clusterVersion: 1) == .unsupported)
        #expect(CommandHeader.mayBeExecuted(write) && !CommandHeader.mayBeExecuted(write, knownVersion: 1))
        let wrong = try tree.apply {
            OpenSession(owner: owner).write(to: &$0)
            $0.writeInteger(UInt8(0))
        }
        #expect(wrong == .failed(.malformed, revision: 0))
    }

    @Test("from version 4 on a file keeps its permissions alone, and a directory's own bits stay")
    func modes() throws {
        let tree = try Tree()
        let put = Put(path: try TreePath("/f"), content: ByteBuffer(), mode: 0o17755)
        let make = { (path: String) in MakeDirectory(path: try TreePath(path), mode: 0o17775, makesParents: false) }
        func mode(_ path: String) throws -> UInt16? {
            var answer = try tree.ask(.stat(try TreePath(path)))
            return answer.readMetadata()?.mode
        }
        let before = try make("/before")
        _ = try tree.apply { put.write(to: &$0) }
        _ = try tree.apply { before.write(to: &$0) }
        #expect(try mode("/f") == 0o17755 && mode("/before") == 0o17775)
        _ = try tree.apply { RaiseVersion(to: 4).write(to: &$0) }
        // What is there is read as it is.
        #expect(try mode("/f") == 0o17755)
        let after = try make("/after")
        _ = try tree.apply { put.write(to: &$0) }
        _ = try tree.apply { after.write(to: &$0) }
        #expect(try mode("/f") == 0o755 && mode("/after") == 0o7775)
    }

    @Test("a cluster version is never taken back, and a program that does not know it stops")
    func versions() throws {
        let next = try Tree()
        _ = try next.apply { RaiseVersion(to: 2).write(to: &$0) }
        _ = try next.apply { RaiseVersion(to: 1).write(to: &$0) }
        #expect(next.tree.applied.clusterVersion == 2)
        let old = try Tree()
        old.tree = try FileTree(store: MemoryStore(), knownVersion: 1)
        #expect(throws: StateError.unknownFormat) { try old.apply { RaiseVersion(to: 2).write(to: &$0) } }
    }
}
