import Glibc
import Synchronization

/// A file that is written beside the one whose place it takes, so that a reader sees the old content or the new, and
/// nothing in between.
///
/// Its name is drawn at random. It is removed with its last reference, and by `removeAll` when a signal ends the process.
/// Who is killed leaves it; as nobody holds its lock then, the next one who comes by removes it.
final class TemporaryFile: Sendable {
    private static let prefix = Array(".banyan-tmp-".utf8)
    private static let digits = 32

    let file: Descriptor
    private let directory: Descriptor
    private let name: ArraySlice<UInt8>
    private let key: UInt64

    private struct Living {
        var isOver = false
        var lastKey: UInt64 = 0
        var files: [UInt64: (directory: Descriptor, name: ArraySlice<UInt8>)] = [:]
    }
    private static let living = Mutex(Living())

    /// - Throws: an error of the system's about `path`, for whose place the file is.
    init(in directory: Descriptor, for path: [UInt8]) throws(LocalError) {
        while true {
            let name = Self.newName()
            // Under the lock: when the process ends no file may come after those that were removed.
            let made = Self.living.withLock { living -> (Descriptor, UInt64)? in
                errno = EINTR
                guard !living.isOver, let file = directory.create(name) else { return nil }
                living.lastKey += 1
                living.files[living.lastKey] = (directory, name)
                return (file, living.lastKey)
            }
            guard let made else { throw LocalError(path) }
            (file, key) = made
            self.directory = directory
            self.name = name
            // Some file systems have no locks; there nobody takes a file away either. Who did so between the two calls holds
            // the lock, or has left a file without a name.
            let isLocked = flock(file.number, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK
            if isLocked, file.look()?.links != 0 { return }
            throw LocalError(path, code: EBUSY)
        }
    }

    deinit { _ = Self.forget(key).map { $0.directory.remove($0.name) } }

    /// Takes the place of what bears `new`, whatever it is, unless it is a directory.
    func rename(to new: ArraySlice<UInt8>) -> Bool {
        guard directory.rename(name, to: new) else { return false }
        _ = Self.forget(key)
        return true
    }

    private static func forget(_ key: UInt64) -> (directory: Descriptor, name: ArraySlice<UInt8>)? {
        living.withLock { $0.files.removeValue(forKey: key) }
    }

    /// Removes all there are, and lets none be made any more: the process ends.
    static func removeAll() {
        living.withLock { living in
            living.isOver = true
            for (directory, name) in living.files.values { directory.remove(name) }
            living.files = [:]
        }
    }

    // MARK: names

    private static func newName() -> ArraySlice<UInt8> {
        let random = String(UInt128.random(in: .min ... .max), radix: 16)
        return (prefix + Array((String(repeating: "0", count: digits - random.count) + random).utf8))[...]
    }

    /// Whether a file of this name is one of these, whoever left it.
    static func isName(_ name: some Collection<UInt8>) -> Bool {
        name.count == prefix.count + digits && name.starts(with: prefix)
            && name.dropFirst(prefix.count).allSatisfy {
                (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
                    || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0)
            }
    }

    /// Removes those in `directory` that nobody writes any more.
    static func clear(_ directory: Descriptor) {
        for name in directory.names() ?? [] where isName(name) {
            // To open a device may do something.
            guard directory.look(at: name)?.kind == .file, let file = directory.open(name, O_RDWR),
                file.look()?.kind == .file,
                flock(file.number, LOCK_EX | LOCK_NB) == 0
            else { continue }
            directory.remove(name)
        }
    }
}

extension Mirror {
    /// For whoever ends the process before its time.
    package static func removeTemporaryFiles() { TemporaryFile.removeAll() }
}
