import FileTree
import Glibc
import NIOCore
import Raft
import RaftLog
import Threads
import WireProtocol

/// The thread that reads everything a member keeps, and finds what rotted unread: each entry of the log by its checksum,
/// each row of the state by its own, content by its SHA-256, and by the state's digest a row that is missing or too many.
///
/// The state is read in one view, whose pages LMDB can't reuse meanwhile: at the usual rate, a GiB takes 16 s.
final class ScrubThread: Sendable {
    private struct Job: Sendable {
        /// Nil before the first commit.
        let environment: StateEnvironment?
        let entries: ClosedRange<Index>?
        /// Bytes a second; nil as fast as it goes.
        let rate: Int?
        let done: @Sendable (Verification, StateError?) -> Void
    }

    private let thread: OwnedThread<Job>
    private let loop: any EventLoop
    private let progress = WorkProgress()

    init(log: LogStore, loop: any EventLoop) {
        self.loop = loop
        let progress = progress
        thread = OwnedThread(name: "scrub") {
            (
                handle: { jobs in
                    for job in jobs { Self.run(job, log, progress) }
                }, finish: {}
            )
        }
    }

    /// Reads the last commit of `environment` and those entries of the log, and calls `done` on the loop's thread, also with
    /// what was wrong with the state.
    func scrub(
        _ environment: StateEnvironment?, entries: ClosedRange<Index>?, rate: Int?,
        done: @escaping @Sendable (Verification, StateError?) -> Void
    ) {
        let loop = loop
        thread.send(
            Job(environment: environment, entries: entries, rate: rate) { found, error in
                loop.execute { done(found, error) }
            })
    }

    /// Bytes that the scrub under way has read.
    var bytes: UInt64 { progress.bytes }

    /// What is under way is given up.
    func close() {
        progress.stop()
        thread.close()
    }

    private static func run(_ job: Job, _ log: LogStore, _ progress: WorkProgress) {
        let began = Clock.now
        var pace = Pace(rate: job.rate, progress)
        var found = Verification()
        var failure: StateError?
        if let environment = job.environment {
            do throws(StateError) { try read(environment, &found, &pace) } catch {
                failure = error
                found.damage = "the state: \(error)"
            }
        }
        if let entries = job.entries {
            do throws(LogError) { try read(entries, of: log, &found, &pace) } catch {
                var damage = "the log: \(error)"
                if case .corruptEntry(let index) = error {
                    found.damagedEntry = index
                    damage = "log entry \(index)"
                }
                found.damage = (found.damage.isEmpty ? "" : found.damage + "; ") + damage
            }
        }
        found.milliseconds = (Clock.now - began) / 1_000_000
        job.done(found, failure)
    }

    private static func read(
        _ environment: StateEnvironment, _ found: inout Verification, _ pace: inout Pace
    ) throws(StateError) {
        let view = try StateView(environment)
        (found.index, found.digest) = (view.applied.index, view.applied.digest.value)
        var audit = StateAudit()
        defer { (found.rows, found.bytes) = (audit.rows, audit.bytes) }
        try view.forEach { key, row throws(StateError) in
            try audit.add(key: key, row: row)
            pace.passed(key.byteCount + row.byteCount)
            if pace.isStopped { throw .store(ECANCELED) }
        }
        _ = try audit.finish()
    }

    /// In slices, each in a view of its own: the log is compacted and written meanwhile.
    private static func read(
        _ entries: ClosedRange<Index>, of log: LogStore, _ found: inout Verification, _ pace: inout Pace
    ) throws(LogError) {
        var next = entries.lowerBound
        while next <= entries.upperBound {
            let (first, last) = (next, min(next + 63, entries.upperBound))
            do throws(LogError) {
                var bytes = 0
                try log.scan(from: first, through: last) { entry, _ in
                    bytes += Int(entry.header.size)
                    return entry.header.index < last
                }
                if found.firstEntry == 0 { found.firstEntry = first }
                found.lastEntry = last
                next = last + 1
                pace.passed(bytes)
                if pace.isStopped { throw .store(ECANCELED) }
            } catch {
                // What was compacted meanwhile is no loss: on behind it.
                let compacted = try log.compactedIndex()
                guard case .corruptEntry(let index) = error, index <= compacted else { throw error }
                next = compacted + 1
            }
        }
    }
}
