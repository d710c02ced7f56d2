import FileTree
import Glibc

/// A file or a directory of this machine, below the directory that is mirrored.
struct LocalEntry: Sendable {
    /// From the directory that is mirrored on, without a slash at either end; empty for itself.
    var path: [UInt8]
    /// What stands for it in the tree.
    var target: TreePath
    var status: FileStatus
}

/// What was found below a directory of this machine.
struct LocalScan {
    /// Parents first, and the directory itself before all others.
    var entries: [LocalEntry] = []
    var summary = MirrorSummary()
}

/// A directory of this machine that is mirrored, or that a part of the tree is copied to.
///
/// The directory itself may be a link, for the user named it. Below it none is followed, and nothing but regular files and
/// directories is opened.
struct LocalDirectory: Sendable {
    let root: Descriptor
    /// As the user wrote it, for messages.
    let name: [UInt8]

    private static let slash = UInt8(ascii: "/")

    init(_ name: [UInt8]) throws(LocalError) {
        root = try Descriptor.named(name)
        self.name = name
    }

    /// What the user calls the thing at `path`.
    func named(_ path: [UInt8]) -> [UInt8] {
        path.isEmpty ? name : name.last == Self.slash ? name + path : name + [Self.slash] + path
    }

    func error(_ path: [UInt8], code: CInt = errno) -> LocalError { LocalError(named(path), code: code) }

    /// The directory above the thing at `path`, and the thing's name in it.
    static func split(_ path: [UInt8]) -> (parent: [UInt8], name: ArraySlice<UInt8>) {
        guard let slash = path.lastIndex(of: slash) else { return ([], path[...]) }
        return (Array(path[..<slash]), path[(slash + 1)...])
    }

    /// The directory at `path`.
    ///
    /// - Parameter opensUp: lets the owner in where he has shut himself out. Modes are set at the end.
    func directory(_ path: [UInt8], opensUp: Bool = false) throws(LocalError) -> Descriptor {
        var here = root
        for name in path.split(separator: Self.slash) {
            var below = here.open(name, Descriptor.isPlace | O_DIRECTORY)
            if below == nil, errno == EACCES, opensUp, Self.openUp(here) {
                below = here.open(name, Descriptor.isPlace | O_DIRECTORY)
            }
            guard let below else { throw error(path) }
            here = below
        }
        return here
    }

    static func openUp(_ directory: Descriptor) -> Bool {
        guard let status = directory.look(), status.mode & 0o700 != 0o700 else { return false }
        return chmod("/proc/self/fd/\(directory.number)", mode_t(status.mode | 0o700)) == 0
    }

    // MARK: reading

    /// Everything below, by names that the tree can hold below `base`. What can't be sent is named in the summary.
    ///
    /// - Throws: when the directory itself can't be read.
    func scan(for base: TreePath) throws(LocalError) -> LocalScan {
        guard let status = root.look() else { throw error([]) }
        var scan = LocalScan()
        var directories = [LocalEntry(path: [], target: base, status: status)]
        while let directory = directories.popLast() {
            do throws(LocalError) {
                let descriptor = try self.directory(directory.path)
                guard let names = descriptor.names() else { throw error(directory.path) }
                scan.entries.append(directory)
                for name in names {
                    let path = directory.path.isEmpty ? Array(name) : directory.path + [Self.slash] + name
                    guard let status = descriptor.look(at: name) else {
                        scan.summary.note(error(path))
                        continue
                    }
                    if status.kind == .file, TemporaryFile.isName(name) { continue }
                    guard status.kind != .other else {
                        scan.summary.skipped.append(MirrorNote(named(path), MirrorNote.isNoFile))
                        continue
                    }
                    do throws(TreeError) {
                        let target = try directory.target.appending(name)
                        let entry = LocalEntry(path: path, target: target, status: status)
                        if status.kind == .directory { directories.append(entry) } else { scan.entries.append(entry) }
                    } catch {
                        let below = status.kind == .directory ? "; nothing below it is looked at" : ""
                        scan.summary.failures.append(
                            MirrorNote(named(path), Self.reason(name, error, below: directory.target) + below))
                    }
                }
            } catch {
                if directory.path.isEmpty { throw error }
                scan.summary.note(error)
                // What can't be read may at least be made.
                if !error.isVanished { scan.entries.append(directory) }
            }
        }
        return scan
    }

    private static func reason(_ name: ArraySlice<UInt8>, _ error: TreeError, below base: TreePath) -> String {
        if String(validating: name, as: UTF8.self) == nil { return "its name is not UTF-8" }
        if error == .nameTooLong { return "its name is longer than 255 bytes" }
        return "its path in the cluster would be longer than \(TreePath.bytesMax) bytes"
    }

    /// The content of the file that is at `path` now, and what is true of that file; nil for what is none any more.
    func read(_ path: [UInt8], bytesMax: Int) throws(LocalError) -> (content: [UInt8], status: FileStatus)? {
        let (parent, name) = Self.split(path)
        let directory = try directory(parent)
        guard let file = directory.open(name, O_RDONLY) else {
            // A link, or a socket.
            if errno == ELOOP || errno == ENXIO { return nil }
            throw error(path)
        }
        guard let status = file.look() else { throw error(path) }
        guard status.kind == .file else { return nil }
        guard let content = LocalFile.readAll(file, bytesMax: bytesMax) else { throw error(path) }
        return (content, status)
    }
}

extension LocalError {
    /// Whether something that was there a moment before is no more: itself, or a directory above it.
    var isVanished: Bool { code == ENOENT || code == ENOTDIR || code == ELOOP }
}
