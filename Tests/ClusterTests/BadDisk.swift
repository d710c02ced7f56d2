import Foundation

/// The disk of one member, which does what the test says while the member runs: see Tests/CBadDisk.
final class BadDisk {
    /// In the order in which the library counts them.
    private enum Field: Int {
        case syncMilliseconds, stall, error, isFull, room, waiting, syncs, refused
    }

    enum Stall: UInt64 { case none, syncs, writes }

    private let file: Int32
    private let path: String
    private let directory: String

    init(for directory: String, control path: String) throws {
        self.path = path
        // The library compares names as the system gives them.
        let above = URL(fileURLWithPath: directory).deletingLastPathComponent().resolvingSymlinksInPath()
        self.directory = above.appendingPathComponent(URL(fileURLWithPath: directory).lastPathComponent).path
        file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0o600)
        guard file >= 0, ftruncate(file, 64) == 0 else {
            throw TestCluster.Failure(description: "\(path) can't be made")
        }
    }

    deinit { close(file) }

    /// What a program is started with whose disk this is.
    func environment() throws -> [String: String] {
        let library = try TestCluster.program("libbanyan-bad-disk.so")
        return ["LD_PRELOAD": library.path, "BANYAN_BAD_DISK": directory, "BANYAN_BAD_DISK_CONTROL": path]
    }

    private func set(_ field: Field, _ value: UInt64) {
        var value = value
        let count = pwrite(file, &value, 8, field.rawValue * 8)
        precondition(count == 8, "the control file of a disk can't be written")
    }

    private func value(of field: Field) -> UInt64 {
        var value: UInt64 = 0
        let count = pread(file, &value, 8, field.rawValue * 8)
        precondition(count == 8, "the control file of a disk can't be read")
        return value
    }

    /// Each sync takes so much longer.
    func slow(by milliseconds: Int) { set(.syncMilliseconds, UInt64(milliseconds)) }

    /// Stands still from now on, or goes on.
    func stall(_ stall: Stall = .syncs) { set(.stall, stall.rawValue) }
    func goOn() { set(.stall, 0) }

    /// All that changes something fails; nil: no more.
    func fail(_ error: Int32?) { set(.error, UInt64(error ?? 0)) }

    /// No more than this can be written to new places; nil: there is room again.
    func fill(leaving room: UInt64?) {
        if let room { set(.room, room) }
        set(.isFull, room == nil ? 0 : 1)
    }

    /// Calls that stand still now.
    var waiting: UInt64 { value(of: .waiting) }
    /// Syncs that were begun while the disk was bad.
    var syncs: UInt64 { value(of: .syncs) }
    /// Calls that failed.
    var refused: UInt64 { value(of: .refused) }
}
