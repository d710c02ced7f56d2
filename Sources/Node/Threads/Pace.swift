import Glibc
import Synchronization

/// How far a thread's long work has come, for whoever asks meanwhile.
final class WorkProgress: Sendable {
    private let count = Atomic<UInt64>(0)
    private let isEnding = Atomic<Bool>(false)

    var bytes: UInt64 { count.load(ordering: .relaxed) }

    /// Whether the work is to be given up, since the member ends.
    var isStopped: Bool { isEnding.load(ordering: .relaxed) }
    func stop() { isEnding.store(true, ordering: .relaxed) }

    func begin() { count.store(0, ordering: .relaxed) }
    func add(_ bytes: Int) { count.add(UInt64(bytes), ordering: .relaxed) }
}

/// Rests so that a thread's long work on the disk leaves room for everybody else's.
struct Pace {
    /// Bytes a second; nil as fast as it goes.
    let rate: Int?
    private let progress: WorkProgress
    /// Whether the work is to be given up.
    var isStopped: Bool { progress.isStopped }
    private var bytes = 0

    init(rate: Int?, _ progress: WorkProgress) {
        self.rate = rate
        self.progress = progress
        progress.begin()
    }

    /// Takes note of what was read or written, and rests for it every 20 ms of work or so.
    mutating func passed(_ count: Int) {
        progress.add(count)
        guard let rate else { return }
        bytes += count
        guard bytes >= max(1, rate / 50) else { return }
        let seconds = Double(bytes) / Double(max(1, rate))
        bytes = 0
        // In pieces, so that the thread ends soon when it is to end.
        var rest = seconds
        while rest > 0, !progress.isStopped {
            usleep(UInt32(min(rest, 0.02) * 1_000_000))
            rest -= 0.02
        }
    }
}
