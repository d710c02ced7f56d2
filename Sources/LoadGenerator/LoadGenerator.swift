import BanyanClient
import FileTree
import Histogram
import NIOCore
import NIOPosix
import WireProtocol

/// What to do to a cluster, and for how long.
package struct Load: Sendable {
    package enum Workload: String, Sendable, CaseIterable { case put, get, list, register }

    package var nodes: [String]
    package var workload: Workload
    package var clients: Int
    package var connections: Int
    /// Bytes of each file.
    package var size: Int
    package var files: Int
    package var duration: Duration
    package var warmup: Duration
    /// Of reads.
    package var consistency: Consistency

    package init(
        nodes: [String], workload: Workload, clients: Int, connections: Int, size: Int, files: Int, duration: Duration,
        warmup: Duration, consistency: Consistency = .linearizable
    ) {
        self.consistency = consistency
        self.nodes = nodes
        self.workload = workload
        self.clients = clients
        self.connections = min(connections, clients)
        self.size = size
        self.files = files
        self.duration = duration
        self.warmup = warmup
    }
}

package struct LoadResult: Sendable {
    package var operations: Int
    package var seconds: Double
    package var errors: Int
    package var firstError: String?
    /// Microseconds.
    package var latency: Histogram<UInt64>
}

/// Closed loop: each client sends its next request when the last one was answered.
///
/// All clients live on one event loop, and none has a task of its own, so that the tool takes as little of the machine
/// as it can from what it measures.
package enum LoadGenerator {
    /// Files stand in so many directories.
    static let directories = 100

    package static func run(_ load: Load) async throws -> LoadResult {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let clients = (0..<load.connections).map { _ in
            BanyanClient(nodes: load.nodes, timeout: .seconds(10), loop: loop)
        }
        if load.workload != .put { try await fill(load, clients) }
        let done = loop.makePromise(of: LoadResult.self)
        loop.execute { Run(load, clients, loop: loop, done: done).start() }
        let result = try await done.futureResult.get()
        for client in clients { await client.close() }
        return result
    }

    static func directory(of file: Int) -> String { "/load/d\(file % directories)" }
    static func path(of file: Int) -> String { "\(directory(of: file))/f\(file)" }

    /// Gets and listings need something to find.
    private static func fill(_ load: Load, _ clients: [BanyanClient]) async throws {
        let content = [UInt8](repeating: UInt8(ascii: "x"), count: load.size)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for worker in 0..<64 {
                group.addTask {
                    for file in stride(from: worker, to: load.files, by: 64) {
                        _ = try await clients[worker % clients.count].put(path(of: file), content)
                    }
                }
            }
            try await group.waitForAll()
        }
    }
}

/// One run, on the loop's thread.
private final class Run {
    private let load: Load
    private let clients: [BanyanClient]
    private let loop: any EventLoop
    private let done: EventLoopPromise<LoadResult>
    private let content: ByteBuffer
    private var histogram = Histogram<UInt64>(highestTrackableValue: 60_000_000, numberOfSignificantValueDigits: .three)
    private var operations = 0
    private var errors = 0
    private var firstError: String?
    private var measureFrom = NIODeadline.now()
    private var stopAt = NIODeadline.now()
    private var running = 0

    init(_ load: Load, _ clients: [BanyanClient], loop: any EventLoop, done: EventLoopPromise<LoadResult>) {
        self.load = load
        self.clients = clients
        self.loop = loop
        self.done = done
        content = ByteBuffer(repeating: UInt8(ascii: "x"), count: load.size)
    }

    func start() {
        measureFrom = .now() + Self.amount(load.warmup)
        stopAt = measureFrom + Self.amount(load.duration)
        running = load.clients
        for client in 0..<load.clients { next(client) }
    }

    private func next(_ client: Int) {
        let began = NIODeadline.now()
        guard began < stopAt else {
            running -= 1
            if running == 0 { finish() }
            return
        }
        let (kind, body) = request(Int.random(in: 0..<load.files))
        let this = NIOLoopBound(self, eventLoop: loop)
        clients[client % clients.count].perform(kind, body) { result in
            this.value.answered(client, began, result)
        }
    }

    private func request(_ file: Int) -> (Frame.Kind, ByteBuffer) {
        var body = ByteBuffer()
        do throws(TreeError) {
            switch load.workload {
            case .put:
                Put(path: try TreePath(LoadGenerator.path(of: file)), content: content).write(to: &body)
                return (.write, body)
            case .get:
                let kind = load.consistency.begin(&body)
                Query.get(try TreePath(LoadGenerator.path(of: file))).write(to: &body)
                return (kind, body)
            case .list, .register:
                let kind = load.consistency.begin(&body)
                Query.list(try TreePath(LoadGenerator.directory(of: file)), after: [], limit: 100).write(to: &body)
                return (kind, body)
            }
        } catch {
            preconditionFailure("the load's own paths are valid")
        }
    }

    private func answered(_ client: Int, _ began: NIODeadline, _ result: Result<Frame, BanyanError>) {
        let now = NIODeadline.now()
        // What began in the window counts, however late its answer came: a stall at the end must show. The rate counts
        // what was answered in the window.
        if began >= measureFrom {
            switch result {
            case .success(let frame) where frame.body.getInteger(at: frame.body.readerIndex, as: UInt16.self) == 0:
                if now <= stopAt { operations += 1 }
                histogram.record(UInt64((now - began).nanoseconds / 1000))
            case .success: count("the tree refused an operation of the load")
            case .failure(let error): count(error.description)
            }
        } else if case .failure(let error) = result {
            count(error.description)
        }
        next(client)
    }

    private func count(_ error: String) {
        errors += 1
        if firstError == nil { firstError = error }
    }

    private func finish() {
        let seconds = Double((stopAt - measureFrom).nanoseconds) / 1e9
        done.succeed(
            LoadResult(
                operations: operations, seconds: seconds, errors: errors, firstError: firstError, latency: histogram))
    }

    private static func amount(_ duration: Duration) -> TimeAmount {
        let (seconds, attoseconds) = duration.components
        return .nanoseconds(seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
    }
}
