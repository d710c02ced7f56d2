import FileTree
import NIOCore
import Snapshots
import Threads

/// The thread that writes snapshots, one after the other: a scan of the whole state takes as long as it takes, and nothing
/// waits behind it but the next one.
final class SpoolThread: Sendable {
    private struct Job: Sendable {
        let environment: StateEnvironment
        let begun: @Sendable (Result<Spool, SnapshotError>) -> Void
    }

    private let thread: OwnedThread<Job>
    private let loop: any EventLoop
    private let progress = WorkProgress()

    init(directory: String, reserve: UInt64, loop: any EventLoop) {
        self.loop = loop
        let progress = progress
        thread = OwnedThread(name: "spool") {
            (
                handle: { jobs in
                    for job in jobs {
                        do throws(SnapshotError) { try Self.spool(job, in: directory, reserve, progress) } catch {
                            job.begun(.failure(error))
                        }
                    }
                }, finish: {}
            )
        }
    }

    /// Begins a snapshot of the last commit of `environment`; `begun` is called on the loop's thread as soon as it can be
    /// read from, and it grows from then on.
    func spool(_ environment: StateEnvironment, begun: @escaping @Sendable (Result<Spool, SnapshotError>) -> Void) {
        let loop = loop
        thread.send(Job(environment: environment) { result in loop.execute { begun(result) } })
    }

    /// What is under way is given up.
    func close() {
        progress.stop()
        thread.close()
    }

    private static func spool(
        _ job: Job, in directory: String, _ reserve: UInt64, _ progress: WorkProgress
    ) throws(SnapshotError) {
        let view: StateView
        do { view = try StateView(job.environment) } catch { throw .state(error) }
        let spool = try Spool(of: view, in: directory, reserve: reserve)
        job.begun(.success(spool))
        spool.fill(from: view, unless: { progress.isStopped })
    }
}
