import Foundation
import LoadGenerator

/// A line on the terminal that tells how far the load is; nothing when standard error is no terminal.
struct LiveLine: Sendable {
    private let isShown = isatty(STDERR_FILENO) == 1

    @Sendable func filling(_ files: Int) { show("\(files) files written") }

    @Sendable func second(_ second: LoadResult.Second) {
        let leader = second.leader == 0 ? "no leader" : "leader \(second.leader)"
        let errors = second.errors == 0 ? "" : "  \(second.errors) errors"
        show(
            "\(second.second) s  \(second.operations)/s  p50 \(second.median) ms  p99 \(second.percentile99) ms  "
                + leader + errors)
    }

    func end() { if isShown { FileHandle.standardError.write(Data("\r\u{1B}[K".utf8)) } }

    private func show(_ text: String) {
        guard isShown else { return }
        FileHandle.standardError.write(Data("\r\u{1B}[K\(text)".utf8))
    }
}
