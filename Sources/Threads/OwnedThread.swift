import Glibc

/// A thread that owns its data and takes its work from one bounded-by-its-sender, first-in first-out mailbox.
///
/// `send` never blocks for longer than the mailbox's lock. The thread takes everything that waits in one swap, so that
/// its batches set their own size: while it works, the next batch collects.
// Sendable: `mailbox` and `isClosed` are touched under `mutex` alone; the rest is immutable after init.
package final class OwnedThread<Message: Sendable>: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let arrived: UnsafeMutablePointer<pthread_cond_t>
    private var mailbox: [Message] = []
    private var isClosed = false
    private var thread = pthread_t()

    /// Starts a thread called `name` (15 bytes at most, Linux's limit) that makes its own state with `start`, which
    /// answers with the handler of its batches. The handler never sees an empty batch; when the mailbox is closed it
    /// has seen everything that was sent before, and `finish` runs last.
    package init(
        name: String,
        start: @escaping @Sendable () -> (handle: ([Message]) -> Void, finish: () -> Void)
    ) {
        mutex = .allocate(capacity: 1)
        arrived = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(arrived, nil)
        let body = Body { [self] in
            nameThread(name)
            let (handle, finish) = start()
            while let batch = takeBatch() { handle(batch) }
            finish()
        }
        let result = pthread_create(&thread, nil, runBody, Unmanaged.passRetained(body).toOpaque())
        precondition(result == 0, "the system refused a thread: errno \(result)")
    }

    deinit {
        pthread_mutex_destroy(mutex)
        pthread_cond_destroy(arrived)
        mutex.deallocate()
        arrived.deallocate()
    }

    /// Leaves a message. After `close` it is dropped.
    package func send(_ message: Message) {
        pthread_mutex_lock(mutex)
        if !isClosed { mailbox.append(message) }
        let wake = mailbox.count == 1
        pthread_mutex_unlock(mutex)
        // The thread sleeps only while the mailbox is empty: the first message alone has to wake it.
        if wake { pthread_cond_signal(arrived) }
    }

    /// Lets the thread finish what was sent and waits for its end. Call it once, and never from the thread itself.
    package func close() {
        pthread_mutex_lock(mutex)
        isClosed = true
        pthread_mutex_unlock(mutex)
        pthread_cond_signal(arrived)
        pthread_join(thread, nil)
    }

    /// Lets the thread finish what was sent, and does not wait for its end. In place of `close`.
    package func leave() {
        pthread_mutex_lock(mutex)
        isClosed = true
        pthread_mutex_unlock(mutex)
        pthread_cond_signal(arrived)
        pthread_detach(thread)
    }

    private func takeBatch() -> [Message]? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while mailbox.isEmpty {
            if isClosed { return nil }
            pthread_cond_wait(arrived, mutex)
        }
        var batch: [Message] = []
        swap(&batch, &mailbox)
        return batch
    }
}

/// Shows the thread's name in `top -H` and in traces. The C function for it is not visible to Swift; the kernel's file is.
private func nameThread(_ name: String) {
    let file = open("/proc/thread-self/comm", O_WRONLY)
    guard file >= 0 else { return }
    _ = Array(name.utf8.prefix(15)).withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
    close(file)
}

private final class Body {
    let run: () -> Void
    init(_ run: @escaping () -> Void) { self.run = run }
}

private func runBody(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument else { return nil }
    Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
    return nil
}
