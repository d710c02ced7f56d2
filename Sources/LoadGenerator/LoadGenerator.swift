import BanyanClient
import FileTree
import NIOCore
import NIOPosix

/// Puts a load on a cluster, and measures it.
///
/// All clients live on one event loop, and none has a task of its own, so that the tool takes as little of the machine
/// as it can from what it measures.
package enum LoadGenerator {
    /// - Parameters:
    ///   - faults: what is done to the cluster meanwhile.
    ///   - interruption: ends the load early, when it brings something.
    ///   - filling: called while files are written before the load begins, with how many there are; at last with all.
    ///   - progress: called after each part of the time that is measured, on the load's thread.
    /// - Throws: `BanyanError` when the cluster is not there, or the files that the load needs can't be written; what a
    ///   fault's aim throws, before the load when nobody could be struck now.
    package static func run(
        _ load: Load, faults: [Fault] = [], interruption: AsyncStream<Void>? = nil,
        filling: @escaping @Sendable (Int) -> Void = { _ in },
        progress: @escaping @Sendable (LoadResult.Second) -> Void = { _ in }
    ) async throws -> LoadResult {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let clients = (0..<load.connections).map { _ in
            BanyanClient(nodes: load.nodes, timeout: .seconds(10), loop: loop)
        }
        let watcher = BanyanClient(nodes: load.nodes, timeout: .seconds(1))
        let done = loop.makePromise(of: LoadResult.self)
        let result: LoadResult
        do {
            // Who loads a cluster that is not there learns it at once.
            let members = try await watcher.status()
            for fault in faults { _ = try await fault.aim() }
            if load.isFilled { try await fill(load, clients, told: filling) }
            let run = try await loop.submit {
                let run = LoadRun(
                    load, clients, members: members.map(\.address), loop: loop, done: done, progress: progress)
                return NIOLoopBound(run, eventLoop: loop)
            }.get()
            result = try await withThrowingTaskGroup(of: Void.self) { group in
                defer { group.cancelAll() }
                loop.execute { run.value.start() }
                group.addTask { await watch(watcher) { leader in loop.execute { run.value.leads(leader) } } }
                if let interruption {
                    group.addTask { for await _ in interruption { loop.execute { run.value.interrupt() } } }
                }
                for fault in faults { group.addTask { await strike(fault, run, load.warmup, loop) } }
                return try await done.futureResult.get()
            }
        } catch {
            done.fail(error)
            for client in clients + [watcher] { await client.close() }
            throw error
        }
        for client in clients + [watcher] { await client.close() }
        return result
    }

    /// Waits for a fault's time and does it; a fault that can't be done ends the load.
    private static func strike(
        _ fault: Fault, _ run: NIOLoopBound<LoadRun>, _ warmup: Duration, _ loop: any EventLoop
    ) async {
        do {
            try await Task.sleep(for: warmup + fault.after)
            let (description, strike) = try await fault.aim()
            try await loop.submit {
                run.value.struck(description)
                try strike()
            }.get()
        } catch is CancellationError {
        } catch {
            loop.execute { run.value.fail(error) }
        }
    }

    private static let watchInterval = Duration.milliseconds(250)

    /// Tells who leads, again and again.
    private static func watch(
        _ client: BanyanClient, _ told: @escaping @Sendable ((id: UInt64, address: String)?) -> Void
    ) async {
        while !Task.isCancelled {
            let members = (try? await client.status()) ?? []
            told(members.first { $0.role == "leader" }.map { ($0.id, $0.address) })
            try? await Task.sleep(for: watchInterval)
        }
    }

    /// Writes every file once, one directory after the other, as a mirror would.
    private static func fill(
        _ load: Load, _ clients: [BanyanClient], told: @escaping @Sendable (Int) -> Void
    ) async throws {
        let workers = 256
        let perDirectory = (load.files + load.directories - 1) / load.directories
        try await withThrowingTaskGroup(of: Void.self) { group in
            for worker in 0..<workers {
                group.addTask {
                    var content = Content(size: load.size, seed: UInt64(worker))
                    for number in stride(from: worker, to: perDirectory * load.directories, by: workers) {
                        let file = number / perDirectory + number % perDirectory * load.directories
                        guard file < load.files else { continue }
                        var bytes = content.next()
                        _ = try await clients[worker % clients.count].put(
                            load.path(of: file), bytes.readBytes(length: bytes.readableBytes) ?? [])
                        if number % 10_000 == 0 { told(number) }
                    }
                }
            }
            try await group.waitForAll()
        }
        told(load.files)
    }
}
