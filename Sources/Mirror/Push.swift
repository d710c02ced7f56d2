import BanyanClient
import FileTree

extension Mirror {
    /// Copies what is below `directory` of this machine to below `base` of the tree.
    package func push(_ directory: [UInt8], to base: TreePath) async throws -> MirrorSummary {
        let local = try LocalDirectory(directory)
        let scan = try local.scan(for: base)
        var summary = scan.summary
        let known = try await known(below: base)
        let blocked: Set<[UInt8]>
        do { blocked = try await makeDirectories(scan.entries, known, local, &summary) } catch let error as BanyanError
        {
            summary.stopped = error
            return summary
        }
        let files = scan.entries.filter { entry in
            entry.status.kind == .file && !blocked.contains(LocalDirectory.split(entry.path).parent)
        }
        let changed = files.filter { entry in !(known[entry.path].map { Self.isSame(entry.status, $0) } ?? false) }
        summary.unchanged = files.count - changed.count
        await copy(changed, into: &summary, name: { local.named($0.path) }) { entry in
            do {
                guard let (content, status) = try local.read(entry.path, bytesMax: BanyanClient.contentBytesMax) else {
                    return (.skipped, [])
                }
                guard content.count <= BanyanClient.contentBytesMax else { throw BanyanError.contentTooLarge }
                _ = try await retrying {
                    try await tree.put(
                        entry.target, content, mode: status.mode & 0o777, modificationTime: status.modificationTime,
                        if: .always)
                }
                return (.copied(bytes: UInt64(content.count)), [])
            } catch let error as LocalError where error.isVanished {
                return (.vanished, [])
            }
        }
        return summary
    }

    static func isSame(_ local: FileStatus, _ info: FileInfo) -> Bool {
        info.kind == .file && info.size == local.size && info.modificationTime == local.modificationTime
            && info.mode == local.mode & 0o777
    }

    /// What the tree has below `base`, by its path from there; `base` itself by the empty one.
    private func known(below base: TreePath) async throws -> [[UInt8]: FileInfo] {
        let walk: TreeWalk
        let info: FileInfo
        do {
            info = try await tree.stat(base, .linearizable)
            guard info.kind == .directory else { throw BanyanError.notDirectory }
            walk = try await TreeWalk(base, of: tree)
        } catch BanyanError.notFound {
            return [:]
        }
        var known = Dictionary(walk.entries.map { ($0.path, $0.info) }) { $1 }
        known[[]] = info
        // Whoever removes a directory while it is copied gets it back, like its files.
        for path in walk.vanished { known[path] = nil }
        return known
    }

    /// Makes the directories that are missing, and answers with those in whose place something else is.
    private func makeDirectories(
        _ entries: [LocalEntry], _ known: [[UInt8]: FileInfo], _ local: LocalDirectory, _ summary: inout MirrorSummary
    ) async throws -> Set<[UInt8]> {
        var blocked: Set<[UInt8]> = []
        for entry in entries where entry.status.kind == .directory {
            if !entry.path.isEmpty, blocked.contains(LocalDirectory.split(entry.path).parent) {
                blocked.insert(entry.path)
                continue
            }
            do {
                let info: FileInfo
                if let known = known[entry.path] {
                    info = known
                } else if try await make(entry.target, mode: entry.status.mode) {
                    summary.directories += 1
                    continue
                } else {
                    // Somebody else was quicker.
                    info = try await retrying { try await tree.stat(entry.target, .linearizable) }
                }
                if info.kind == .file {
                    blocked.insert(entry.path)
                    summary.failures.append(
                        MirrorNote(entry.target.bytes, "a file is in the directory's place; nothing below it is copied")
                    )
                } else if info.mode & 0o7777 != entry.status.mode, entry.target != .root {
                    let (here, there) = (String(entry.status.mode, radix: 8), String(info.mode, radix: 8))
                    summary.remarks.append(
                        MirrorNote(
                            entry.target.bytes,
                            "its mode stays \(there), and is \(here) here: this version sets a directory's mode when it is made"
                        ))
                }
            } catch let error as BanyanError where !error.isOfTheCluster {
                blocked.insert(entry.path)
                summary.failures.append(MirrorNote(entry.target.bytes, "\(error)"))
            }
        }
        return blocked
    }

    /// - Returns: false when something is there already.
    private func make(_ path: TreePath, mode: UInt16) async throws -> Bool {
        do {
            _ = try await retrying { try await tree.makeDirectory(path, mode: mode, withParents: false) }
        } catch BanyanError.alreadyExists {
            return false
        } catch BanyanError.notFound {
            // What is above the mirror's target is none of its directories: those have modes of their own.
            if let parent = path.parent {
                let mode = 0o777 & ~creationMask
                _ = try await retrying { try await tree.makeDirectory(parent, mode: mode, withParents: true) }
            }
            _ = try await retrying { try await tree.makeDirectory(path, mode: mode, withParents: true) }
        }
        return true
    }
}
