import BanyanClient
import FileTree
import Foundation
import Synchronization
import Testing

@testable import Mirror

/// A tree in this process, and what others do to it just when it is asked.
final class MemoryTree: RemoteTree {
    struct Node {
        var info: FileInfo
        var content: [UInt8] = []
    }
    struct State {
        var nodes: [[UInt8]: Node] = [:]
        var calls: [String] = []
    }
    let state = Mutex(State())
    private let before: @Sendable (MemoryTree, _ call: String, _ path: String) throws -> Void

    init(before: @escaping @Sendable (MemoryTree, String, String) throws -> Void = { _, _, _ in }) {
        self.before = before
    }

    var calls: [String] { state.withLock { $0.calls } }

    func info(_ path: String) -> FileInfo? { state.withLock { $0.nodes[Array(path.utf8)]?.info } }

    func content(_ path: String) -> String? {
        state.withLock { $0.nodes[Array(path.utf8)].map { String(decoding: $0.content, as: UTF8.self) } }
    }

    func set(_ path: String, _ content: String, mode: UInt16 = 0o644, time: Int64 = 1_000_000_000) {
        let info = FileInfo(
            kind: .file, size: UInt64(content.utf8.count), mode: mode, modificationTime: time, revision: 1)
        state.withLock { $0.nodes[Array(path.utf8)] = Node(info: info, content: Array(content.utf8)) }
    }

    func setDirectory(_ path: String, mode: UInt16 = 0o755) {
        let info = FileInfo(kind: .directory, size: 0, mode: mode, modificationTime: 0, revision: 1)
        state.withLock { $0.nodes[Array(path.utf8)] = Node(info: info) }
    }

    /// With all below it.
    func remove(_ path: String) {
        let bytes = Array(path.utf8)
        state.withLock { state in
            state.nodes = state.nodes.filter { key, _ in key != bytes && !key.starts(with: bytes + [UInt8(ascii: "/")])
            }
        }
    }

    private func begin(_ call: String, _ path: TreePath) throws {
        state.withLock { $0.calls.append("\(call) \(path)") }
        try before(self, call, "\(path)")
    }

    private func node(_ path: TreePath) throws -> Node {
        if path == .root {
            return Node(
                info: FileInfo(kind: .directory, size: 0, mode: 0o755, modificationTime: 0, revision: 0))
        }
        guard let node = state.withLock({ $0.nodes[path.bytes] }) else { throw BanyanError.notFound }
        return node
    }

    func list(
        _ path: TreePath, after: [UInt8], limit: Int, _ consistency: Consistency
    ) async throws -> (entries: [DirectoryEntry], hasMore: Bool) {
        try begin("list", path)
        guard try node(path).info.kind == .directory else { throw BanyanError.notDirectory }
        let prefix = path == .root ? [UInt8(ascii: "/")] : path.bytes + [UInt8(ascii: "/")]
        let names = state.withLock { state in
            state.nodes.compactMap { key, node -> ([UInt8], FileInfo)? in
                guard key.starts(with: prefix), !key.dropFirst(prefix.count).contains(UInt8(ascii: "/")) else {
                    return nil
                }
                return (Array(key.dropFirst(prefix.count)), node.info)
            }
        }
        // Pages of two.
        let rest = names.sorted { $0.0.lexicographicallyPrecedes($1.0) }
            .filter { after.lexicographicallyPrecedes($0.0) }
        return (
            rest.prefix(2).map { DirectoryEntry(nameBytes: $0.0, info: $0.1) },
            rest.count > 2
        )
    }

    func stat(_ path: TreePath, _ consistency: Consistency) async throws -> FileInfo {
        try begin("stat", path)
        return try node(path).info
    }

    func get(_ path: TreePath, _ consistency: Consistency) async throws -> (content: [UInt8], info: FileInfo) {
        try begin("get", path)
        let node = try node(path)
        guard node.info.kind == .file else { throw BanyanError.isDirectory }
        return (node.content, node.info)
    }

    func put(
        _ path: TreePath, _ content: [UInt8], mode: UInt16, modificationTime: Int64?, if condition: WriteCondition
    ) async throws -> UInt64 {
        try begin("put", path)
        if let node = try? node(path), node.info.kind == .directory { throw BanyanError.isDirectory }
        set("\(path)", String(decoding: content, as: UTF8.self), mode: mode, time: modificationTime ?? 0)
        return 1
    }

    func makeDirectory(_ path: TreePath, mode: UInt16, withParents: Bool) async throws -> UInt64 {
        try begin("mkdir", path)
        if let info = try? node(path).info {
            guard withParents, info.kind == .directory else { throw BanyanError.alreadyExists }
            return info.revision
        }
        let names = "\(path)".utf8.split(separator: UInt8(ascii: "/")).dropLast()
        let parent = try TreePath(bytes: names.isEmpty ? Array("/".utf8) : names.flatMap { Array("/".utf8) + $0 })
        if (try? node(parent)) == nil {
            guard withParents else { throw BanyanError.notFound }
            _ = try await makeDirectory(parent, mode: mode, withParents: true)
        }
        setDirectory("\(path)", mode: mode)
        return 1
    }
}

/// A folder of a test's own. Everything is done by names of bytes.
final class Folder: Sendable {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("banyan-mirror-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit {
        _ = try? Self.run("/bin/chmod", ["-R", "u+rwX", path])
        _ = try? Self.run("/bin/rm", ["-rf", path])
    }

    static func run(_ program: String, _ arguments: [String]) throws -> Int32 {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        try process.run()
        process.waitUntilExit()
        return process.terminationStatus
    }

    var bytes: [UInt8] { Array(path.utf8) }

    func bytes(_ name: String) -> [UInt8] { Array("\(path)/\(name)".utf8) }

    func write(_ name: String, _ content: String, mode: mode_t = 0o644) { write(Array(name.utf8), content, mode: mode) }

    func write(_ name: [UInt8], _ content: String, mode: mode_t = 0o644) {
        let file = open(cString(bytes("") + name), O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        #expect(file >= 0, "\(name)")
        _ = Array(content.utf8).withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
        fchmod(file, mode)
        close(file)
    }

    func makeDirectory(_ name: String, mode: mode_t = 0o755) {
        #expect(mkdir("\(path)/\(name)", mode) == 0)
        chmod("\(path)/\(name)", mode)
    }

    func link(_ name: String, to target: String) { #expect(symlink(target, "\(path)/\(name)") == 0) }

    func content(_ name: String) -> String? { try? String(contentsOfFile: "\(path)/\(name)", encoding: .utf8) }

    func status(_ name: String) -> FileStatus? {
        var info = stat()
        return lstat("\(path)/\(name)", &info) == 0 ? FileStatus(info) : nil
    }

    func setTime(_ name: String, _ time: timespec) {
        #expect(utimensat(AT_FDCWD, "\(path)/\(name)", [time, time], 0) == 0)
    }

    func names(_ directory: String = "") -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: "\(path)/\(directory)")) ?? []).sorted()
    }
}

extension Mirror {
    /// As a user with umask 022 whose cluster never lets him wait.
    init(_ tree: MemoryTree, mask: UInt16 = 0o022, patience: Duration = .zero) {
        self.init(tree: tree, patience: patience, creationMask: mask)
    }
}

extension TreePath {
    static func of(_ text: String) throws -> TreePath { try TreePath(text) }
}
