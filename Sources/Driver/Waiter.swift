import NIOCore
import Raft

/// Who waits for an answer.
package struct Waiter: Equatable, Sendable {
    package var connection: UInt64
    package var requestID: UInt64
    package var isRead: Bool
    /// Of a read: how long its answer may be.
    package var answerBytesMax = 0

    package init(connection: UInt64, requestID: UInt64, isRead: Bool = false) {
        (self.connection, self.requestID, self.isRead) = (connection, requestID, isRead)
    }
}

/// A read on its way, and who waits for it.
package struct PendingRead: Sendable {
    package enum Kind: Equatable, Sendable {
        case linearizable
        case lease
        /// It may miss something: the greatest age in milliseconds, 0 for any.
        case stale(ageMax: UInt32)
        /// Everything that it may not miss was executed before.
        case settled
        /// No query: the client wants a snapshot.
        case snapshot
        /// A piece of the snapshot that this connection has.
        case piece(UInt32)
    }

    package var kind: Kind
    package var waiter: Waiter
    package var query: ByteBuffer
    /// When nobody waits any more, in nanoseconds.
    package var deadline: Nanoseconds
    /// How long its answer may be, if that is known.
    package var answerBytesMax: Int?

    package init(
        kind: Kind, waiter: Waiter, query: ByteBuffer, deadline: Nanoseconds, answerBytesMax: Int? = nil
    ) {
        (self.kind, self.waiter, self.query, self.deadline) = (kind, waiter, query, deadline)
        self.answerBytesMax = answerBytesMax
    }

    /// What it holds while it waits.
    package var heldBytes: Int { query.readableBytes + 256 }
}
