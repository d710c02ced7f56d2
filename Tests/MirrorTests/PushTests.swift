import BanyanClient
import FileTree
import Foundation
import Testing

@testable import Mirror

@Suite("Push")
struct PushTests {
    @Test("names that are equal to String and differ in bytes are two files, once and again")
    func equalNames() async throws {
        let (folder, tree) = (try Folder(), MemoryTree())
        let names = ["caf\u{E9}", "cafe\u{301}", "\u{301}x", "\u{200D}", "a\nb"]
        for name in names { folder.write(name, name) }
        folder.makeDirectory("d\u{E9}")
        folder.makeDirectory("de\u{301}")
        folder.write("d\u{E9}/\u{301}", "one")
        folder.write("de\u{301}/\u{301}", "other")
        let first = try await Mirror(tree).push(folder.bytes, to: .of("/u"))
        #expect(first.files == 7 && first.directories == 3 && first.failures.isEmpty)
        for name in names { #expect(tree.content("/u/\(name)") == name) }
        #expect(tree.content("/u/d\u{E9}/\u{301}") == "one" && tree.content("/u/de\u{301}/\u{301}") == "other")
        let second = try await Mirror(tree).push(folder.bytes, to: .of("/u"))
        #expect(second.files == 0 && second.unchanged == 7 && second.directories == 0)
        folder.write("cafe\u{301}", "changed")
        let third = try await Mirror(tree).push(folder.bytes, to: .of("/u"))
        #expect(third.files == 1 && tree.content("/u/caf\u{E9}") == "caf\u{E9}")
        let back = try Folder()
        #expect(try await Mirror(tree).pull(.of("/u"), to: back.bytes).files == 7)
        #expect(back.names().map { Array($0.utf8) } == folder.names().map { Array($0.utf8) })
    }

    @Test("what the tree can't hold is named, and all else is sent")
    func impossible() async throws {
        let (folder, tree) = (try Folder(), MemoryTree())
        folder.write([0x62, 0xFF], "no UTF-8")
        folder.write("good", "good")
        folder.link("link", to: "good")
        #expect(mkfifo("\(folder.path)/pipe", 0o600) == 0)
        let base = String(repeating: "/" + String(repeating: "x", count: 250), count: 16)
        folder.makeDirectory("deep")
        folder.makeDirectory("deep/" + String(repeating: "y", count: 100))
        folder.write("deep/\(String(repeating: "y", count: 100))/f", "far")
        let summary = try await Mirror(tree).push(folder.bytes, to: .of(base))
        #expect(tree.content(base + "/good") == "good")
        #expect(Set(summary.skipped.map(\.path)) == [folder.bytes("link"), folder.bytes("pipe")])
        #expect(summary.failures.count == 2)
        #expect(
            summary.failures.contains { $0.path == folder.bytes("") + [0x62, 0xFF] && $0.reason.contains("UTF-8") })
        #expect(summary.failures.contains { $0.reason.contains("4096 bytes") && $0.reason.contains("nothing below") })
    }

    @Test("times beyond 64 bits are the nearest that fit, and no reason to send again")
    func times() async throws {
        #expect(FileTime.nanoseconds(10_413_792_000, 0) == .max)
        #expect(FileTime.nanoseconds(-10_413_792_000, 0) == .min)
        #expect(FileTime.nanoseconds(-1, 999_999_999) == -1)
        #expect(FileTime.nanoseconds(.min, 0) == .min && FileTime.nanoseconds(.max, 999_999_999) == .max)
        for time in [Int64.min, .min + 1, -1_000_000_001, -1_000_000_000, -1, 0, 1, .max - 1, .max] {
            let there = FileTime.timespec(time)
            #expect((0..<1_000_000_000).contains(there.tv_nsec))
            #expect(FileTime.nanoseconds(there.tv_sec, there.tv_nsec) == time)
        }
        let (folder, tree) = (try Folder(), MemoryTree())
        folder.write("f", "f")
        folder.makeDirectory("d")
        for name in ["f", "d"] { folder.setTime(name, timespec(tv_sec: 10_413_792_000, tv_nsec: 0)) }
        #expect(try await Mirror(tree).push(folder.bytes, to: .of("/t")).files == 1)
        #expect(try await Mirror(tree).push(folder.bytes, to: .of("/t")).unchanged == 1)
    }

    @Test("permissions alone are sent, set-id bits of files never, and directories bring theirs")
    func modes() async throws {
        let (folder, tree) = (try Folder(), MemoryTree())
        folder.write("f", "f", mode: 0o600)
        folder.write("s", "s", mode: 0o4755)
        folder.makeDirectory("d", mode: 0o3775)
        chmod(folder.path, 0o700)
        _ = try await Mirror(tree).push(folder.bytes, to: .of("/m"))
        #expect(tree.info("/m")?.mode == 0o700 && tree.info("/m/d")?.mode == 0o3775)
        #expect(tree.info("/m/f")?.mode == 0o600 && tree.info("/m/s")?.mode == 0o755)
        chmod("\(folder.path)/f", 0o640)
        let again = try await Mirror(tree).push(folder.bytes, to: .of("/m"))
        #expect(again.files == 1 && again.unchanged == 1 && tree.info("/m/f")?.mode == 0o640)
        // This version can't set a directory's: that is said.
        chmod("\(folder.path)/d", 0o700)
        let kept = try await Mirror(tree).push(folder.bytes, to: .of("/m"))
        #expect(kept.remarks.map(\.path) == [Array("/m/d".utf8)] && kept.failures.isEmpty)
    }

    @Test("directories that are made above the target are as any new ones, whatever the target's mode")
    func parents() async throws {
        let (folder, tree) = (try Folder(), MemoryTree())
        folder.write("f", "f")
        #expect(chmod(folder.path, 0o700) == 0)
        let summary = try await Mirror(tree).push(folder.bytes, to: .of("/a/b/c"))
        #expect(summary.directories == 1 && summary.failures.isEmpty && tree.content("/a/b/c/f") == "f")
        #expect(try await tree.stat(.of("/a/b/c"), .linearizable).mode == 0o700)
        for above in ["/a", "/a/b"] { #expect(try await tree.stat(.of(above), .linearizable).mode == 0o755) }
    }

    @Test("what a file became between looking and opening is not followed, and what vanished is said to have")
    func swapped() async throws {
        let folder = try Folder()
        for name in ["a", "b", "c", "d"] { folder.write(name, name) }
        folder.makeDirectory("sub")
        folder.write("sub/e", "e")
        folder.write("secret.out", "secret")
        // All are listed by now.
        let tree = MemoryTree { _, call, path in
            guard call == "stat", path == "/t" else { return }
            for name in ["a", "b", "c"] { unlink("\(folder.path)/\(name)") }
            folder.link("a", to: "secret.out")
            #expect(mkfifo("\(folder.path)/b", 0o600) == 0)
            unlink("\(folder.path)/sub/e")
            rmdir("\(folder.path)/sub")
            folder.link("sub", to: "/")
        }
        let summary = try await Mirror(tree).push(folder.bytes, to: .of("/t"))
        #expect(tree.content("/t/d") == "d" && tree.content("/t/a") == nil && tree.content("/t/b") == nil)
        #expect(Set(summary.skipped.map(\.path)) == [folder.bytes("a"), folder.bytes("b")])
        #expect(Set(summary.vanished.map(\.path)) == [folder.bytes("c"), folder.bytes("sub/e")])
        #expect(summary.failures.isEmpty && summary.files == 2)
    }

    @Test("a directory of the cluster that is removed while it is listed is made again")
    func removedMeanwhile() async throws {
        let folder = try Folder()
        folder.makeDirectory("d")
        folder.makeDirectory("e")
        folder.write("d/f", "f")
        let tree = MemoryTree { tree, call, path in
            if call == "list", path == "/t/d" { tree.remove("/t/d") }
        }
        for path in ["/t", "/t/d", "/t/e"] { tree.setDirectory(path) }
        let summary = try await Mirror(tree).push(folder.bytes, to: .of("/t"))
        #expect(summary.failures.isEmpty && summary.stopped == nil)
        #expect(tree.content("/t/d/f") == "f" && summary.directories == 1)
    }

    @Test("a file in a directory's place and a directory in a file's are named once, and the rest goes on")
    func inTheWay() async throws {
        let (folder, tree) = (try Folder(), MemoryTree())
        folder.makeDirectory("d")
        folder.makeDirectory("d/below")
        folder.write("d/below/f", "f")
        folder.write("f", "")
        folder.write("z", "z")
        for path in ["/t", "/t/f"] { tree.setDirectory(path) }
        tree.set("/t/d", "file")
        let summary = try await Mirror(tree).push(folder.bytes, to: .of("/t"))
        #expect(Set(summary.failures.map(\.path)) == [Array("/t/d".utf8), folder.bytes("f")])
        #expect(tree.content("/t/z") == "z" && tree.content("/t/d") == "file")
    }

    @Test("a cluster that does nothing any more stops a push after one wait, and what it did is told")
    func stops() async throws {
        let folder = try Folder()
        for number in 0..<200 { folder.write("f\(number)", "x") }
        let tree = MemoryTree { tree, call, _ in
            if call == "put", tree.calls.count > 100 { throw BanyanError.noQuorum("nobody leads") }
        }
        let summary = try await Mirror(tree, patience: .milliseconds(300)).push(folder.bytes, to: .of("/t"))
        #expect(summary.stopped == .noQuorum("nobody leads") && summary.files > 50)
        // None was tried twice: nobody got an answer while it waited.
        #expect(tree.calls.count < 300)
    }

    @Test("temporary files are never sent")
    func temporaries() async throws {
        let (folder, tree) = (try Folder(), MemoryTree())
        let name = ".banyan-tmp-" + String(repeating: "0a", count: 16)
        folder.write(name, "half")
        folder.write(name + "0", "a file")
        let summary = try await Mirror(tree).push(folder.bytes, to: .of("/t"))
        #expect(summary.files == 1 && tree.content("/t/\(name)") == nil && tree.content("/t/\(name)0") == "a file")
    }
}
