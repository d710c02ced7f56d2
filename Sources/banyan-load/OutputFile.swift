import Console
import Glibc

/// A file for what is measured, opened before it is: after an hour's load it is too late to learn that it can't be written.
/// What is there stays until the end; a file that was made for nothing goes.
final class OutputFile {
    private let path: String
    private let descriptor: Int32
    private let isNew: Bool
    private var isWritten = false

    /// - Parameter path: - is standard output.
    init(_ path: String) throws {
        self.path = path
        guard path != "-" else {
            (descriptor, isNew) = (STDOUT_FILENO, false)
            return
        }
        let there = open(path, O_WRONLY | O_CLOEXEC)
        isNew = there < 0 && errno == ENOENT
        descriptor = isNew ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o666) : there
        guard descriptor >= 0 else { throw Self.failure(path) }
    }

    deinit {
        guard !isStandardOutput, descriptor >= 0 else { return }
        close(descriptor)
        if isNew, !isWritten { unlink(path) }
    }

    var isStandardOutput: Bool { path == "-" }

    func write(_ text: String) throws {
        isWritten = true
        if isStandardOutput { return try Console.print(text) }
        // A pipe or a device has no length.
        if ftruncate(descriptor, 0) != 0, errno != EINVAL { throw Self.failure(path) }
        var rest = Array((text + "\n").utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            guard count >= 0 || errno == EINTR else { throw Self.failure(path) }
            rest = rest.dropFirst(max(0, count))
        }
    }

    private static func failure(_ path: String) -> CommandFailure {
        CommandFailure("\(path): can't be written: \(String(cString: strerror(errno)))")
    }
}
