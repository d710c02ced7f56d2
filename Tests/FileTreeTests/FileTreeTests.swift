import NIOCore
import Raft
import Testing
import XXHash

@testable import FileTree

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
        for operation in [UInt8(0), 10, 255] {
            #expect(
                !isExecutable {
                    CommandHeader(.put).write(to: &$0)
                    $0.setInteger(operation, at: 6)
                })
        }
        #expect(!isExecutable(1) { OpenSession().write(to: &$0) })
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
