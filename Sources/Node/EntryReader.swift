import NIOCore
import Raft
import RaftLog
import Threads
import WireProtocol

/// The thread for cold reads: entries that left the memory and that a lagging peer needs.
final class EntryReader: Sendable {
    private struct Job: Sendable {
        var request: EntriesRequest
        var done: @Sendable ([EntryRecord]) -> Void
    }

    private let thread: OwnedThread<Job>
    private let loop: any EventLoop

    init(store: LogStore, loop: any EventLoop) {
        self.loop = loop
        thread = OwnedThread(name: "reader") {
            (
                handle: { jobs in
                    for job in jobs {
                        var entries: [EntryRecord] = []
                        var bytes = 0
                        // A damaged entry ends what can be sent; the peer gets it from another member.
                        try? store.scan(from: job.request.first) { entry in
                            bytes += Int(entry.header.size)
                            guard entry.header.index <= job.request.last,
                                entries.isEmpty || bytes <= job.request.bytesMax
                            else { return false }
                            entries.append(entry)
                            return true
                        }
                        job.done(entries)
                    }
                }, finish: {}
            )
        }
    }

    /// `done` is called on the loop's thread.
    func read(_ request: EntriesRequest, done: @escaping @Sendable ([EntryRecord]) -> Void) {
        let loop = loop
        thread.send(Job(request: request) { entries in loop.execute { done(entries) } })
    }

    func close() { thread.close() }
}
