import Console
import Foundation
import LoadGenerator
import Synchronization

/// A line on the terminal that tells how far the load is; nothing when standard error is no terminal.
final class LiveLine: Sendable {
    private let line = ProgressLine()
    /// How many were acknowledged in the parts of the present second.
    private let operations = Mutex(0)
    /// A terminal that is held (Ctrl-S) must not hold the load.
    private let queue = DispatchQueue(label: "live line")

    @Sendable func filling(_ files: Int) { show("\(files) files written") }

    @Sendable func part(_ part: LoadResult.Second) {
        let count = operations.withLock { operations in
            operations += part.operations
            return operations
        }
        // Parts are tenths of a second, or whole ones.
        guard part.length >= 1 || Int((part.second * 10).rounded()) % 10 == 0 else { return }
        operations.withLock { $0 = 0 }
        let second = part
        let leader = second.leader == 0 ? "no leader" : "leader \(second.leader)"
        let errors = second.errors == 0 ? "" : "  \(second.errors) errors"
        let latency = second.p50.map { "p50 \($0) ms  p99 \(second.p99 ?? 0) ms" } ?? "nothing acknowledged"
        show("\(Int(second.second)) s  \(count)/s  \(latency)  " + leader + errors)
    }

    func end() {
        queue.sync { line.clear() }
    }

    private func show(_ text: String) {
        guard line.isShown else { return }
        queue.async { [line] in line.show(text) }
    }
}
