import NIOCore
import Raft
import Testing

@testable import FileTree

@Suite("Mode and time without the content")
struct AttributeTests {
    @Test(
        "mode and time of an entry are set without its content, from version 5 on, and what is so already is no change")
    func attributes() throws {
        let tree = try Tree()
        let (file, directory) = (try TreePath("/d/f"), try TreePath("/d"))
        let content = ByteBuffer(bytes: [UInt8](repeating: 7, count: 9000))
        _ = try tree.apply { Put(path: file, content: content, mode: 0o600, mtime: 5).write(to: &$0) }
        func set(
            _ path: TreePath, _ mode: UInt16?, _ mtime: SetAttributes.Time? = nil, _ condition: Condition = .always
        ) throws -> Outcome? {
            try tree.apply { SetAttributes(path: path, mode: mode, mtime: mtime, condition: condition).write(to: &$0) }
        }
        func metadata(_ path: TreePath) throws -> Metadata? {
            var answer = try tree.ask(.stat(path))
            return answer.readMetadata()
        }
        #expect(try set(file, 0o640) == .failed(.unsupported, revision: 0))
        _ = try tree.apply { RaiseVersion(to: 5).write(to: &$0) }
        let before = try #require(try metadata(file))
        guard case .done(let revision)? = try set(file, 0o7640, .at(-9)) else {
            Issue.record("it was not done")
            return
        }
        var after = try #require(try metadata(file))
        #expect(after.mode == 0o640 && after.mtime == -9 && after.revision == revision && revision > before.revision)
        (after.mode, after.mtime, after.revision) = (before.mode, before.mtime, before.revision)
        #expect(after == before)
        var whole = try tree.ask(.get(file))
        #expect(whole.readMetadata() != nil && whole == content)
        // What is so already.
        let digest = tree.tree.applied.digest
        #expect(try set(file, 0o640, .at(-9)) == .done(revision: revision))
        #expect(tree.tree.applied.digest == digest)
        // A directory's own bits, and a condition.
        let made = try #require(try metadata(directory)).revision
        #expect(try set(directory, 0o17777, nil, .revision(made + 1)) == .failed(.conditionFailed, revision: made))
        if case .done? = try set(directory, 0o17777, nil, .revision(made)) {} else { Issue.record("it was not done") }
        #expect(try metadata(directory)?.mode == 0o7777)
        #expect(try set(try TreePath("/none"), 0o600) == .failed(.notFound, revision: 0))
        #expect(try set(.root, 0o600) == .failed(.invalidPath, revision: 0))
        // The time of the proposal is in the head.
        _ = try set(file, nil, .now)
        #expect(try metadata(file)?.mtime == 1000 && metadata(file)?.mode == 0o640)
    }

    @Test("a command that sets nothing, or two times, is malformed")
    func malformedAttributes() throws {
        let tree = try Tree()
        _ = try tree.apply { RaiseVersion(to: 5).write(to: &$0) }
        let path = try TreePath("/f")
        _ = try tree.put("/f")
        for (mode, flags, time) in [(0, 0, 0), (0, 6, 5), (0, 8, 0), (7, 2, 5), (7, 1, 5), (7, 5, 5)]
            as [(UInt16, UInt8, Int64)]
        {
            let outcome = try tree.apply {
                CommandHeader(.setAttributes).write(to: &$0)
                $0.writeCondition(.always)
                $0.writeMultipleIntegers(mode, flags, time)
                $0.writePath(path)
            }
            #expect(outcome == .failed(.malformed, revision: 0), "\(mode) \(flags) \(time)")
        }
    }
}
