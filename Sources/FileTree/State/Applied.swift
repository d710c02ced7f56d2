/// What was executed, kept in the same transaction as the data. The row's value, before its checksum:
///
///     0   2  format of the state: 1
///     2   2  cluster version
///     4   4  zero
///     8   8  index          16  8  term
///     24  8  log time: milliseconds of leadership
///     32  8  the next inode
///     40 16  digest
///     56  8  files          64  8  bytes of their contents     72  8  unlinked directories to reclaim
package struct Applied: Equatable, Sendable {
    /// The format of the rows that this version reads and writes.
    package static let stateFormat: UInt16 = 1
    /// The highest cluster version whose commands and rules of execution this program knows.
    ///
    /// 1: the tree. 2: sessions. 3: the digest by a faster hash. 4: sessions have owners, and modes are no wider than what
    /// they may say. 5: mode and time of an entry
    /// without its content; writes of no session that take effect once.
    package static let clusterVersionMax: UInt16 = 5
    static let byteCount = 80

    /// Which commands and which rules of execution are in force; the leader raises it when every member knows them.
    package internal(set) var clusterVersion: UInt16 = 1
    package var index: UInt64 = 0
    package var term: UInt64 = 0
    package var logTime: UInt64 = 0
    var nextInode: UInt64 = FileTreeLimits.rootInode + 1
    package var digest = StateDigest()
    package var files: UInt64 = 0
    package var bytes: UInt64 = 0
    package var orphans: UInt64 = 0

    init() {}

    /// - Parameter knownVersion: the highest cluster version that the reader knows.
    init(row: RawSpan, knownVersion: UInt16 = Self.clusterVersionMax) throws(StateError) {
        guard row.byteCount == Self.byteCount, row.bigEndian(at: 0, as: UInt16.self) == Self.stateFormat else {
            throw .unknownFormat
        }
        clusterVersion = row.bigEndian(at: 2, as: UInt16.self)
        guard clusterVersion <= knownVersion else { throw .unknownFormat }
        index = row.bigEndian(at: 8, as: UInt64.self)
        term = row.bigEndian(at: 16, as: UInt64.self)
        logTime = row.bigEndian(at: 24, as: UInt64.self)
        nextInode = row.bigEndian(at: 32, as: UInt64.self)
        digest = StateDigest(row.bigEndian(at: 40, as: UInt128.self))
        files = row.bigEndian(at: 56, as: UInt64.self)
        bytes = row.bigEndian(at: 64, as: UInt64.self)
        orphans = row.bigEndian(at: 72, as: UInt64.self)
    }

    func write(to row: UnsafeMutableRawBufferPointer) {
        row.storeBigEndian(Self.stateFormat, at: 0)
        row.storeBigEndian(clusterVersion, at: 2)
        row.storeBigEndian(UInt32(0), at: 4)
        row.storeBigEndian(index, at: 8)
        row.storeBigEndian(term, at: 16)
        row.storeBigEndian(logTime, at: 24)
        row.storeBigEndian(nextInode, at: 32)
        row.storeBigEndian(digest.value, at: 40)
        row.storeBigEndian(files, at: 56)
        row.storeBigEndian(bytes, at: 64)
        row.storeBigEndian(orphans, at: 72)
    }
}

/// Bounds that every member must agree on, since they decide what a command does.
package enum FileTreeLimits {
    static let rootInode: UInt64 = 1
    /// Content up to here stands in the entry's row: a small config file is one row on one page.
    package static let inlineBytesMax = 1024
    /// The largest content that one command carries.
    package static let contentBytesMax = 1 << 20
    /// The longest command: the largest content, with a path, or two paths, and what stands around them.
    package static let commandBytesMax = contentBytesMax + (16 << 10)
    /// The most entries that one page of a listing shows.
    package static let listEntriesMax: UInt32 = 4096
    /// A page of a listing ends before it would grow beyond this.
    static let listBytesMax = 256 << 10
    /// The most sessions; one of whoever has the most makes room for another.
    package static let sessionsMax = 16_384
    /// A session that was idle for so long, in log time, ends.
    package static let sessionIdleMillisecondsMax: UInt64 = 3_600_000
    /// The most sequences of a session between the lowest that is unanswered and the highest.
    package static let unansweredMax: UInt64 = 1024
    /// The most answers that are kept to writes of no session.
    package static let oneTimeWritesMax = 131_072
    /// How far from now, in log time, the end of such a write may lie.
    package static let oneTimeMillisecondsMax: UInt64 = 600_000
    /// The most rows that one reclaiming command removes, so that it keeps nobody waiting.
    package static let reclaimRowsMax: UInt32 = 512
}
