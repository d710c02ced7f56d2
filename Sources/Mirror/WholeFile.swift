import Glibc

/// A long file that the user named: it is written beside its place, and takes it when it is whole and durable. What is left
/// unfinished goes, at an error and when a signal ends the process.
package final class WholeFile {
    /// As the user named it; where that is a link, what it leads to.
    private let path: [UInt8]
    private let directory: Descriptor
    private let file: TemporaryFile

    /// - Throws: an error of the system's; what is there and is no file stays, and a link that leads nowhere is none.
    package init(_ named: [UInt8]) throws(LocalError) {
        let path = try Self.followed(named)
        let (above, _) = LocalFile.place(of: path)
        // To write into a directory one need not be able to read it.
        if let readable = try? Descriptor.named(above) {
            directory = readable
            TemporaryFile.clear(directory)
        } else {
            directory = try Descriptor.named(above, Descriptor.isPlace | O_DIRECTORY)
        }
        file = try TemporaryFile(in: directory, for: path)
        self.path = path
    }

    private static func followed(_ named: [UInt8]) throws(LocalError) -> [UInt8] {
        var info = stat()
        guard lstat(cString(named), &info) == 0 else {
            guard errno == ENOENT, named.last != UInt8(ascii: "/") else { throw LocalError(named) }
            return named
        }
        guard stat(cString(named), &info) == 0 else { throw LocalError(named) }
        switch FileStatus(info).kind {
        case .file: break
        case .directory: throw LocalError(named, code: EISDIR)
        case .other: throw LocalError(named, code: ENXIO)
        }
        guard let real = realpath(cString(named), nil) else { throw LocalError(named) }
        defer { free(real) }
        return Array(UnsafeBufferPointer(start: real, count: strlen(real))).map { UInt8(bitPattern: $0) }
    }

    /// Where what was written so far can be read, while this value lives.
    package var readablePath: String { "/proc/self/fd/\(file.file.number)" }

    package func write(_ bytes: [UInt8]) throws(LocalError) {
        guard LocalFile.writeAll(bytes, to: file.file) else { throw LocalError(path) }
    }

    package func sync() throws(LocalError) {
        guard fsync(file.file.number) == 0 else { throw LocalError(path) }
    }

    /// Takes the place. A directory that can't be synced may forget that in a power cut, and no sooner.
    package func finish() throws(LocalError) {
        guard file.rename(to: LocalFile.place(of: path).name) else { throw LocalError(path) }
        fsync(directory.number)
    }
}

extension LocalFile {
    /// Lets `body` read the file by a path that is text, whatever bytes its own has.
    package static func reading<Result>(_ path: [UInt8], _ body: (String) throws -> Result) throws -> Result {
        let file = try Descriptor.named(path, O_RDONLY)
        return try withExtendedLifetime(file) { try body("/proc/self/fd/\(file.number)") }
    }
}
