import Foundation
import LoadGenerator

/// A line on the terminal that tells how far the load is; nothing when standard error is no terminal.
struct LiveLine: Sendable {
    private let isShown = isatty(STDERR_FILENO) == 1
    /// A terminal that is held (Ctrl-S) must not hold the load.
    private let queue = DispatchQueue(label: "live line")

    @Sendable func filling(_ files: Int) { show("\(files) files written") }

    @Sendable func second(_ second: LoadResult.Second) {
        let leader = second.leader == 0 ? "no leader" : "leader \(second.leader)"
        let errors = second.errors == 0 ? "" : "  \(second.errors) errors"
        let latency = second.p50.map { "p50 \($0) ms  p99 \(second.p99 ?? 0) ms" } ?? "nothing acknowledged"
        show("\(second.second) s  \(second.operations)/s  \(latency)  " + leader + errors)
    }

    func end() {
        show("")
        queue.sync {}
    }

    private func show(_ text: String) {
        guard isShown else { return }
        queue.async { FileHandle.standardError.write(Data("\r\u{1B}[K\(text)".utf8)) }
    }
}
