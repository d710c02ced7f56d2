import CrashPoints
import FileTree
import Glibc
import LMDB

/// What is wrong with a member's state. While another is fetched, the file `damaged` says so, in words: the kind, a colon, a
/// space, and what was found.
struct StateDamage: Sendable {
    /// From the mildest on.
    enum Kind: Int, CaseIterable, Sendable {
        /// Rows are damaged, and are refused when they are read; others are served.
        case rotten
        /// A command met a damaged row: nothing more is executed, and what was committed last is there for reads that may miss
        /// something.
        case stopped
        /// Nobody knows which rows are wrong: nothing is served.
        case wrong
        /// The log holds what the cluster never decided, and the state has executed it: both begin anew behind a snapshot.
        case contradicted
    }

    var kind: Kind
    var reason: String

    init(kind: Kind, reason: String) {
        self.kind = kind
        self.reason = reason
    }

    /// What was found when the state was read.
    init(_ error: StateError) {
        if case .corruptRow = error { kind = .rotten } else { kind = .wrong }
        reason = "\(error)"
    }

    // MARK: the mark

    private static func path(in directory: String) -> String { directory + "/damaged" }

    /// Leaves word in the directory, for the member's next life.
    func mark(_ directory: String) throws {
        let file = open(Self.path(in: directory), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw StartError("\(directory): can't be written", code: errno) }
        defer { close(file) }
        let bytes = Array("\(kind): \(reason)".utf8)
        let isWritten = bytes.withUnsafeBytes { write(file, $0.baseAddress, $0.count) } == bytes.count
        CrashPoint.damageMarkBefore.reach()
        guard isWritten, fsync(file) == 0 else { throw StartError("\(directory): can't be written", code: errno) }
        CrashPoint.damageMarked.reach()
        try DataDirectory.sync(directory)
    }

    /// What an earlier life left word of.
    static func marked(_ directory: String) -> StateDamage? {
        let file = open(path(in: directory), O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 1024)
        let count = max(0, read(file, &bytes, bytes.count))
        let parts = String(decoding: bytes[..<count], as: UTF8.self).split(separator: ": ", maxSplits: 1)
        // A mark that was not written to its end is one of the worst kind.
        let kind = Kind.allCases.first { "\($0)" == parts.first ?? "" } ?? .wrong
        // What stopped the last life will stop this one, when it comes to the same command.
        return StateDamage(
            kind: kind == .stopped ? .rotten : kind, reason: parts.count > 1 ? String(parts[1]) : "found before")
    }

    static func unmark(_ directory: String) throws {
        CrashPoint.damageUnmarkBefore.reach()
        guard unlink(path(in: directory)) == 0 else { return }
        CrashPoint.damageUnmarked.reach()
        try DataDirectory.sync(directory)
    }
}

extension StateError {
    /// Whether bits rotted, so that another copy helps; else the disk fails, or the program is too old.
    var isDamage: Bool {
        switch self {
        case .corruptRow, .wrongDigest: true
        case .store(let code): LMDBError(code: code).isDamage
        case .unknownFormat, .wrongIndex, .damagedEntry: false
        }
    }
}
