import BanyanClient
import FileTree
import Foundation
import Testing

@testable import Mirror

@Suite("Pull")
struct PullTests {
    @Test("below the target nothing is followed, and nothing opened that is no file: it is replaced or named")
    func inTheWay() async throws {
        let (folder, tree) = (try Folder(), MemoryTree())
        tree.setDirectory("/t")
        for name in ["dir", "dirpipe", "blocked", "blocked/sub"] { tree.setDirectory("/t/\(name)") }
        for name in ["dir/f", "dirpipe/f", "blocked/f", "blocked/sub/f", "link", "dangling", "pipe", "isdir", "z"] {
            tree.set("/t/\(name)", "new")
        }
        folder.makeDirectory("outside")
        folder.write("outside/f", "mine")
        folder.write("victim", "mine")
        folder.makeDirectory("out")
        folder.link("out/dir", to: "../outside")
        folder.link("out/link", to: "../victim")
        folder.link("out/dangling", to: "../none")
        #expect(mkfifo("\(folder.path)/out/pipe", 0o600) == 0 && mkfifo("\(folder.path)/out/dirpipe", 0o600) == 0)
        folder.write("out/blocked", "a file")
        folder.makeDirectory("out/isdir")
        // The target itself may be a link.
        folder.link("target", to: "out")
        let summary = try await Mirror(tree).pull(.of("/t"), to: folder.bytes("target"))
        #expect(folder.content("victim") == "mine" && folder.content("outside/f") == "mine")
        #expect(folder.names("outside") == ["f"] && folder.content("none") == nil)
        for name in ["dir/f", "dirpipe/f", "link", "dangling", "pipe", "z"] {
            #expect(folder.content("out/\(name)") == "new", "\(name)")
            #expect(folder.status("out/\(name)")?.kind == .file, "\(name)")
        }
        #expect(folder.status("out/dir")?.kind == .directory && folder.content("out/blocked") == "a file")
        #expect(
            Set(summary.failures.map(\.path)) == [folder.bytes("target/blocked"), folder.bytes("target/isdir")],
            "\(summary.failures)")
        #expect(summary.files == 6)
        let again = try await Mirror(tree).pull(.of("/t"), to: folder.bytes("target"))
        #expect(again.files == 0 && again.unchanged == 6 && again.directories == 0 && again.failures.count == 2)
    }

    @Test("modes are the tree's without the umask's bits, and a second pull has nothing to do")
    func modes() async throws {
        let (folder, tree) = (try Folder(), MemoryTree())
        tree.setDirectory("/t", mode: 0o750)
        tree.setDirectory("/t/shut", mode: 0o555)
        tree.setDirectory("/t/sticky", mode: 0o3777)
        tree.set("/t/shut/f", "f", mode: 0o666)
        tree.set("/t/s", "s", mode: 0o6755)
        let first = try await Mirror(tree, mask: 0o027).pull(.of("/t"), to: folder.bytes("o"))
        #expect(first.files == 2 && first.directories == 3 && first.failures.isEmpty)
        #expect(folder.status("o")?.mode == 0o750 && folder.status("o/shut")?.mode == 0o550)
        #expect(folder.status("o/sticky")?.mode == 0o3750)
        #expect(folder.status("o/shut/f")?.mode == 0o640 && folder.status("o/s")?.mode == 0o750)
        let second = try await Mirror(tree, mask: 0o027).pull(.of("/t"), to: folder.bytes("o"))
        #expect(second.files == 0 && second.unchanged == 2 && second.modes == 0 && second.directories == 0)
        // A mode alone needs no content; what may not be written is opened up for what is new.
        tree.set("/t/s", "s", mode: 0o700)
        tree.set("/t/shut/new", "new")
        let third = try await Mirror(tree, mask: 0o027).pull(.of("/t"), to: folder.bytes("o"))
        #expect(third.files == 1 && third.modes == 1 && third.unchanged == 1 && third.failures.isEmpty)
        #expect(folder.status("o/s")?.mode == 0o700 && folder.status("o/shut")?.mode == 0o550)
        // Set-id bits that somebody set here go.
        chmod("\(folder.path)/o/s", 0o4700)
        #expect(try await Mirror(tree, mask: 0o027).pull(.of("/t"), to: folder.bytes("o")).modes == 1)
        #expect(folder.status("o/s")?.mode == 0o700)
    }

    @Test("a file that is replaced keeps its owner where it may be given away, and else that is known")
    func owners() {
        let (mine, other) = (Owner(user: 1, group: 1), Owner(user: 2, group: 3))
        var asked: [String] = []
        let change = { (allowed: [String]) in
            { (user: UInt32?, group: UInt32?) -> Bool in
                let text = "\(user.map(String.init) ?? "-"):\(group.map(String.init) ?? "-")"
                asked.append(text)
                return allowed.contains(text)
            }
        }
        #expect(mine.given(to: mine, change: change([])) && asked.isEmpty)
        #expect(mine.given(to: other, change: change(["2:3"])) && asked == ["2:3"])
        // Not root: the group is kept at least.
        asked = []
        #expect(!mine.given(to: other, change: change(["-:3"])) && asked == ["2:3", "-:3"])
        #expect(mine.given(to: Owner(user: 1, group: 3), change: change(["-:3"])))
        #expect(!mine.given(to: Owner(user: 1, group: 3), change: change([])))
    }

    @Test("what vanishes from the cluster is said to have, alike at each moment, and the rest goes on")
    func vanishing() async throws {
        let folder = try Folder()
        let tree = MemoryTree { tree, call, path in
            if call == "list", path == "/t/a" { tree.remove("/t/a") }
            if call == "get", path == "/t/b/1" { tree.remove("/t/b/1") }
            if call == "get", path == "/t/c" {
                tree.remove("/t/c")
                tree.setDirectory("/t/c")
            }
        }
        for path in ["/t", "/t/a", "/t/b"] { tree.setDirectory(path) }
        for path in ["/t/a/f", "/t/b/1", "/t/b/2", "/t/b/3", "/t/c", "/t/z"] { tree.set(path, path) }
        let summary = try await Mirror(tree).pull(.of("/t"), to: folder.bytes("o"))
        #expect(summary.files == 3 && summary.failures.isEmpty && folder.content("o/z") == "/t/z")
        #expect(Set(summary.vanished.map(\.path)) == Set(["/t/a", "/t/b/1", "/t/c"].map { Array($0.utf8) }))
        #expect(folder.names("o/b") == ["2", "3"])
        await #expect(throws: BanyanError.notFound) { try await Mirror(tree).pull(.of("/none"), to: folder.bytes) }
    }

    @Test("names that no entry may bear lead nowhere, whoever sends them")
    func evilNames() async throws {
        let (folder, tree) = (try Folder(), MemoryTree())
        tree.setDirectory("/t")
        for name in ["..", "."] { tree.set("/t/\(name)", "evil") }
        tree.set("/t/good", "good")
        folder.makeDirectory("o")
        folder.makeDirectory("o/p")
        let summary = try await Mirror(tree).pull(.of("/t"), to: folder.bytes("o/p"))
        #expect(summary.files == 1 && summary.failures.count == 2)
        #expect(summary.failures.allSatisfy { $0.reason.contains("no file may bear") })
        #expect(folder.names() == ["o"] && folder.names("o") == ["p"] && folder.names("o/p") == ["good"])
        let long = [UInt8](repeating: 0x6E, count: 256)
        for name in [[], [0x2E], [0x2E, 0x2E], [0x61, 0x2F, 0x62], [0], [0xFF], long] {
            #expect(!TreePath.isName(name))
        }
        for name in [[0x2E, 0x2E, 0x2E], [0x20], [0x0A], Array(long.dropLast())] { #expect(TreePath.isName(name)) }
    }

    @Test("a directory whose path is too long is named, and what is beside it copied")
    func tooLong() async throws {
        let (folder, tree) = (try Folder(), MemoryTree())
        let base = String(repeating: "/" + String(repeating: "x", count: 250), count: 16)
        var above = ""
        for name in base.split(separator: "/") {
            above += "/\(name)"
            tree.setDirectory(above)
        }
        let long = String(repeating: "y", count: 200)
        tree.setDirectory("\(base)/\(long)")
        tree.set("\(base)/\(long)/f", "out of reach")
        tree.set("\(base)/f", "in reach")
        let walk = try await TreeWalk(.of(base), of: tree)
        #expect(walk.unreachable == [Array(long.utf8)] && walk.entries.count == 2)
        let summary = try await Mirror(tree).pull(.of(base), to: folder.bytes("o"))
        #expect(folder.content("o/f") == "in reach" && summary.failures.count == 1)
    }

    @Test("a time that the file system can't hold is no reason to copy again")
    func times() async throws {
        let (folder, tree) = (try Folder(), MemoryTree())
        tree.setDirectory("/t")
        for (number, time) in [Int64.min, -1, 1, Int64.max].enumerated() { tree.set("/t/\(number)", "x", time: time) }
        #expect(try await Mirror(tree).pull(.of("/t"), to: folder.bytes("o")).files == 4)
        #expect(try await Mirror(tree).pull(.of("/t"), to: folder.bytes("o")).unchanged == 4)
        // One that was changed here has the same size and another time.
        folder.write("o/1", "y")
        let third = try await Mirror(tree).pull(.of("/t"), to: folder.bytes("o"))
        #expect(third.files == 1 && third.unchanged == 3 && folder.content("o/1") == "x")
        // Far beyond, of a file that is in the way.
        folder.setTime("o/2", timespec(tv_sec: 10_413_792_000, tv_nsec: 0))
        #expect(try await Mirror(tree).pull(.of("/t"), to: folder.bytes("o")).files == 1)
    }

    @Test("what a killed run left is cleared, what a living one writes is not, and others' files stay")
    func temporaries() async throws {
        let (folder, tree) = (try Folder(), MemoryTree())
        tree.setDirectory("/t")
        tree.setDirectory("/t/d")
        let name = ".banyan-tmp-" + String(repeating: "0a", count: 16)
        tree.set("/t/\(name)", "by its name no file")
        tree.set("/t/f", "f")
        folder.makeDirectory("o")
        folder.makeDirectory("o/d")
        folder.write("o/\(name)", "half")
        folder.write("o/d/\(name)", "half")
        folder.write("o/.banyan-1-1", "somebody's")
        let directory = try Descriptor.named(folder.bytes("o"))
        let living = try TemporaryFile(in: directory, for: folder.bytes("o/x"))
        #expect(folder.names("o").count == 4)
        let summary = try await Mirror(tree).pull(.of("/t"), to: folder.bytes("o"))
        #expect(summary.skipped.count == 1 && summary.files == 1)
        #expect(folder.names("o").count == 4 && folder.names("o/d").isEmpty && folder.content("o/\(name)") == nil)
        #expect(living.rename(to: Array("x".utf8)[...]) && folder.status("o/x")?.kind == .file)
        do { _ = try TemporaryFile(in: directory, for: folder.bytes("o/y")) }
        #expect(folder.names("o") == [".banyan-1-1", "d", "f", "x"])
    }

    @Test("get -o keeps a file's permissions and drops what would let it run as another; links are written through")
    func files() throws {
        let folder = try Folder()
        folder.write("f", "old", mode: 0o4751)
        #expect(try !LocalFile.write(folder.bytes("f"), Array("new".utf8), mode: 0o600))
        #expect(folder.content("f") == "new" && folder.status("f")?.mode == 0o751)
        chmod("\(folder.path)/f", 0o6751)
        folder.link("l", to: "f")
        #expect(try !LocalFile.write(folder.bytes("l"), Array("n".utf8), mode: 0o600))
        #expect(folder.content("f") == "n" && folder.status("f")?.mode == 0o751 && folder.status("l")?.kind == .other)
        _ = try LocalFile.write(folder.bytes("new"), [], mode: 0o666)
        #expect(folder.status("new")?.mode == 0o666 & ~LocalFile.creationMask)
        _ = try LocalFile.write(folder.bytes("") + [0xFF], [1], mode: 0o666)
        #expect(try LocalFile.read(folder.bytes("") + [0xFF], bytesMax: 10).content == [1])
        #expect(throws: LocalError.self) { try LocalFile.write(folder.bytes("none/f"), [], mode: 0o600) }
        #expect(throws: LocalError.self) { try LocalFile.write(folder.bytes(""), [], mode: 0o600) }
        #expect(try LocalFile.read(folder.bytes("f"), bytesMax: 10).mode == 0o751)
        #expect(try LocalFile.read(Array("/dev/null".utf8), bytesMax: 10).mode == nil)
        #expect(folder.names().count == 4)
    }
}
