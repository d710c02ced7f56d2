import Foundation
import Synchronization

/// Ctrl-C and SIGTERM: a load that is being measured ends early, and what was measured until then is reported. Before that,
/// or when they come twice, the tool ends at once.
final class Interruption {
    static let exitCode: Int32 = 130

    let stream: AsyncStream<Void>
    private let sources: [any DispatchSourceSignal]
    private let state = State()

    private final class State: Sendable {
        let isMeasuring = Atomic(false)
        let hasCome = Atomic(false)
    }

    var hasCome: Bool { state.hasCome.load(ordering: .relaxed) }

    init() {
        let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
        self.stream = stream
        sources = [SIGINT, SIGTERM].map { number in
            signal(number, SIG_IGN)
            return DispatchSource.makeSignalSource(signal: number)
        }
        for source in sources {
            source.setEventHandler { [state] in
                let isSecond = state.hasCome.exchange(true, ordering: .relaxed)
                if isSecond || !state.isMeasuring.load(ordering: .relaxed) { exit(Self.exitCode) }
                continuation.yield()
            }
            source.resume()
        }
    }

    /// What to call when the measuring begins.
    var begin: @Sendable () -> Void { { [state] in state.isMeasuring.store(true, ordering: .relaxed) } }
}
