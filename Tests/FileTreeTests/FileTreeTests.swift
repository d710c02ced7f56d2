import NIOCore
import Raft
import Testing
import XXHash

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
        guard case .done(let session)? = try apply({ OpenSession.write(to: &$0) }) else { return 0 }
        return session
    }
}

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
        _ = try tree.apply { CloseSession.write(to: &$0, session: session) }
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
        OpenSession.write(to: &command)
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
            guard case .done(let session)? = try tree.apply({ OpenSession.write(to: &$0, owner: owner) }) else {
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
            _ = try even.apply { OpenSession.write(to: &$0, owner: SessionOwner(host: number, connection: number)) }
        }
        #expect(try even.put("/first", "x", session: 2, sequence: 1) == .failed(.sessionEnded, revision: 0))
        #expect(try even.put("/second", "x", session: 3, sequence: 1) != .failed(.sessionEnded, revision: 0))
        // What is written says whose they are, and a tree that reads it goes on alike.
        try tree.tree.commit()
        let again = try Tree()
        again.tree = try FileTree(store: tree.tree.store)
        #expect(again.tree.sessionCount == FileTreeLimits.sessionsMax)
        let owner = SessionOwner(host: 1, connection: 1)
        for tree in [tree, again] { _ = try tree.apply { OpenSession.write(to: &$0, owner: owner) } }
        #expect(again.tree.applied == tree.tree.applied)
        // A client does not say whose a session is.
        var command = ByteBuffer()
        OpenSession.write(to: &command, owner: owner)
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
            OpenSession.write(to: &$0, owner: owner)
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

@Suite("The file tree")
struct FileTreeTests {
    /// What the algorithm's own program prints (`xxhsum -H2`).
    @Test("the digest's hash is XXH3 with 128 bits")
    func xxh3() {
        let hash = { (text: String) in Array(text.utf8).withUnsafeBytes { XXH3.hash($0) } }
        #expect(hash("") == 0x99AA_06D3_0147_98D8_6001_C324_468D_497F)
        #expect(hash("banyan") == 0x4CBB_3AD4_2D46_1CAA_3A5A_42BD_64C8_C66B)
        #expect(hash(String(repeating: "z", count: 1000)) == 0x66A9_B2D5_8787_6CE7_CD3A_5747_00ED_DF41)
    }

    @Test("a row that was lost before the digest changed is missed after it too")
    func digestKeepsFaults() throws {
        let tree = try Tree()
        _ = try tree.put("/lost", "1")
        _ = try tree.put("/kept", "2")
        try tree.tree.store.delete(StateKey.entry(in: FileTreeLimits.rootInode, Array("lost".utf8)[...])) { _ in 0 }
        _ = try tree.apply { RaiseVersion(to: 3).write(to: &$0) }
        #expect(throws: StateError.wrongDigest) { try tree.audited() }
    }

    @Test("the digest goes by another hash from version 3 on: of what was there, and of what changes later")
    func digestByVersion() throws {
        let tree = try Tree()
        _ = try tree.apply { RaiseVersion(to: 2).write(to: &$0) }
        let session = try tree.openSession()
        _ = try tree.put("/a/short", "1", session: session, sequence: 1)
        _ = try tree.put("/a/long", String(repeating: "z", count: 2000))
        let delete = Delete(path: try TreePath("/a"), isRecursive: true)
        _ = try tree.apply { delete.write(to: &$0) }
        _ = try tree.put("/b/kept", "2", session: session, sequence: 2)
        #expect(try tree.audited() == tree.tree.applied.digest)
        let before = tree.tree.applied.digest
        _ = try tree.apply { RaiseVersion(to: 3).write(to: &$0) }
        #expect(tree.tree.applied.digest != before)
        #expect(try tree.audited() == tree.tree.applied.digest)
        // Rows of before go, change and stay.
        _ = try tree.put("/b/kept", "3", session: session, sequence: 3)
        _ = try tree.apply { Reclaim(rowsMax: 100).write(to: &$0) }
        #expect(try tree.audited() == tree.tree.applied.digest)
    }

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

    @Test("directories that are removed while others are reclaimed are reclaimed too, wherever they sort")
    func reclaimInAnyOrder() throws {
        let tree = try Tree()
        let empty = tree.tree.applied.digest
        // The oldest directory has the lowest number: it goes last, one by itself and one below a younger one.
        for path in ["/first", "/second", "/third/child"] {
            for number in 0..<4 { _ = try tree.put("\(path)/\(number)") }
        }
        let move = Rename(source: try TreePath("/second"), destination: try TreePath("/third/zzz"))
        _ = try tree.apply { move.write(to: &$0) }
        for path in ["/third", "/first"] {
            let delete = Delete(path: try TreePath(path), isRecursive: true)
            _ = try tree.apply { delete.write(to: &$0) }
            for _ in 0..<3 { _ = try tree.apply { Reclaim(rowsMax: 1).write(to: &$0) } }
        }
        for _ in 0..<20 { _ = try tree.apply { Reclaim(rowsMax: 1).write(to: &$0) } }
        #expect(tree.tree.applied.orphans == 0)
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

    @Test("whatever changed since it was asked before, a listing says what is there", arguments: 1...4)
    func listingsAfterChanges(seed: UInt64) throws {
        let tree = try Tree()
        let other = try Tree()
        var generator = SeededGenerator(seed: seed)
        var kept = 0
        for _ in 0..<300 {
            let directory = { "/\(UInt8.random(in: 0..<3, using: &generator))" }
            let path = { directory() + "/\(UInt8.random(in: 0..<4, using: &generator))" }
            switch UInt8.random(in: 0..<8, using: &generator) {
            case 0:
                let rename = Rename(source: try TreePath(directory()), destination: try TreePath(directory()))
                _ = try tree.apply { rename.write(to: &$0) }
            case 1:
                let rename = Rename(source: try TreePath(path()), destination: try TreePath(path()))
                _ = try tree.apply { rename.write(to: &$0) }
            case 2:
                let delete = Delete(path: try TreePath(directory()), isRecursive: true)
                _ = try tree.apply { delete.write(to: &$0) }
            case 3:
                let delete = Delete(path: try TreePath(path()))
                _ = try tree.apply { delete.write(to: &$0) }
            case 4: _ = try tree.apply { Reclaim().write(to: &$0) }
            default: _ = try tree.put(path(), String(repeating: "c", count: .random(in: 0..<2000, using: &generator)))
            }
            try tree.tree.commit()
            // One that has not listed anything yet.
            other.tree = try FileTree(store: tree.tree.committed)
            for listed in ["/", "/0", "/1", "/2"] {
                let limit: UInt32 = Bool.random(using: &generator) ? 100 : 2
                let query = Query.list(try TreePath(listed), after: [], limit: limit)
                #expect(try tree.answer(query) == other.answer(query))
                if listed == "/", tree.tree.listings.page(of: FileTreeLimits.rootInode, limit: limit) != nil {
                    kept += 1
                }
            }
        }
        #expect(kept == 300)
    }

    @Test("pages of listings are kept up to a bound, for what they answer")
    func listingsBounded() {
        let listings = ListingCache()
        let page = ByteBuffer(repeating: 1, count: 60 << 10).readableBytesView
        for directory: UInt64 in 0..<100 {
            for _ in 0..<2 { listings.remember(page, of: directory, limit: 9, whole: nil) }
            #expect(listings.page(of: directory, limit: 9) == ByteBuffer(page))
            #expect(listings.bytes <= ListingCache.bytesMax)
        }
        #expect((0..<100).count { listings.page(of: $0, limit: 9) != nil } <= ListingCache.bytesMax / page.count)
        #expect(listings.page(of: 99, limit: 8) == nil && listings.page(of: 99, limit: 10) == nil)
        listings.remember(page, of: 99, limit: 9, whole: 7)
        #expect(listings.page(of: 99, limit: 6) == nil && listings.page(of: 99, limit: 7) != nil)
        #expect(listings.page(of: 99, limit: 1000) != nil)
        listings.forget(99)
        #expect(listings.page(of: 99, limit: 9) == nil)
        let large = ByteBuffer(repeating: 1, count: 65 << 10).readableBytesView
        listings.remember(large, of: 99, limit: 9, whole: nil)
        #expect(listings.page(of: 99, limit: 9) == nil)
        for directory: UInt64 in 0..<10_000 {
            listings.remember(page.prefix(5), of: directory, limit: 9, whole: 0)
        }
        #expect((0..<10_000).count { listings.page(of: $0, limit: 9) != nil } <= ListingCache.countMax)
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

    @Test("a new cluster's revisions begin beyond all that any before it could have given out")
    func firstRevisions() throws {
        let second: Int64 = 1_000_000_000
        let now: Int64 = 1_795_000_000 * second
        func base(_ last: UInt64, _ time: Int64, _ random: UInt64 = 0) throws -> UInt64 {
            try #require(FirstRevision.base(after: last, wallTime: time, random: random)).index
        }
        let first = try base(100, now)
        #expect(first == (1_795_000_000 - 1_577_836_800) << 20)
        // The same backup again, a millisecond and a second later, and one of the cluster that began with it.
        #expect(try base(100, now + second / 1000) >= first + 1000)
        #expect(try base(100, now + second) == first + FirstRevision.perSecond)
        #expect(try base(first + 500_000, now + second) > first + 500_000)
        // A clock that stands behind, or before its time, leads beyond the last that is known, by chance elsewhere each time.
        for time in [now - second, 0, -second] {
            let behind = try #require(FirstRevision.base(after: first + 7, wallTime: time, random: 12))
            #expect(behind.isClockBehind && behind.index == first + 7 + 12 + 1 << 40)
        }
        #expect(try base(first, 0, 5) != base(first, 0, 6))
        // Floating-point numbers hold them all, for centuries.
        let year2200 = try base(0, 7_258_118_400 * second)
        #expect(year2200 < 1 << 53 - 1 << 50)
        #expect(FirstRevision.base(after: 0, wallTime: .max, random: 0) == nil)
        #expect(FirstRevision.base(after: 1 << 53, wallTime: now, random: 0) == nil)
        #expect(FirstRevision.base(after: .max, wallTime: 0, random: .max) == nil)
    }

    @Test("what a rename took out of reach comes back by a rename above, or goes with all that is above")
    func longPaths() throws {
        let tree = try Tree()
        let name = String(repeating: "x", count: 250)
        let deep = String(repeating: "/\(name)", count: 16)
        _ = try tree.put("/w\(deep)", "deep")
        let away = Rename(source: try TreePath("/w"), destination: try TreePath("/\(name)"))
        _ = try tree.apply { away.write(to: &$0) }
        #expect(throws: TreeError.invalidPath) { try TreePath("/\(name)\(deep)") }
        #expect(try tree.names(String(("/\(name)" + deep).dropLast(251))) == [name])
        let back = Rename(source: try TreePath("/\(name)/\(name)"), destination: try TreePath("/y"))
        _ = try tree.apply { back.write(to: &$0) }
        #expect(try tree.get("/y" + deep.dropFirst(251)) == "deep")
        let rest = Delete(path: try TreePath("/y"), isRecursive: true)
        _ = try tree.apply { rest.write(to: &$0) }
        for _ in 0..<40 { _ = try tree.apply { Reclaim().write(to: &$0) } }
        #expect(tree.tree.applied.files == 0 && tree.tree.applied.orphans == 0)
    }

    @Test("a path may be written with one slash behind it, which says that it is a directory's")
    func writtenPaths() throws {
        for (text, path, isDirectory) in [
            ("/a", "/a", false), ("/a/b/", "/a/b", true), ("/a/", "/a", true), ("/", "/", true),
        ] {
            let written = try TreePath.written(Array(text.utf8))
            #expect(written.path.description == path && written.isDirectory == isDirectory, "\(text)")
        }
        for text in ["", "//", "/a//", "a/", "/./", "/../", "/a/.", "///"] {
            #expect(throws: TreeError.invalidPath, "\(text)") { try TreePath.written(Array(text.utf8)) }
        }
    }

    @Test("what a program can't execute is known before it is met")
    func executable() throws {
        func isExecutable(_ known: UInt16 = Applied.clusterVersionMax, _ write: (inout ByteBuffer) -> Void) -> Bool {
            var buffer = ByteBuffer(string: "head")
            write(&buffer)
            return CommandHeader.isExecutable(buffer, at: 4, count: buffer.readableBytes - 4, knownVersion: known)
        }
        let put = Put(path: try TreePath("/a"), content: ByteBuffer(string: "x"))
        #expect(isExecutable { put.write(to: &$0) })
        // Its fields are wrong: all members answer that alike.
        #expect(isExecutable { CommandHeader(.put).write(to: &$0) })
        #expect(!isExecutable { $0.writeBytes([UInt8](repeating: 0, count: CommandHeader.byteCount)) })
        #expect(!isExecutable { $0.writeInteger(UInt16(1)) })
        for operation in [UInt8(0), 9, 255] {
            #expect(
                !isExecutable {
                    CommandHeader(.put).write(to: &$0)
                    $0.setInteger(operation, at: 6)
                })
        }
        #expect(!isExecutable(1) { OpenSession.write(to: &$0) })
        #expect(isExecutable(3) { RaiseVersion(to: 3).write(to: &$0) })
        #expect(!isExecutable(3) { RaiseVersion(to: 4).write(to: &$0) })
        #expect(
            !isExecutable {
                CommandHeader(.put).write(to: &$0)
                $0.writeBytes([UInt8](repeating: 0, count: FileTreeLimits.commandBytesMax))
            })
    }

    @Test("a command that can't be read is refused alike by everyone, an unknown version stops the member")
    func malformedCommands() throws {
        let tree = try Tree()
        let answer = try tree.apply { CommandHeader(.put).write(to: &$0) }
        #expect(answer == .failed(.malformed, revision: 0))
        var header = CommandHeader(.put)
        header.version = 2
        #expect(try tree.apply { header.write(to: &$0) } == .failed(.unsupported, revision: 0))
        header.version = Applied.clusterVersionMax + 1
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
