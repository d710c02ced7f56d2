import CrashPoints
import FileTree
import Glibc
import RaftLog

/// Why a member can't start, in words for whoever starts it.
package struct StartError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}

/// A member's directory:
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

    /// Opens the directory, making it when it is missing, and locks it.
    package init(path: String) throws {
        self.path = path
        let isMade = try Self.makeDirectory(path)
        try Self.refuseForeignFiles(path)
        lock = open(path + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard lock >= 0 else { throw StartError("\(path): can't be written: \(Self.reason)") }
        guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
            throw StartError("\(path): another process uses this directory; stop it first, or name another with --data")
        }
        try Self.makeDirectory(path + "/log")
        do { store = try LogStore(path: path + "/log") } catch {
            // The system's codes are positive, and say what is wrong; LMDB's own are negative.
            if case .store(1...) = error { throw StartError("\(path)/log: can't be opened: \(error)") }
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
        guard descriptor >= 0 else { throw StartError("\(path): can't be read: \(reason)") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw StartError("\(path): can't be synced: \(reason)") }
    }

    /// A directory that holds other things was named by mistake; nothing in it is touched.
    private static func refuseForeignFiles(_ path: String) throws {
        let known = { (name: String) in
            ["lock", "log", "lost+found", "snapshot", "damaged"].contains(name) || name.hasPrefix("state-")
        }
        let names = try listing(path)
        if let foreign = names.sorted().first(where: { !known($0) }) {
            throw StartError("\(path): holds '\(foreign)', which is not Banyan's; name an empty directory with --data")
        }
        if names.contains(where: { $0.hasPrefix("state-") }), !names.contains("log") {
            throw StartError("\(path): has a state but no log; treat it as wiped: move it away")
        }
    }

    private static func listing(_ path: String) throws -> [String] {
        guard let directory = opendir(path) else { throw StartError("\(path): can't be read: \(reason)") }
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
        if mkdir(path, 0o755) == 0 { return true }
        guard errno == EEXIST else { throw StartError("\(path): can't be made: \(reason)") }
        return false
    }

    private static var reason: String { String(cString: strerror(errno)) }
}
