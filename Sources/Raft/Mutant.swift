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
    /// A leader changes the membership before it has committed anything in its term.
    case changeBeforeNoOperation = "change-before-no-op"
    /// A configuration stays in force when its entry is truncated.
    case configurationNotUndone = "configuration-not-undone"
    /// A lease is believed in as if no time had passed since the last event, however long the process stood still.
    case leaseKeptAfterPause = "lease-kept-after-pause"
    /// A write of the log counts as complete when an entry of the same index and term is on the disk.
    case completionByIndexAndTerm = "completion-by-index-and-term"
    /// A read that is asked for again carries the same context as before.
    case contextReused = "context-reused"
    /// A follower keeps the records of entries that a leader overwrites.
    case overwrittenRecordsKept = "overwritten-records-kept"
    /// A leader takes one step of reclaiming, and never another.
    case reclaimingNotRepeated = "reclaiming-not-repeated"
    /// The applied index reaches the disk apart from what was executed.
    case appliedOutsideTransaction = "applied-outside-transaction"
    /// A snapshot comes without the clients' sessions.
    case sessionsNotInSnapshot = "sessions-not-in-snapshot"
    /// A leader takes log time from its wall clock.
    case logTimeFromWallClock = "log-time-from-wall-clock"
    /// A voter whose disk was wiped goes on under its old name.
    case wipedVoter = "wiped-voter"
    /// A term is believed however far it leaps.
    case leapAdmitted = "leap-admitted"
    /// What a leader confirmed counts on beyond a truncation, and under another leader of the same term.
    case confirmedIndexKept = "confirmed-index-kept"
    /// A peer that is merely slow to answer is sent everything again.
    case lateAcknowledgementTakenForLoss = "late-acknowledgement-taken-for-loss"
    /// A goodbye ends a member for good, whoever says it.
    case goodbyeBelieved = "goodbye-believed"
    /// A restored cluster's revisions go on from the backup's last one.
    case revisionRepeatedAfterRestore = "revision-repeated-after-restore"
}
