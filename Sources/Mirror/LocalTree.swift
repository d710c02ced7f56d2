import Glibc

/// A file or a directory of this machine, below the directory that is mirrored.
struct LocalEntry: Sendable {
    enum Kind: Sendable { case file, directory }
    /// With a leading `/`; `` is the directory itself.
    var path: String
    var kind: Kind
    var size: UInt64
    var mode: UInt16
    /// Nanoseconds since 1970.
    var modificationTime: Int64
}

/// What the system said when it was asked for a file.
package struct LocalError: Error, Sendable, CustomStringConvertible {
    package let path: String
    let code: CInt

    init(path: String) {
        self.path = path
        code = errno
    }

    package var description: String { "\(path): \(String(cString: strerror(code)))" }
}

/// The files of this machine, by their bytes' own names.
enum LocalTree {
    /// Everything below `root`, parents first. What is neither a file nor a directory (links, sockets, devices) and names
    /// that are not UTF-8 are handed to `skip`.
    static func scan(_ root: String, skip: (String) -> Void) throws(LocalError) -> [LocalEntry] {
        var found: [LocalEntry] = []
        var directories = [""]
        while let directory = directories.popLast() {
            guard let stream = opendir(root + directory) else { throw LocalError(path: root + directory) }
            defer { closedir(stream) }
            while let item = readdir(stream) {
                let bytes = withUnsafeBytes(of: &item.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
                guard let name = String(validating: bytes, as: UTF8.self) else {
                    skip("\(root)\(directory)/\(String(decoding: bytes, as: UTF8.self))")
                    continue
                }
                if name == "." || name == ".." { continue }
                let path = "\(directory)/\(name)"
                var info = stat()
                guard lstat(root + path, &info) == 0 else { throw LocalError(path: root + path) }
                let kind: LocalEntry.Kind
                switch info.st_mode & S_IFMT {
                case S_IFREG: kind = .file
                case S_IFDIR: kind = .directory
                default:
                    skip(root + path)
                    continue
                }
                if kind == .directory { directories.append(path) }
                found.append(
                    LocalEntry(
                        path: path, kind: kind, size: UInt64(info.st_size), mode: UInt16(info.st_mode & 0o7777),
                        modificationTime: Int64(info.st_mtim.tv_sec) * 1_000_000_000 + Int64(info.st_mtim.tv_nsec)))
            }
        }
        return found
    }

    static func read(_ path: String) throws(LocalError) -> [UInt8] {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw LocalError(path: path) }
        defer { close(file) }
        var content: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = Glibc.read(file, &buffer, buffer.count)
            guard count >= 0 else { throw LocalError(path: path) }
            if count == 0 { return content }
            content += buffer[..<count]
        }
    }

    static func makeDirectory(_ path: String, mode: UInt16) throws(LocalError) {
        guard mkdir(path, mode_t(mode)) == 0 || errno == EEXIST else { throw LocalError(path: path) }
    }

    /// Writes beside the file and renames, so that a reader sees the old content or the new, and nothing in between.
    static func write(_ path: String, _ content: [UInt8], mode: UInt16, modificationTime: Int64) throws(LocalError) {
        let temporary = path + ".banyan-new"
        let file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode_t(mode))
        guard file >= 0 else { throw LocalError(path: path) }
        var written = 0
        while written < content.count {
            let count = content[written...].withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            guard count > 0 else {
                let error = LocalError(path: path)
                close(file)
                unlink(temporary)
                throw error
            }
            written += count
        }
        let time = timespec(
            tv_sec: Int(modificationTime / 1_000_000_000), tv_nsec: Int(modificationTime % 1_000_000_000))
        let isDone = futimens(file, [time, time]) == 0 && fchmod(file, mode_t(mode)) == 0
        guard close(file) == 0, isDone, rename(temporary, path) == 0 else { throw LocalError(path: path) }
    }

    /// Size and modification time of a file that is there.
    static func file(_ path: String) -> (size: UInt64, modificationTime: Int64)? {
        var info = stat()
        guard lstat(path, &info) == 0, info.st_mode & S_IFMT == S_IFREG else { return nil }
        return (UInt64(info.st_size), Int64(info.st_mtim.tv_sec) * 1_000_000_000 + Int64(info.st_mtim.tv_nsec))
    }
}
