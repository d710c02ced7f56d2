import Glibc

/// What the system said when it was asked for a file.
package struct LocalError: Error, Sendable, CustomStringConvertible {
    /// As the user named it, and what is below that.
    package let path: [UInt8]
    package let code: CInt

    package init(_ path: [UInt8], code: CInt = errno) {
        self.path = path
        self.code = code
    }

    package var reason: String { String(cString: strerror(code)) }

    package var description: String { "\(String(decoding: path, as: UTF8.self)): \(reason)" }
}

/// An open file or directory.
///
/// Whatever is done below a directory that is mirrored begins with its descriptor and goes from name to name, each opened
/// without following links: what others do to the names meanwhile leads nowhere else.
package final class Descriptor: Sendable {
    let number: CInt

    /// Glibc's `O_PATH`, which it shows to none but GNU's own sources: a descriptor that is a place, to go on from.
    static let isPlace: CInt = 0x20_0000

    init?(_ number: CInt) {
        guard number >= 0 else { return nil }
        self.number = number
    }

    deinit { close(number) }

    /// The directory that the user named: that one may be a link.
    static func named(_ path: [UInt8], _ flags: CInt = O_RDONLY | O_DIRECTORY) throws(LocalError) -> Descriptor {
        guard let file = Descriptor(Glibc.open(cString(path), flags | O_CLOEXEC | O_NOCTTY)) else {
            throw LocalError(path)
        }
        return file
    }

    /// What bears `name` in this directory, itself and not what a link says; never waits for a pipe's other end.
    func open(_ name: ArraySlice<UInt8>, _ flags: CInt) -> Descriptor? {
        Descriptor(openat(number, cString(name), flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC))
    }

    func create(_ name: ArraySlice<UInt8>) -> Descriptor? {
        Descriptor(openat(number, cString(name), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600))
    }

    func look() -> FileStatus? {
        var info = stat()
        return fstat(number, &info) == 0 ? FileStatus(info) : nil
    }

    func look(at name: ArraySlice<UInt8>) -> FileStatus? {
        var info = stat()
        return fstatat(number, cString(name), &info, AT_SYMLINK_NOFOLLOW) == 0 ? FileStatus(info) : nil
    }

    func makeDirectory(_ name: ArraySlice<UInt8>, mode: UInt16) -> Bool {
        mkdirat(number, cString(name), mode_t(mode)) == 0
    }

    @discardableResult
    func remove(_ name: ArraySlice<UInt8>) -> Bool { unlinkat(number, cString(name), 0) == 0 }

    func rename(_ name: ArraySlice<UInt8>, to new: ArraySlice<UInt8>) -> Bool {
        renameat(number, cString(name), number, cString(new)) == 0
    }

    /// Sets the mode of what bears `name` here, if it still is of that kind.
    func setMode(_ name: ArraySlice<UInt8>, _ mode: UInt16, of kind: FileStatus.Kind) -> Bool {
        let flags = kind == .directory ? O_DIRECTORY : 0
        guard look(at: name)?.kind == kind else {
            errno = ENOENT
            return false
        }
        if let file = open(name, O_RDONLY | flags) {
            if file.look()?.kind != kind {
                errno = ENOENT
                return false
            }
            return fchmod(file.number, mode_t(mode)) == 0
        }
        // What may not be read may still be ours: its descriptor has no more than a place.
        guard errno == EACCES, let file = open(name, Self.isPlace | flags), file.look()?.kind == kind else {
            return false
        }
        return chmod("/proc/self/fd/\(file.number)", mode_t(mode)) == 0
    }

    /// The names in this directory, without `.` and `..`.
    func names() -> [ArraySlice<UInt8>]? {
        // A stream closes its descriptor, and this one is still needed.
        let copy = openat(number, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard copy >= 0 else { return nil }
        guard let stream = fdopendir(copy) else {
            close(copy)
            return nil
        }
        defer { closedir(stream) }
        var names: [ArraySlice<UInt8>] = []
        while true {
            errno = 0
            guard let item = readdir(stream) else { return errno == 0 ? names : nil }
            let name = withUnsafeBytes(of: &item.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
            if name.elementsEqual(".".utf8) || name.elementsEqual("..".utf8) { continue }
            names.append(name[...])
        }
    }
}

/// What the system tells of a file.
struct FileStatus: Sendable, Equatable {
    enum Kind: Sendable { case file, directory, other }

    var kind: Kind
    var size: UInt64
    /// With the set-id and sticky bits.
    var mode: UInt16
    /// Nanoseconds since 1970, as near as 64 bits come to it.
    var modificationTime: Int64
    var owner: Owner
    var links: UInt64

    init(_ info: stat) {
        switch info.st_mode & S_IFMT {
        case S_IFREG: kind = .file
        case S_IFDIR: kind = .directory
        default: kind = .other
        }
        size = UInt64(clamping: info.st_size)
        mode = UInt16(info.st_mode & 0o7777)
        modificationTime = FileTime.nanoseconds(info.st_mtim.tv_sec, info.st_mtim.tv_nsec)
        owner = Owner(user: info.st_uid, group: info.st_gid)
        links = UInt64(info.st_nlink)
    }
}

/// Times in the tree are nanoseconds in 64 bits, from 1677 to 2262; those of files are seconds and nanoseconds.
enum FileTime {
    static func nanoseconds(_ seconds: Int, _ nanoseconds: Int) -> Int64 {
        // In this order, so that the earliest time of all is none that overflows.
        let (whole, overflows) = Int64(seconds < 0 ? seconds + 1 : seconds).multipliedReportingOverflow(
            by: 1_000_000_000)
        let rest = Int64(seconds < 0 ? nanoseconds - 1_000_000_000 : nanoseconds)
        let (sum, exceeds) = whole.addingReportingOverflow(rest)
        return overflows || exceeds ? (seconds < 0 ? .min : .max) : sum
    }

    /// Nanoseconds are never negative: as the system wants it, before 1970 too.
    static func timespec(_ nanoseconds: Int64) -> timespec {
        let (seconds, rest) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        return rest < 0
            ? Glibc.timespec(tv_sec: Int(seconds) - 1, tv_nsec: Int(rest) + 1_000_000_000)
            : Glibc.timespec(tv_sec: Int(seconds), tv_nsec: Int(rest))
    }
}

/// To whom a file belongs.
package struct Owner: Sendable, Equatable {
    package var user: UInt32
    package var group: UInt32

    package init(user: UInt32, group: UInt32) {
        self.user = user
        self.group = group
    }

    /// Gives a file that belongs to `self` to whom the file that it replaces belongs.
    ///
    /// - Parameter change: sets user and group; nil leaves one as it is.
    /// - Returns: false when the process may not do all of it.
    package func given(to owner: Owner, change: (_ user: UInt32?, _ group: UInt32?) -> Bool) -> Bool {
        if self == owner || change(owner.user, owner.group) { return true }
        // Whoever is in a group may at least give it to that.
        let hasGroup = group == owner.group || change(nil, owner.group)
        return hasGroup && user == owner.user
    }
}

extension Descriptor {
    func give(to owner: Owner) -> Bool {
        guard let status = look() else { return false }
        return status.owner.given(to: owner) { user, group in fchown(number, user ?? .max, group ?? .max) == 0 }
    }
}

func cString(_ name: some Sequence<UInt8>) -> [CChar] { name.map { CChar(bitPattern: $0) } + [0] }
