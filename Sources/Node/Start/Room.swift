import Glibc
import Raft

/// Whether there is room again on a disk that filled up in the midst of a commit.
///
/// What is free by the system's word may be another user's, or beyond a quota: so it is tried as well, with bytes that go again.
package struct Room {
    private let directory: String
    private let bytes: UInt64
    private var triedAt: Nanoseconds?

    /// What a member must be able to write when it starts again; of a small disk, a part.
    private static let bytesMax: UInt64 = 32 << 20
    /// A try that failed is repeated no sooner.
    private static let pause: Nanoseconds = 5_000_000_000

    init(in directory: String) {
        self.directory = directory
        var status = statvfs()
        let disk = statvfs(directory, &status) == 0 ? UInt64(status.f_blocks) * UInt64(status.f_frsize) : 0
        bytes = min(Self.bytesMax, disk / 20)
    }

    /// Comes back when there is room.
    package static func wait(in directory: String) async throws {
        var room = Room(in: directory)
        while !room.isThere(now: Clock.now) { try await Task.sleep(for: .seconds(1)) }
    }

    /// To be asked again and again.
    mutating func isThere(now: Nanoseconds) -> Bool {
        var status = statvfs()
        guard statvfs(directory, &status) == 0, UInt64(status.f_bavail) * UInt64(status.f_frsize) >= bytes else {
            return false
        }
        if let triedAt, now - triedAt < Self.pause { return false }
        triedAt = now
        return canWrite()
    }

    private func canWrite() -> Bool {
        let path = directory + "/snapshot"
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard file >= 0 else { return false }
        unlink(path)
        defer { close(file) }
        // What compresses would take no room.
        var generator = SystemRandomNumberGenerator()
        let piece = (0..<(64 << 10) / 8).map { _ in generator.next() as UInt64 }
        var written: UInt64 = 0
        while written < bytes {
            let count = piece.withUnsafeBytes { pwrite(file, $0.baseAddress, $0.count, off_t(written)) }
            guard count > 0 else { return false }
            written += UInt64(count)
        }
        return fsync(file) == 0
    }
}
