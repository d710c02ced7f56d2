import CrashPoints
import Dispatch
import LMDB
import Raft
import Synchronization
import Threads

/// The thread that writes a state's changed rows: each buffer in one transaction with one sync.
///
/// A transaction that failed is never tried again: nothing is known of what reached the disk.
final class StateFlusher {
    private let thread: OwnedThread<OverlayStore.Changes>
    private let outcome: Outcome

    /// What the thread leaves for the one that waits.
    private final class Outcome: Sendable {
        let done = DispatchSemaphore(value: 0)
        let result = Mutex<Result<Nanoseconds, StateError>>(.success(0))
    }

    init(_ state: StateEnvironment) {
        let outcome = Outcome()
        self.outcome = outcome
        thread = OwnedThread(name: "state-flush") {
            (
                handle: { batches in
                    for changes in batches {
                        let result = Self.write(changes, to: state)
                        outcome.result.withLock { $0 = result }
                        outcome.done.signal()
                    }
                }, finish: {}
            )
        }
    }

    private var isLeft = false

    /// What was begun is over then, and the environment free to be opened anew: LMDB forbids a process to have it open twice.
    deinit { if !isLeft { thread.close() } }

    /// Whoever lets this go must not wait for its disk, and never opens its environment again.
    func leave() {
        isLeft = true
        thread.leave()
    }

    func begin(_ changes: OverlayStore.Changes) { thread.send(changes) }

    /// Once for each `begin`: the time that it took, when its changes are durable; nil while they are not.
    func end(waiting: Bool) throws(StateError) -> Nanoseconds? {
        guard outcome.done.wait(timeout: waiting ? .distantFuture : .now()) == .success else { return nil }
        return try outcome.result.withLock { $0 }.get()
    }

    private static func write(_ changes: OverlayStore.Changes, to state: StateEnvironment) -> Result<
        Nanoseconds, StateError
    > {
        let began = ContinuousClock.now
        do throws(LMDBError) {
            var transaction = try state.environment.beginWrite()
            var position = changes.start
            while let change = changes[position] {
                if let row = change.value.row {
                    try transaction.put(change.key.span.bytes, row.span.bytes, in: state.database)
                } else {
                    try transaction.delete(change.key.span.bytes, in: state.database)
                }
                position = changes.position(after: position)
            }
            CrashPoint.stateCommitBefore.reach()
            try transaction.commit()
            CrashPoint.stateCommitAfter.reach()
        } catch {
            return .failure(.store(error.code))
        }
        let elapsed = (ContinuousClock.now - began).components
        return .success(UInt64(elapsed.seconds) * 1_000_000_000 + UInt64(elapsed.attoseconds / 1_000_000_000))
    }
}
