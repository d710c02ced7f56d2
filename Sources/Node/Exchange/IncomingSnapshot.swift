import Raft

/// How a snapshot of the leader's comes in: bounds on the pieces that the reader's thread has not taken in yet, and what is
/// told of its progress.
struct IncomingSnapshot {
    enum Verdict: Equatable {
        case take
        case refuse
        /// No sound sender has so many on their way.
        case tooFast
    }

    /// Of one connection; all together may have four times as many.
    static let piecesWaitingMax = 8
    /// How long a part of a snapshot is kept for a sender that may come back.
    static let keptFor: Nanoseconds = 600_000_000_000

    /// By their connection.
    private var waiting: [UInt64: Int] = [:]
    /// Bytes so far, and when the last of them came.
    private var progress: (bytes: UInt64, at: Nanoseconds)?

    /// Of the one that is being taken in; nil: there is none.
    var bytes: UInt64? { progress?.bytes }

    /// A piece has come: `take` hands it to the reader's thread, and `takenIn` follows.
    mutating func receive(_ piece: UInt32, bytes: Int, over connection: UInt64, now: Nanoseconds) -> Verdict {
        guard waiting[connection, default: 0] < Self.piecesWaitingMax else { return .tooFast }
        guard waiting.values.reduce(0, +) < 4 * Self.piecesWaitingMax else { return .refuse }
        waiting[connection, default: 0] += 1
        progress = ((piece == 0 ? 0 : progress?.bytes ?? 0) + UInt64(bytes), now)
        return .take
    }

    /// The reader's thread has done with a piece.
    ///
    /// - Parameter isOver: the snapshot is whole, or refused.
    mutating func takenIn(over connection: UInt64, isOver: Bool) {
        let left = waiting[connection, default: 0] - 1
        precondition(left >= 0, "a piece is taken in that never came: the bound on those that wait would not hold")
        waiting[connection] = left == 0 ? nil : left
        if isOver { progress = nil }
    }

    /// True once, when the sender comes back no more: what was kept of its snapshot may go.
    mutating func isForgotten(now: Nanoseconds) -> Bool {
        guard let progress, now - progress.at > Self.keptFor else { return false }
        self.progress = nil
        return true
    }
}
