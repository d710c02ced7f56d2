import BanyanClient

/// What a mirror did.
package struct MirrorSummary: Sendable {
    package var directories = 0
    package var files = 0
    package var bytes: UInt64 = 0
    /// The same size and modification time on both sides.
    package var unchanged = 0
    /// Neither file nor directory.
    package var skipped: [String] = []
    /// Path and reason.
    package var failures: [String] = []
    /// Why nothing more was begun: the cluster can't be reached, or has no majority.
    package var stopped: BanyanError?
}

/// Copies whole directories into the tree, and out of it, many files at once.
///
/// A file whose size and modification time are the same on both sides is left alone. Nothing is removed on either side.
package struct Mirror: Sendable {
    /// Files under way at once.
    static let inFlight = 64
    /// A put whose outcome stayed unknown, or found no leader, is tried so often in all: it writes the mirror's own file
    /// with the same content, so that doing it twice does no harm.
    static let triesMax = 6

    private let client: BanyanClient
    private let progress: @Sendable (_ done: Int, _ of: Int, _ bytes: UInt64) -> Void

    package init(
        client: BanyanClient, progress: @escaping @Sendable (_ done: Int, _ of: Int, _ bytes: UInt64) -> Void
    ) {
        self.client = client
        self.progress = progress
    }

    // MARK: push

    /// Copies what is below `directory` of this machine to below `path` of the tree.
    package func push(_ directory: String, to path: String) async throws -> MirrorSummary {
        var summary = MirrorSummary()
        var skipped: [String] = []
        let root = Self.trimmed(directory)
        var failures: [String] = []
        let local = try LocalTree.scan(root, skip: { skipped.append($0) }, fail: { failures.append("\($0)") })
        (summary.skipped, summary.failures) = (skipped, failures)
        let base = path == "/" ? "" : Self.trimmed(path)
        let known = try await Dictionary(uniqueKeysWithValues: remote(base).map { ($0.path, $0.info) })
        // Directories that hold files come with them; here are the empty ones, and all modes.
        let here = LocalEntry(path: "", kind: .directory, size: 0, mode: 0o755, modificationTime: 0)
        for entry in (base.isEmpty ? [] : [here]) + local where entry.kind == .directory && known[entry.path] == nil {
            let target = base + entry.path
            let mode = entry.mode
            do {
                try await retrying { _ = try await client.makeDirectory(target, mode: mode, withParents: true) }
                summary.directories += 1
            } catch let error as BanyanError {
                if error.isOfTheCluster { throw error }
                summary.failures.append("\(target): \(error)")
            }
        }
        let isSame = { (entry: LocalEntry) in
            known[entry.path].map { $0.size == entry.size && $0.modificationTime == entry.modificationTime } ?? false
        }
        let changed = local.filter { $0.kind == .file && !isSame($0) }
        summary.unchanged = local.count { $0.kind == .file } - changed.count
        await copy(changed, into: &summary, name: { root + $0.path }) { entry in
            if entry.size > UInt64(BanyanClient.contentBytesMax) { throw BanyanError.contentTooLarge }
            let content = try LocalTree.read(root + entry.path, bytesMax: BanyanClient.contentBytesMax)
            try await retrying {
                _ = try await client.put(
                    base + entry.path, content, mode: entry.mode, modificationTime: entry.modificationTime)
            }
            return UInt64(content.count)
        }
        return summary
    }

    // MARK: pull

    /// Copies what is below `path` of the tree to below `directory` of this machine.
    package func pull(_ path: String, to directory: String) async throws -> MirrorSummary {
        var summary = MirrorSummary()
        let root = Self.trimmed(directory)
        let base = path == "/" ? "" : Self.trimmed(path)
        if base != "", try await client.stat(base).kind == .file { throw BanyanError.notDirectory }
        let entries = try await remote(base)
        try LocalTree.makeDirectory(root, mode: 0o755)
        for (path, info) in entries where info.kind == .directory {
            try LocalTree.makeDirectory(root + path, mode: info.mode | 0o700)
            summary.directories += 1
        }
        let isSame = { (path: String, info: FileInfo) in
            LocalTree.file(root + path).map { $0.size == info.size && $0.modificationTime == info.modificationTime }
                ?? false
        }
        let files = entries.filter { $0.info.kind == .file }
        let changed = files.filter { !isSame($0.path, $0.info) }
        summary.unchanged = files.count - changed.count
        await copy(changed, into: &summary, name: { base + $0.path }) { entry in
            let (content, info) = try await client.get(base + entry.path)
            try LocalFile.write(
                root + entry.path, content, mode: info.mode, modificationTime: info.modificationTime)
            return UInt64(content.count)
        }
        return summary
    }

    // MARK: both

    /// What became of one transfer. The position stands for the item, so that the tasks' result is no generic type.
    private struct Transferred: Sendable {
        let position: Int
        let bytes: Result<UInt64, any Error>
    }

    /// Runs `transfer` for each item, some at a time; a failure is noted and the others go on.
    private func copy<Item: Sendable>(
        _ items: [Item], into summary: inout MirrorSummary, name: (Item) -> String,
        transfer: @escaping @Sendable (Item) async throws -> UInt64
    ) async {
        await withTaskGroup(of: Transferred.self) { group in
            var next = 0
            func begin() {
                guard next < items.count, !Task.isCancelled, summary.stopped == nil else { return }
                let (position, item) = (next, items[next])
                next += 1
                group.addTask {
                    do { return Transferred(position: position, bytes: .success(try await transfer(item))) } catch {
                        return Transferred(position: position, bytes: .failure(error))
                    }
                }
            }
            for _ in 0..<Self.inFlight { begin() }
            var done = 0
            while let transferred = await group.next() {
                done += 1
                switch transferred.bytes {
                case .success(let bytes):
                    summary.files += 1
                    summary.bytes += bytes
                case .failure(let error as BanyanError) where error.isOfTheCluster: summary.stopped = error
                case .failure(let error as LocalError): summary.failures.append("\(error)")
                case .failure(let error):
                    summary.failures.append("\(name(items[transferred.position])): \(error)")
                }
                progress(done, items.count, summary.bytes)
                begin()
            }
        }
    }

    private func retrying(_ body: () async throws -> Void) async throws {
        var tries = 0
        while true {
            do { return try await body() } catch let error as BanyanError {
                tries += 1
                guard error == .unknownOutcome || error.isOfTheCluster, tries < Self.triesMax, !Task.isCancelled else {
                    throw error
                }
            }
        }
    }

    /// Everything below `base` of the tree, parents first, by its path from there; nothing when `base` is not there.
    private func remote(_ base: String) async throws -> [(path: String, info: FileInfo)] {
        var found: [(path: String, info: FileInfo)] = []
        var directories = [""]
        while let directory = directories.popLast() {
            var (after, hasMore) = ("", true)
            while hasMore {
                let target = base + directory
                let page: (entries: [DirectoryEntry], hasMore: Bool)
                do {
                    page = try await client.list(target.isEmpty ? "/" : target, after: after, limit: 4096)
                } catch BanyanError.notFound where directory.isEmpty {
                    return []
                }
                for entry in page.entries {
                    let path = "\(directory)/\(entry.name)"
                    found.append((path, entry.info))
                    if entry.info.kind == .directory { directories.append(path) }
                }
                (after, hasMore) = (page.entries.last?.name ?? "", page.hasMore)
            }
        }
        return found
    }

    /// Without slashes at the end.
    private static func trimmed(_ path: String) -> String {
        var path = path
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        return path
    }
}

extension BanyanError {
    /// Whether it would meet every other file as well.
    fileprivate var isOfTheCluster: Bool { self == .noQuorum || self == .unreachable }
}
