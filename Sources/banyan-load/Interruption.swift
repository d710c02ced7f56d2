import Console
import Foundation
import Synchronization

/// Ctrl-C, SIGTERM and SIGHUP: a load that is being measured ends early, and what was measured until then is reported. Before that,
/// or when they come twice, the tool ends at once.
final class Interruption {
    static let exitCode: Int32 = 130

    private let sources: [any DispatchSourceSignal]
    private let state = State()

    private final class State: Sendable {
        let isMeasuring = Atomic(false)
        let hasCome = Atomic(false)
        let listener = Mutex<AsyncStream<Void>.Continuation?>(nil)
    }

    var hasCome: Bool { state.hasCome.load(ordering: .relaxed) }

    init() {
        sources = Signals.ending.map { number in
            signal(number, SIG_IGN)
            return DispatchSource.makeSignalSource(signal: number)
        }
        for source in sources {
            source.setEventHandler { [state] in
                let isSecond = state.hasCome.exchange(true, ordering: .relaxed)
                if isSecond || !state.isMeasuring.load(ordering: .relaxed) { exit(Self.exitCode) }
                state.listener.withLock { _ = $0?.yield() }
            }
            source.resume()
        }
    }

    /// Brings something when it comes. A stream of its own for each load: one that a load listened to is over with it.
    func stream() -> AsyncStream<Void> {
        let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
        state.listener.withLock { $0 = continuation }
        if hasCome { continuation.yield() }
        return stream
    }

    /// What to call when the measuring begins.
    var begin: @Sendable () -> Void { { [state] in state.isMeasuring.store(true, ordering: .relaxed) } }
}
