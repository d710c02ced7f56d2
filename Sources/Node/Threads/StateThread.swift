import Driver
import FileTree
import Glibc
import NIOCore
import Raft
import RaftLog
import Threads
import WireProtocol

/// The thread that owns the state environment's writes: it executes committed commands, and linearizable reads between
/// them, and commits now and then.
///
/// The log is the write-ahead log of the state: after a crash the entries behind the last commit are executed again.
///
/// When a command or a flush meets damage it executes nothing more, until another state takes the place of this one: what
/// waits is refused, and of what was committed last only reads are answered that may miss something.
final class StateThread: Sendable {
    /// All members remember their digests at the same indexes.
    static let indexesBetweenDigests: Index = 4096

    enum Work: Sendable {
        /// Execute these records, the first of which has index `first`. `waiters` are as many, or none.
        case apply(first: Index, records: [ByteBuffer], waiters: [Waiter?])
        /// Execute entries that are no longer in memory.
        case replay(ClosedRange<Index>)
        case read([Read])
        /// Time went on.
        case tick
        /// Another state took the place of this one: go on with the one in this directory.
        case replace(path: String)
        /// Go on with this copy of the state, which lacks the log's last entries.
        case adopt(path: String)

        /// How many clients' requests it is.
        var requests: Int {
            switch self {
            case .apply(_, _, let waiters): waiters.count { $0 != nil }
            case .read(let reads): reads.count
            default: 0
            }
        }
    }

    struct Read: Sendable {
        var query: ByteBuffer
        var waiter: Waiter
        /// It may miss anything that was written lately.
        var isStale: Bool
        var deadline: Nanoseconds
    }

    /// Work, and when it was sent.
    struct Item: Sendable {
        var work: Work
        var sent: Nanoseconds
    }

    private let thread: OwnedThread<Item>

    /// Opens the state in `path` on the new thread.
    ///
    /// - Parameters:
    ///   - member: the member's id.
    ///   - isStopped: execute nothing before another state takes the place of this one.
    ///   - opened: called once with what was applied before, before any report, or with why it can't be opened.
    ///   - failed: the state is damaged or its disk failed; nothing more is executed.
    init(
        path: String, log: LogStore, knownVersion: UInt16, member: UInt64, isStopped: Bool = false,
        opened: @escaping @Sendable (Result<StateReport, StateError>) -> Void,
        report: @escaping @Sendable (StateReport) -> Void, failed: @escaping @Sendable (StateError) -> Void
    ) {
        thread = OwnedThread(name: "state") {
            do throws(StateError) {
                let executor = StateExecutor(
                    tree: try DurableTree(path: path, knownVersion: knownVersion, member: member), log: log,
                    knownVersion: knownVersion, member: member, isStopped: isStopped, report: report, failed: failed)
                opened(.success(executor.report))
                return (
                    handle: { executor.run($0) },
                    // A clean end leaves nothing to execute again.
                    finish: { executor.commit() }
                )
            } catch {
                opened(.failure(error))
                return (handle: { _ in }, finish: {})
            }
        }
    }

    func send(_ work: Work) { thread.send(Item(work: work, sent: Clock.now)) }

    func close() { thread.close() }

    /// Lets the thread end by itself.
    func leave() { thread.leave() }
}
