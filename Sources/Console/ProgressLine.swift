import Glibc

/// A line on a terminal's standard error that is written over again and again; nothing where there is no terminal.
package struct ProgressLine: Sendable {
    package let isShown: Bool

    package init(isWanted: Bool = true) { isShown = isWanted && isatty(STDERR_FILENO) == 1 }

    /// One that is wider than the terminal would leave a line behind each time.
    package func show(_ text: String) {
        guard isShown else { return }
        write("\r\u{1B}[K" + Self.fitted(text, Self.columns))
    }

    package func clear() { if isShown { write("\r\u{1B}[K") } }

    /// - Returns: what of the text leaves the last column free, where some terminals begin a new line.
    static func fitted(_ text: String, _ columns: Int) -> String { String(text.prefix(max(0, columns - 1))) }

    /// How wide the terminal is, now.
    package static var columns: Int {
        var size = winsize()
        guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }

    private func write(_ text: String) {
        try? Console.write(Array(text.utf8), to: STDERR_FILENO, patience: 0)
    }
}
