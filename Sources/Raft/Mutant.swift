/// A fault that can be planted in a core, or in what drives it, to show that the simulator would notice it. Nothing but
/// the simulator ever plants one.
package enum Mutant: String, CaseIterable, Sendable {
    /// Acknowledgements of entries leave before the entries are on the disk.
    case acknowledgedBeforeSync = "acknowledged-before-sync"
    /// Votes leave before they are on the disk.
    case voteNotSaved = "vote-not-saved"
    /// An entry of an earlier term is committed by counting its copies (figure 8 of the paper).
    case oldTermCommitted = "old-term-committed"
    /// A leader begins its term without an entry of its own, and reads at the commit index that it happens to know.
    case noNoOperation = "no-no-op"
    /// A committed entry is executed before it is on this member's own disk.
    case appliedBeforeSync = "applied-before-sync"
    /// A leader answers reads without asking whether it still leads.
    case unconfirmedRead = "unconfirmed-read"
    /// What follows a snapshot's index in the old log stays, whether it fits or not.
    case conflictingTailKept = "conflicting-tail-kept"
    /// The commit index is not saved with what it covers.
    case commitNotSaved = "commit-not-saved"
    /// A vote is given whatever the candidate's log lacks.
    case staleLogElected = "stale-log-elected"
}
