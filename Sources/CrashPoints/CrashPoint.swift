import Glibc
import Synchronization

/// The steps between two durable states. A process ends at one of them, as if by SIGKILL, when the environment says so:
/// `BANYAN_CRASH_AT=log-commit-after:3` ends it when it has committed to its log for the third time. Tests use it to show
/// that a member comes back from each; without the variable a point costs one comparison.
package enum CrashPoint: String, CaseIterable, Sendable {
    case fileMade = "file-made"
    case fileNamed = "file-named"
    case logMade = "log-made"
    case identityBefore = "identity-before"
    case identityAfter = "identity-after"
    case foundBefore = "found-before"
    case foundAfter = "found-after"
    case stateMade = "state-made"
    case stateOpened = "state-opened"

    case logCommitBefore = "log-commit-before"
    case logCommitAfter = "log-commit-after"
    case compactionBefore = "compaction-before"
    case compactionAfter = "compaction-after"
    case stateCommitBefore = "state-commit-before"
    case stateCommitAfter = "state-commit-after"

    case spoolMade = "spool-made"
    case spoolWritten = "spool-written"

    case importStep = "import-step"
    case importCommitBefore = "import-commit-before"
    case importCommitAfter = "import-commit-after"
    case receivedBeforeSync = "received-before-sync"
    case receivedAfterSync = "received-after-sync"
    case switchBefore = "switch-before"
    case switchAfter = "switch-after"
    case rewriteBeforeSync = "rewrite-before-sync"
    case rewriteCopied = "rewrite-copied"
    case rewriteAdopted = "rewrite-adopted"
    case damageMarkBefore = "damage-mark-before"
    case damageMarked = "damage-marked"
    case fetchedBeforeSync = "fetched-before-sync"
    case fetchedAfterSync = "fetched-after-sync"
    case damageUnmarkBefore = "damage-unmark-before"
    case damageUnmarked = "damage-unmarked"
    case repairBefore = "repair-before"
    case repairAfter = "repair-after"
    case stateRemoveBefore = "state-remove-before"
    case stateRemovePart = "state-remove-part"
    case stateRemoveAfter = "state-remove-after"

    package static let variable = "BANYAN_CRASH_AT"

    private static let chosen: CrashPoint? = getenv(variable).flatMap {
        String(cString: $0).split(separator: ":").first.flatMap { CrashPoint(rawValue: String($0)) }
    }
    private static let passes = Atomic<Int>(
        getenv(variable).flatMap { String(cString: $0).split(separator: ":").dropFirst().first.flatMap { Int($0) } }
            ?? 1)

    /// To be called where the step is.
    package func reach() {
        guard Self.chosen == self, Self.passes.subtract(1, ordering: .relaxed).newValue == 0 else { return }
        kill(getpid(), SIGKILL)
    }
}
