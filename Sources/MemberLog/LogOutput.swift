import Glibc
import Synchronization
import Threads

/// Where a member's log leaves it: standard error, by a thread of its own. Nobody waits for it: when nobody reads what it
/// writes, lines are dropped, and the member goes on.
package final class LogOutput: Sendable {
    private let lines: Lines
    private let thread: OwnedThread<Void>

    /// - Parameters:
    ///   - descriptor: where to write; a write may block for ever.
    ///   - format: of what it tells by itself.
    package init(descriptor: Int32 = STDERR_FILENO, format: MemberLogHandler.Format = .text) {
        // Whoever read it may be gone.
        signal(SIGPIPE, SIG_IGN)
        let lines = Lines(descriptor: descriptor, format: format)
        self.lines = lines
        thread = OwnedThread(name: "log") { (handle: { _ in lines.writeAll() }, finish: {}) }
    }

    /// Leaves a line that `make` makes, unless as many like it were told of late.
    ///
    /// - Parameter kind: what makes lines equal.
    func tell(_ kind: String, _ make: (_ notTold: Int) -> [UInt8]) {
        let now = Self.seconds
        let wakes = lines.state.withLock { state in
            switch state.repeated.look(kind, now: now) {
            case .suppress: false
            case .tell: state.queue.add(make(0))
            case .tellAfter(let missed): state.queue.add(make(missed))
            }
        }
        if wakes { thread.send(()) }
    }

    /// Leaves a line for people as it is. Whoever reads objects has what it says in one of those.
    package func say(_ line: String) {
        guard lines.format == .text else { return }
        if lines.state.withLock({ $0.queue.add(Array((line + "\n").utf8)) }) { thread.send(()) }
    }

    /// Waits until everything was written, but not for long: the reader may stand still.
    package func flush(millisecondsMax: Int = 500) {
        for _ in 0..<millisecondsMax / 5 {
            if lines.state.withLock({ $0.queue.isEmpty && !$0.isWriting }) { return }
            usleep(5000)
        }
    }

    private static var seconds: UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_BOOTTIME, &now)
        return UInt64(now.tv_sec)
    }
}

/// What waits, and the descriptor that it goes to.
private final class Lines: Sendable {
    struct State {
        var queue = LogQueue()
        var repeated = RepeatedLines()
        var isWriting = false
    }

    let state = Mutex(State())
    private let descriptor: Int32
    let format: MemberLogHandler.Format

    init(descriptor: Int32, format: MemberLogHandler.Format) {
        self.descriptor = descriptor
        self.format = format
    }

    /// On the log's own thread, which alone may wait for the reader.
    func writeAll() {
        while true {
            let (lines, dropped) = state.withLock { state in
                let taken = state.queue.take()
                state.isWriting = !taken.lines.isEmpty || taken.dropped > 0
                return taken
            }
            if lines.isEmpty, dropped == 0 { return }
            for line in lines { write(line) }
            if dropped > 0 {
                write(
                    format.line(
                        .warning, "banyand", "lines found no room, since nobody took them in", [("lines", "\(dropped)")]
                    ))
            }
        }
    }

    /// What can't be written is lost: a log must not end what it tells of.
    private func write(_ bytes: [UInt8]) {
        var left = bytes[...]
        while !left.isEmpty {
            let count = left.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                left.removeFirst(count)
            } else if count < 0, errno == EAGAIN {
                var poll = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                _ = Glibc.poll(&poll, 1, -1)
            } else if count == 0 || errno != EINTR {
                return
            }
        }
    }
}
