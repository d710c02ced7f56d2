import BanyanClient
import FileTree
import Glibc

extension Mirror {
    /// Copies what is below `base` of the tree to below `directory` of this machine, which is made where it is missing.
    package func pull(_ base: TreePath, to directory: [UInt8]) async throws -> MirrorSummary {
        var summary = MirrorSummary()
        let top = try await tree.stat(base, .linearizable)
        guard top.kind == .directory else { throw BanyanError.notDirectory }
        let walk = try await TreeWalk(base, of: tree)
        let isNew = mkdir(cString(directory), mode_t((top.mode | 0o700) & ~creationMask)) == 0
        guard isNew || errno == EEXIST else { throw LocalError(directory) }
        let local = try LocalDirectory(directory)
        let modeBefore = local.root.look()?.mode
        summary.directories = isNew ? 1 : 0
        let named = { (path: [UInt8]) in base.bytes + (base == .root ? [] : [UInt8(ascii: "/")]) + path }
        summary.vanished = walk.vanished.map { MirrorNote(named($0), MirrorNote.vanished) }
        let vanished = Set(walk.vanished)
        TemporaryFile.clear(local.root)

        // Directories come before what is in them: what is in the way of one is in the way of all below it.
        var (directories, changed): ([TreeWalk.Entry], [TreeWalk.Entry]) = ([], [])
        var blocked = vanished
        var above: (path: [UInt8], directory: Descriptor) = ([], local.root)
        for entry in walk.entries where !vanished.contains(entry.path) {
            let (parent, name) = LocalDirectory.split(entry.path)
            guard !blocked.contains(parent) else {
                if entry.info.kind == .directory { blocked.insert(entry.path) }
                continue
            }
            do {
                if entry.target == nil {
                    let reason =
                        if !TreePath.isName(Array(name)) {
                            "the cluster sent a name that no file may bear"
                        } else if entry.info.kind == .directory {
                            TreeWalk.unreachableReason
                        } else {
                            "its path is longer than \(TreePath.bytesMax) bytes"
                        }
                    summary.failures.append(MirrorNote(named(entry.path), reason))
                    continue
                }
                if above.path != parent { above = (parent, try local.directory(parent, opensUp: true)) }
                if entry.info.kind == .directory {
                    if try make(entry, in: above.directory, local) { summary.directories += 1 }
                    directories.append(entry)
                } else if TemporaryFile.isName(name) {
                    summary.skipped.append(MirrorNote(named(entry.path), "its name is one that temporary files have"))
                } else if let status = above.directory.look(at: name), isSame(status, entry.info) {
                    guard status.mode != mode(entry.info) else {
                        summary.unchanged += 1
                        continue
                    }
                    guard above.directory.setMode(name, mode(entry.info), of: .file) else {
                        throw local.error(entry.path)
                    }
                    summary.modes += 1
                } else {
                    changed.append(entry)
                }
            } catch let error as LocalError {
                if entry.info.kind == .directory { blocked.insert(entry.path) }
                let below = entry.info.kind == .directory ? "; nothing below it is copied" : ""
                let reason = error.code == ENOTDIR ? "a file is in the directory's place" : error.reason
                summary.failures.append(MirrorNote(error.path, reason + below))
            }
        }

        await copy(changed, into: &summary, name: { named($0.path) }) { entry in
            do { return try await fetch(entry, to: local) } catch let error as BanyanError where error.isVanished {
                return (.vanished, [])
            }
        }
        setModes(of: directories, local, &summary)
        if !isNew, let mode = modeBefore, local.root.look()?.mode != mode {
            _ = fchmod(local.root.number, mode_t(mode))
        }
        if isNew, base != .root { _ = fchmod(local.root.number, mode_t(mode(top))) }
        return summary
    }

    // MARK: what is the same

    /// What a file or a directory is to have here. Set-id and sticky bits are a directory's alone.
    private func mode(_ info: FileInfo) -> UInt16 {
        info.mode & ~creationMask & (info.kind == .directory ? 0o7777 : 0o777)
    }

    private func isSame(_ status: FileStatus, _ info: FileInfo) -> Bool {
        status.kind == .file && status.size == info.size && status.modificationTime == info.modificationTime
    }

    // MARK: directories

    /// - Returns: false when it is there. A link, a pipe or a device in its place goes; what a link leads to stays.
    private func make(_ entry: TreeWalk.Entry, in parent: Descriptor, _ local: LocalDirectory) throws(LocalError)
        -> Bool
    {
        let (_, name) = LocalDirectory.split(entry.path)
        // Its last mode comes when all is in it.
        let mode = mode(entry.info) & 0o777 | 0o700
        var isMade = parent.makeDirectory(name, mode: mode)
        if !isMade, errno == EACCES, LocalDirectory.openUp(parent) {
            isMade = parent.makeDirectory(name, mode: mode)
        }
        if isMade { return true }
        guard errno == EEXIST, let status = parent.look(at: name) else { throw local.error(entry.path) }
        switch status.kind {
        case .file: throw local.error(entry.path, code: ENOTDIR)
        case .directory:
            if let directory = parent.open(name, Descriptor.isPlace | O_DIRECTORY) { TemporaryFile.clear(directory) }
            return false
        case .other:
            guard parent.remove(name), parent.makeDirectory(name, mode: mode) else { throw local.error(entry.path) }
            return true
        }
    }

    /// The deepest first: a directory may be shut for its owner too.
    private func setModes(of directories: [TreeWalk.Entry], _ local: LocalDirectory, _ summary: inout MirrorSummary) {
        for entry in directories.reversed() {
            let (parent, name) = LocalDirectory.split(entry.path)
            do throws(LocalError) {
                let above = try local.directory(parent, opensUp: true)
                guard let status = above.look(at: name), status.kind == .directory else { continue }
                if status.mode == mode(entry.info) { continue }
                guard above.setMode(name, mode(entry.info), of: .directory) else { throw local.error(entry.path) }
            } catch {
                summary.failures.append(MirrorNote(error.path, error.reason))
            }
        }
    }

    // MARK: files

    private func fetch(_ entry: TreeWalk.Entry, to local: LocalDirectory) async throws -> (Transfer, [MirrorNote]) {
        guard let target = entry.target else { return (.vanished, []) }
        let (parent, name) = LocalDirectory.split(entry.path)
        let directory = try local.directory(parent, opensUp: true)
        let path = local.named(entry.path)
        let temporary: TemporaryFile
        do { temporary = try TemporaryFile(in: directory, for: path) } catch {
            guard error.code == EACCES, LocalDirectory.openUp(directory) else { throw error }
            temporary = try TemporaryFile(in: directory, for: path)
        }
        let old = directory.look(at: name)
        if old?.kind == .directory { throw LocalError(path, code: EISDIR) }
        // A time that this file system can't hold became another one when the file was written.
        if let old, old.kind == .file, old.size == entry.info.size, old.mode == mode(entry.info),
            held(entry.info.modificationTime, in: temporary) == old.modificationTime
        {
            return (.unchanged, [])
        }
        let (content, info) = try await retrying { try await tree.get(target, .linearizable) }
        guard LocalFile.writeAll(content, to: temporary.file) else { throw LocalError(path) }
        var remarks: [MirrorNote] = []
        if let old, old.kind == .file, !temporary.file.give(to: old.owner) {
            remarks.append(MirrorNote(path, Self.ownerLost))
        }
        guard fchmod(temporary.file.number, mode_t(mode(info))) == 0,
            held(info.modificationTime, in: temporary) != nil, temporary.rename(to: name)
        else { throw LocalError(path) }
        return (.copied(bytes: UInt64(content.count)), remarks)
    }

    package static let ownerLost = "it was replaced, and its owner or group could not be kept"

    /// Sets the file's time, and answers with what the file system made of it.
    private func held(_ time: Int64, in temporary: TemporaryFile) -> Int64? {
        let time = FileTime.timespec(time)
        guard futimens(temporary.file.number, [time, time]) == 0 else { return nil }
        return temporary.file.look()?.modificationTime
    }
}

extension BanyanError {
    /// Whether a file that was listed is none any more.
    fileprivate var isVanished: Bool { self == .notFound || self == .notDirectory || self == .isDirectory }
}
