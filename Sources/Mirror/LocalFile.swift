import Glibc

/// Files of this machine that are written from the tree, one at a time.
package enum LocalFile {
    /// The permissions that the process withholds from what it makes.
    package static let creationMask: UInt16 = {
        let mask = umask(0o077)
        umask(mask)
        return UInt16(mask & 0o777)
    }()

    /// Writes a file that the user named.
    ///
    /// A regular file is replaced, and keeps its mode (but set-id bits) and, where the process may give it away, its owner. Links
    /// are followed; into what they lead to, and into pipes and devices, the content is written.
    ///
    /// - Parameter mode: of a file that is not there yet.
    /// - Returns: whether an owner could not be kept.
    package static func write(_ path: [UInt8], _ content: [UInt8], mode: UInt16) throws(LocalError) -> Bool {
        var info = stat()
        let isThere = lstat(cString(path), &info) == 0
        if !isThere, errno != ENOENT { throw LocalError(path) }
        let old = isThere ? FileStatus(info) : nil
        guard old == nil || old?.kind == .file else {
            try writeInto(path, content)
            return false
        }
        let (above, name) = place(of: path)
        guard !name.isEmpty else { throw LocalError(path, code: EISDIR) }
        let directory = try Descriptor.named(above)
        TemporaryFile.clear(directory)
        let file = try TemporaryFile(in: directory, for: path)
        let permissions = (old?.mode ?? mode & ~creationMask) & 0o777
        guard writeAll(content, to: file.file) else { throw LocalError(path) }
        let keepsOwner = old.map { file.file.give(to: $0.owner) } ?? true
        guard fchmod(file.file.number, mode_t(permissions)) == 0, file.rename(to: name) else { throw LocalError(path) }
        return !keepsOwner
    }

    /// The directory that the last name of `path` is in, and that name.
    static func place(of path: [UInt8]) -> (directory: [UInt8], name: ArraySlice<UInt8>) {
        guard let slash = path.lastIndex(of: UInt8(ascii: "/")) else { return (Array(".".utf8), path[...]) }
        return (Array(path[...slash]), path[(slash + 1)...])
    }

    private static func writeInto(_ path: [UInt8], _ content: [UInt8]) throws(LocalError) {
        let file = try Descriptor.named(path, O_WRONLY)
        if let status = file.look(), status.kind == .file {
            // Who could write what runs as somebody else could be somebody else.
            let permissions = status.mode & 0o777
            // What does not fit must not cost what is there.
            let code = content.isEmpty ? 0 : posix_fallocate(file.number, 0, off_t(content.count))
            if [ENOSPC, EDQUOT].contains(code) { throw LocalError(path, code: code) }
            guard status.mode == permissions || fchmod(file.number, mode_t(permissions)) == 0,
                writeAll(content, to: file), ftruncate(file.number, off_t(content.count)) == 0
            else { throw LocalError(path) }
        } else if !writeAll(content, to: file) {
            throw LocalError(path)
        }
    }

    static func writeAll(_ content: [UInt8], to file: Descriptor) -> Bool {
        var rest = content[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(file.number, $0.baseAddress, $0.count) }
            if count < 0 {
                guard waits(for: file, POLLOUT) else { return false }
            } else {
                rest = rest.dropFirst(count)
            }
        }
        return true
    }

    /// The content; of what is larger than `bytesMax`, no more than shows it.
    static func readAll(_ file: Descriptor, bytesMax: Int) -> [UInt8]? {
        var content: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while content.count <= bytesMax {
            let count = Glibc.read(file.number, &buffer, buffer.count)
            if count < 0 {
                guard waits(for: file, POLLIN) else { return nil }
            } else if count == 0 {
                break
            } else {
                content += buffer[..<count]
            }
        }
        return content
    }

    /// Whether a call that has just failed may be tried again: it was interrupted, or had to wait.
    private static func waits(for file: Descriptor, _ event: CInt) -> Bool {
        if errno == EINTR { return true }
        guard errno == EAGAIN else { return false }
        var descriptor = pollfd(fd: file.number, events: CShort(event), revents: 0)
        return poll(&descriptor, 1, -1) >= 0 || errno == EINTR
    }

    /// Opened first, then looked at: the mode is that of what was read.
    ///
    /// - Returns: no mode for what is no regular file, such as a pipe.
    package static func read(_ path: [UInt8], bytesMax: Int) throws(LocalError) -> (content: [UInt8], mode: UInt16?) {
        let file = try Descriptor.named(path, O_RDONLY)
        guard let status = file.look(), let content = readAll(file, bytesMax: bytesMax) else { throw LocalError(path) }
        return (content, status.kind == .file ? status.mode & 0o777 : nil)
    }
}
