import NIOCore
import Raft

/// What a driver wants done, in the order in which it is to be done.
package enum Action {
    /// Write this to the log, with the records of `write.entries`; `Event.saved` answers it. Writes complete in the order of
    /// their numbers.
    case save(Write, records: [ByteBuffer])
    /// Send it at once, with the records of its entries. It may be lost.
    case send(Message, records: [ByteBuffer])
    /// The same, of a message that tells what is on this member's disk: by now it is.
    case promise(Message)
    /// Execute the commands from `first` on, and tell each waiter what its command came to; `Driver.executed` answers it.
    case execute(first: Index, records: [ByteBuffer], waiters: [Waiter?])
    /// Execute entries that the window has no records of: they are in the log.
    case replay(ClosedRange<Index>)
    /// Everything that these reads may not miss is to be executed by now.
    case serve([PendingRead])
    /// These reads found no leader, or no lease.
    case refuse([PendingRead], ReadRefusal)
    /// Nothing was proposed for these waiters.
    case decline([Waiter], ProposalRefusal)
    /// Nothing was proposed for these waiters, whose time had passed.
    case expire([Waiter])
    /// The leader that proposed these waiters' commands leads no more: they may be executed, or not.
    case abandon([Waiter])
    /// Read entries from the log for a peer; `Driver.entriesRead` answers it.
    case readEntries(EntriesRequest)
    /// Send the state to a peer; `Event.snapshotEnded` answers it.
    case sendSnapshot(PeerID)
    /// A peer says what no sound member does.
    case report(Offence)
}

package enum ReadRefusal: Equatable, Sendable { case noLeader, noLease }

extension Event {
    /// Whether what was wanted before belongs to the log as it was: a newer leader's message may change it, and so may a
    /// snapshot.
    func endsWhatWasWanted(in term: Term) -> Bool {
        switch self {
        case .message(let message):
            if case .installSnapshot = message.body { true } else { message.term > term }
        case .stateReplaced: true
        default: false
        }
    }
}
