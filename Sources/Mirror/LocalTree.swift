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

    init(path: String, code: CInt = errno) {
        self.path = path
        self.code = code
    }

    package var description: String {
        code == EILSEQ ? "\(path): its name is not UTF-8" : "\(path): \(String(cString: strerror(code)))"
    }
}

/// The files of this machine, by their bytes' own names.
enum LocalTree {
    /// Everything below `root`, parents first. What is neither a file nor a directory (links, sockets, devices) is handed to
    /// `skip`, and what can't be read, or has a name that is not UTF-8, to `fail`.
    ///
    /// - Throws: when `root` itself can't be read.
    static func scan(
        _ root: String, skip: (String) -> Void, fail: (LocalError) -> Void
    ) throws(LocalError) -> [LocalEntry] {
        var found: [LocalEntry] = []
        var directories = [""]
        while let directory = directories.popLast() {
            guard let stream = opendir(root + directory) else {
                if directory.isEmpty { throw LocalError(path: root) }
                fail(LocalError(path: root + directory))
                continue
            }
            defer { closedir(stream) }
            while let item = readdir(stream) {
                let bytes = withUnsafeBytes(of: &item.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
                guard let name = String(validating: bytes, as: UTF8.self) else {
                    let path = "\(root)\(directory)/\(String(decoding: bytes, as: UTF8.self))"
                    // What file systems don't tell at once may be a file.
                    let kinds = [DT_REG, DT_DIR, DT_UNKNOWN].map { UInt8($0) }
                    if kinds.contains(item.pointee.d_type) {
                        fail(LocalError(path: path, code: EILSEQ))
                    } else {
                        skip(path)
                    }
                    continue
                }
                if name == "." || name == ".." { continue }
                let path = "\(directory)/\(name)"
                var info = stat()
                guard lstat(root + path, &info) == 0 else {
                    // One that was removed in between is no failure.
                    if errno != ENOENT { fail(LocalError(path: root + path)) }
                    continue
                }
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

    /// The file's content; of one that grew beyond `bytesMax`, no more than shows it.
    static func read(_ path: String, bytesMax: Int) throws(LocalError) -> [UInt8] {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw LocalError(path: path) }
        defer { close(file) }
        var content: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while content.count <= bytesMax {
            let count = Glibc.read(file, &buffer, buffer.count)
            guard count >= 0 else { throw LocalError(path: path) }
            if count == 0 { break }
            content += buffer[..<count]
        }
        return content
    }

    static func makeDirectory(_ path: String, mode: UInt16) throws(LocalError) {
        guard mkdir(path, mode_t(mode)) == 0 || errno == EEXIST else { throw LocalError(path: path) }
    }

    /// Size and modification time of a file that is there.
    static func file(_ path: String) -> (size: UInt64, modificationTime: Int64)? {
        var info = stat()
        guard lstat(path, &info) == 0, info.st_mode & S_IFMT == S_IFREG else { return nil }
        return (UInt64(info.st_size), Int64(info.st_mtim.tv_sec) * 1_000_000_000 + Int64(info.st_mtim.tv_nsec))
    }
}
