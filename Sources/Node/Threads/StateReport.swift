import FileTree
import NIOCore
import Raft

/// What the state thread tells the loop after each batch.
struct StateReport: Sendable {
    var applied: Applied
    var durableIndex: Index
    /// Answers that are kept to writes of no session.
    var oneTimeWrites = 0
    /// What the digest was at indexes that all members remember.
    var digests: [(index: Index, digest: UInt128)] = []
    /// A row that was read, and is damaged.
    var damage: StateError?
    /// When it was measured anew.
    var usage: DiskUsage?
    /// What 999 of 1,000 requests waited for the state thread at most of late, in microseconds.
    var wait: UInt64 = 0
    /// Where snapshots are made from.
    var environment: StateEnvironment
    /// For each connection once.
    var answers: [Answers] = []

    /// Whole frames, how many answers they hold, and how many of those are to reads.
    struct Answers: Sendable {
        let connection: UInt64
        var frames = ByteBuffer()
        var count = 0
        var reads = 0
        /// Of the longest answer to a read.
        var readBytesMax = 0
        /// What those reads may have answered.
        var reservedBytes = 0
        /// Reads whose answer would have been longer than they may: to be asked again with more room.
        var tooLong: [StateThread.Read] = []
    }
}
