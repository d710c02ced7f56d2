import Glibc
import Synchronization

/// Files of this machine that are written from the tree.
package enum LocalFile {
    private static let lastTemporary = Atomic<UInt64>(0)

    /// Writes beside the file and renames, so that a reader sees the old content or the new, and nothing in between. What
    /// is there and is no regular file (a pipe, a device, a link) is written into.
    ///
    /// - Parameter modificationTime: nanoseconds since 1970; nil for now.
    package static func write(
        _ path: String, _ content: [UInt8], mode: UInt16, modificationTime: Int64? = nil
    ) throws(LocalError) {
        var info = stat()
        guard lstat(path, &info) != 0 || info.st_mode & S_IFMT == S_IFREG else {
            let file = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC)
            guard file >= 0 else { throw LocalError(path: path) }
            defer { close(file) }
            guard writeAll(content, to: file) else { throw LocalError(path: path) }
            return
        }
        // Short, so that the longest name has room for it, and no other process's.
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
        let number = lastTemporary.add(1, ordering: .relaxed).newValue
        let temporary = "\(folder).banyan-\(getpid())-\(number)"
        let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw LocalError(path: path) }
        var isDone = writeAll(content, to: file) && fchmod(file, mode_t(mode)) == 0
        if isDone, let modificationTime {
            let (seconds, nanoseconds) = floored(modificationTime)
            let time = timespec(tv_sec: seconds, tv_nsec: nanoseconds)
            isDone = futimens(file, [time, time]) == 0
        }
        var failure: LocalError? = isDone ? nil : LocalError(path: path)
        if close(file) != 0, failure == nil { failure = LocalError(path: path) }
        if failure == nil, rename(temporary, path) != 0 { failure = LocalError(path: path) }
        guard let failure else { return }
        unlink(temporary)
        throw failure
    }

    /// Seconds and what is left of a second, which is never negative: as the system wants it, before 1970 too.
    static func floored(_ nanoseconds: Int64) -> (seconds: Int, nanoseconds: Int) {
        let rest = nanoseconds % 1_000_000_000
        let seconds = nanoseconds / 1_000_000_000
        return rest < 0 ? (Int(seconds) - 1, Int(rest) + 1_000_000_000) : (Int(seconds), Int(rest))
    }

    private static func writeAll(_ content: [UInt8], to file: CInt) -> Bool {
        var rest = content[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            guard count > 0 else { return false }
            rest = rest.dropFirst(count)
        }
        return true
    }
}
