import BanyanClient

/// A file or a directory, and what is to be said of it.
package struct MirrorNote: Sendable, Equatable {
    /// As it is called on its side. Bytes: names of this machine's files need not be UTF-8.
    package let path: [UInt8]
    package let reason: String

    package init(_ path: [UInt8], _ reason: String) {
        self.path = path
        self.reason = reason
    }

    static let isNoFile = "it is neither a file nor a directory"
    static let vanished = "it was removed meanwhile"
}

/// What a mirror did.
package struct MirrorSummary: Sendable {
    /// Made: those that were there are not counted.
    package var directories = 0
    /// Copied.
    package var files = 0
    package var bytes: UInt64 = 0
    /// The same size, modification time and mode on both sides.
    package var unchanged = 0
    /// Files and directories of which the mode alone was set.
    package var modes = 0
    /// What is not mirrored, being neither file nor directory.
    package var skipped: [MirrorNote] = []
    /// What was there when it was listed, and no more when it was to be copied.
    package var vanished: [MirrorNote] = []
    /// What was copied, but for something that could not be.
    package var remarks: [MirrorNote] = []
    package var failures: [MirrorNote] = []
    /// Why nothing more was begun: the cluster can't be reached, or has no majority.
    package var stopped: BanyanError?

    mutating func note(_ error: LocalError) {
        if error.isVanished {
            vanished.append(MirrorNote(error.path, MirrorNote.vanished))
        } else {
            failures.append(MirrorNote(error.path, error.reason))
        }
    }
}
