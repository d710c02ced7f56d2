import Driver
import Raft

extension StateExchange {
    /// A copy of the state without its empty pages, which somebody asked for.
    struct Copy {
        let waiter: Waiter
        /// The copy's directory, and that of the state it is made from.
        let number: UInt64
        let original: UInt64
        let began: Nanoseconds
        let bytesBefore: UInt64
        /// What the copy has, durably, or will have at the least.
        var copied: Index
    }

    /// Another member's state, to take the place of a damaged one.
    struct Replacement {
        let metadata: SnapshotMetadata
        let number: UInt64
        /// Called with why it won't do, or with nil once it is in use. Its directory is this member's to remove then.
        let settled: @Sendable (String?) -> Void
    }

    /// What is to be done.
    enum Action {
        /// The copy is to execute what it lacks.
        case catchUp(UInt64)
        /// The log is to name this state as the member's: `named` follows.
        case name(UInt64)
        /// The state thread is to go on with this copy.
        case adopt(UInt64)
        /// The state thread is to go on with the replacement, and all that was made from the state before is of no use.
        case replace(Replacement)
        /// Nothing refers to this state.
        case remove(UInt64)
        /// Whoever asked for the copy is told; nil: it is in use.
        case endCopy(Copy, failure: String?)
        case decline(Replacement, reason: String)
        /// What is wrong with the copy is wrong with what it was made from.
        case scrub
    }
}
