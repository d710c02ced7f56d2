import CrashPoints
import FileTree
import Glibc
import LMDB
import RaftLog
import Snapshots

/// Why a member can't start, in words for whoever starts it.
package struct StartError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String
    /// Whether room on the disk is all that lacks: that passes.
    package let isFull: Bool

    package init(_ description: String, isFull: Bool = false) {
        self.description = description
        self.isFull = isFull
    }

    /// What the system said last.
    init(_ what: String, code: CInt) {
        self.init("\(what): \(String(cString: strerror(code)))", isFull: LMDBError(code: code).isFull)
    }

    /// Whether any error says that there is no room on the disk, or not for this user.
    static func isFull(_ error: any Error) -> Bool {
        switch error {
        case let error as StartError: error.isFull
        case let error as StateError: error.isFull
        case let error as SnapshotError: error.isFull
        case let error as LMDBError: error.isFull
        case LogError.store(let code): LMDBError(code: code).isFull
        default: false
        }
    }
}

/// A member's directory, which is its own: directories have mode 700, files 600, and what stood there with more loses it.
///
///     lock        held while a process uses the directory
///     log/        the log's LMDB environment: entries, hard state, identity
///     state-N/    the state's LMDB environment; the hard state says which N counts
///     damaged     there while the state is damaged, until another member's takes its place: what was found
///     snapshot    for a moment, before a snapshot that is being made loses its name
package final class DataDirectory {
    let path: String
    package let store: LogStore
    private let lock: CInt
    private let isMade: Bool

    /// Opens the directory, making it when it is missing, and locks it.
    package init(path: String) throws {
        self.path = path
        isMade = try Self.makeDirectory(path)
        let isEmpty: Bool
        do { isEmpty = try Self.refuseForeignFiles(path) } catch {
            if isMade { rmdir(path) }
            throw error
        }
        lock = open(path + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard lock >= 0 else { throw StartError("\(path): can't be written", code: errno) }
        guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
            throw StartError("\(path): another process uses this directory; stop it first, or name another with --data")
        }
        if !isEmpty { Self.makePrivate(path) }
        try Self.makeDirectory(path + "/log")
        do { store = try LogStore(path: path + "/log") } catch {
            // The system's codes are positive, and say what is wrong; LMDB's own are negative.
            if case .store(1...) = error {
                throw StartError("\(path)/log: can't be opened: \(error)", isFull: StartError.isFull(error))
            }
            throw StartError("\(path)/log: \(error). This is not a log of Banyan's, or its disk fails")
        }
        // Without this, a power cut could take the log away.
        for directory in [path] + (isMade ? [path + "/.."] : []) { try Self.sync(directory) }
    }

    deinit { close(lock) }

    /// The state that `number` names, in this or another member's directory.
    package static func statePath(in path: String, _ number: UInt64) -> String { "\(path)/state-\(number)" }

    /// The directory of the state, made if it is missing; states that nothing points to are removed.
    package func prepareState(_ number: UInt64) throws -> String {
        Self.removeStates(in: path) { $0 != number }
        unlink("\(path)/snapshot")
        let state = Self.statePath(in: path, number)
        try Self.makeDirectory(state)
        CrashPoint.stateMade.reach()
        try Self.sync(path)
        return state
    }

    package static func removeStates(in path: String, where isUseless: (_ number: UInt64) -> Bool) {
        for name in (try? listing(path)) ?? [] where name.hasPrefix("state-") {
            if UInt64(name.dropFirst(6)).map(isUseless) ?? false { remove(path + "/" + name) }
        }
    }

    /// Removes a directory of files; what is missing is fine.
    static func remove(_ path: String) {
        for name in (try? listing(path)) ?? [] {
            unlink(path + "/" + name)
            CrashPoint.stateRemovePart.reach()
        }
        rmdir(path)
    }

    /// Makes a directory's entries durable.
    package static func sync(_ path: String) throws {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw StartError("\(path): can't be read", code: errno) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw StartError("\(path): can't be synced", code: errno) }
    }

    /// A state without a log that says whose it is, is a member's whose log was lost: no new one begins in its place.
    func refuseLostLog() throws {
        guard try Self.listing(path).contains(where: { $0.hasPrefix("state-") }) else { return }
        throw StartError(
            "\(path): has a state, and a log that is empty: a --restore was interrupted (run the same again), or the log's "
                + "disk is not mounted; if it is lost, treat the directory as wiped: move it away")
    }

    /// Removes all that was made in a directory that is nobody's yet, when nothing comes of it.
    func discard() {
        Self.removeStates(in: path) { _ in true }
        Self.remove(path + "/log")
        unlink(path + "/lock")
        if isMade { rmdir(path) }
    }

    /// What the file systems themselves, and what shows them to people, leave behind at the top of a directory, or while a
    /// file is open that has no name any more.
    private static func isFileSystems(_ name: String) -> Bool {
        ["lost+found", "aquota.user", "aquota.group", "quota.user", "quota.group", "System Volume Information"]
            .contains(name)
            || [".fuse_hidden", ".nfs", ".snapshot", ".zfs", ".glusterfs", ".lustre", ".Trash", ".DS_Store"]
                .contains { name.hasPrefix($0) }
    }

    /// A directory that holds other things was named by mistake; nothing in it is touched.
    ///
    /// - Returns: whether it holds nothing.
    private static func refuseForeignFiles(_ path: String) throws -> Bool {
        let names = try listing(path).filter { !isFileSystems($0) }
        if let foreign = names.sorted().first(where: { !isOwn($0) }) {
            throw StartError("\(path): holds '\(foreign)', which is not Banyan's; name an empty directory with --data")
        }
        if names.contains(where: { $0.hasPrefix("state-") }), !names.contains("log") {
            throw StartError("\(path): has a state but no log; treat it as wiped: move it away")
        }
        return names.isEmpty
    }

    private static func isOwn(_ name: String) -> Bool {
        ["lock", "log", "snapshot", "damaged"].contains(name) || name.hasPrefix("state-")
    }

    /// Takes from everybody else what they may do with a directory of a member's. Of one that belongs to another user, as a
    /// mounted volume may, what the system does not let this one change stays.
    static func makePrivate(_ path: String) {
        var own = [path]
        for name in (try? listing(path)) ?? [] where isOwn(name) {
            own.append(path + "/" + name)
            for file in (try? listing(path + "/" + name)) ?? [] { own.append(path + "/" + name + "/" + file) }
        }
        for file in own {
            var status = stat()
            // A link's mode is that of what it leads to, which is nothing of this directory's.
            guard lstat(file, &status) == 0, [S_IFREG, S_IFDIR].contains(status.st_mode & S_IFMT) else { continue }
            if status.st_mode & 0o077 != 0 { chmod(file, status.st_mode & 0o7700) }
        }
    }

    private static func listing(_ path: String) throws -> [String] {
        guard let directory = opendir(path) else { throw StartError("\(path): can't be read", code: errno) }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names
    }

    /// False when it was there already.
    @discardableResult
    package static func makeDirectory(_ path: String) throws -> Bool {
        if mkdir(path, 0o700) == 0 { return true }
        guard errno == EEXIST else { throw StartError("\(path): can't be made", code: errno) }
        return false
    }
}
