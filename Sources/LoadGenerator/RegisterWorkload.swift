import BanyanClient
import Foundation
import Histories

/// Clients that use each file as a register, and remember all that they did, so that a checker can say whether it could have
/// happened. Every value is written once.
///
/// Every two seconds they turn to new files: then no file's history is too long to be checked. At the end each file is read
/// once more: whatever was acknowledged must be there.
package enum RegisterWorkload {
    /// How long a client uses the same files.
    private static let epochSeconds = 2.0
    /// A client rests for up to so long between two operations, or the history would soon be as large as the disk.
    private static let restMicroseconds = 0...10_000

    /// How many read at once what is there at the end.
    private static let readers = 64

    package struct Result: Sendable {
        package var history: History
        /// Operations that got an answer, and the first failure.
        package var answered: Int
        package var failures: Int
        package var firstFailure: String?
    }

    /// - Parameter interruption: ends the work early, when it brings something.
    package static func run(_ load: Load, until interruption: AsyncStream<Void>) async throws -> Result {
        let clients = (0..<load.connections).map { _ in BanyanClient(nodes: load.nodes, timeout: .seconds(5)) }
        // Reads that are spread need to know over whom.
        let members = load.isSpread ? try await clients[0].status().map(\.address) : []
        let run = Run(load, members: members, directory: "/register/\(UInt64.random(in: 1...UInt64.max))")
        let listener = Task { for await _ in interruption { await run.end() } }
        await withTaskGroup(of: Void.self) { group in
            for client in 0..<load.clients {
                group.addTask { await run.work(client, with: clients[client % clients.count]) }
            }
        }
        listener.cancel()
        let files = await run.files
        await withTaskGroup(of: Void.self) { group in
            for reader in 0..<min(readers, files.count) {
                group.addTask {
                    for position in stride(from: reader, to: files.count, by: readers) {
                        await run.readBack(
                            files[position], load.clients + reader, with: clients[reader % clients.count])
                    }
                }
            }
        }
        for client in clients { await client.close() }
        return await run.result
    }

    private actor Run {
        private let load: Load
        private let directory: String
        private let members: [String]
        private var nextMember = 0
        private let began = ContinuousClock.now
        private var history: History = []
        private var lastValue = 0
        private var failures = 0
        private var isOver = false
        private var firstFailure: String?

        init(_ load: Load, members: [String], directory: String) {
            self.load = load
            self.members = members
            self.directory = directory
        }

        var result: Result {
            Result(
                history: history, answered: history.count { $0.returned != nil }, failures: failures,
                firstFailure: firstFailure)
        }

        private var now: UInt64 { UInt64((ContinuousClock.now - began) / .nanoseconds(1)) }

        private func path(_ file: Int) -> String { "\(directory)/\(file)" }

        func work(_ client: Int, with connection: BanyanClient) async {
            /// What the client last saw of each file of this epoch.
            var known: [Int: (value: Int, revision: UInt64)] = [:]
            var epoch = -1
            while !isOver, ContinuousClock.now - began < load.duration {
                let current = Int((ContinuousClock.now - began) / .seconds(1) / RegisterWorkload.epochSeconds)
                if current != epoch { (epoch, known) = (current, [:]) }
                let file = epoch * load.files + Int.random(in: 0..<load.files)
                await operate(client, on: file, &known, connection)
                try? await Task.sleep(for: .microseconds(Int.random(in: RegisterWorkload.restMicroseconds)))
            }
        }

        private func operate(
            _ client: Int, on file: Int, _ known: inout [Int: (value: Int, revision: UInt64)],
            _ connection: BanyanClient
        ) async {
            let kind: Histories.Operation.Kind
            switch Int.random(in: 0..<10) {
            case 0..<4: kind = .put(newValue())
            case 4..<8: kind = .get
            case 8: kind = known[file].map { .compareAndSet($0.value, newValue()) } ?? .get
            default: kind = .delete
            }
            known[file] = await perform(kind, client, on: file, revision: known[file]?.revision ?? 0, connection)
        }

        private func newValue() -> Int {
            lastValue += 1
            return lastValue
        }

        /// Answers with what the file held when the operation ended, if that is known.
        private func perform(
            _ kind: Histories.Operation.Kind, _ client: Int, on file: Int, revision: UInt64, _ connection: BanyanClient
        ) async -> (value: Int, revision: UInt64)? {
            let position = history.count
            history.append(Histories.Operation(client: client, file: file, kind: kind, invoked: now))
            do {
                var seen: (value: Int, revision: UInt64)?
                var outcome = Histories.Operation.Outcome.done
                switch kind {
                case .put(let value):
                    seen = (value, try await connection.put(path(file), Array("\(value)".utf8)))
                case .compareAndSet(_, let value):
                    seen = (
                        value, try await connection.put(path(file), Array("\(value)".utf8), if: .revision(revision))
                    )
                case .delete: _ = try await connection.remove(path(file))
                case .get:
                    let (content, info) = try await connection.get(path(file), load.consistency, from: reader)
                    let value = Int(String(decoding: content, as: UTF8.self)) ?? -1
                    (seen, outcome) = ((value, info.revision), .value(value))
                }
                finish(position, outcome)
                return seen
            } catch BanyanError.notFound {
                finish(position, kind == .get ? .value(0) : .refused)
            } catch BanyanError.conditionFailed {
                finish(position, .refused)
            } catch {
                fail(position, error)
            }
            return nil
        }

        /// Each member in its turn, where reads are spread; else nil: where the client finds the leader.
        private var reader: String? {
            guard !members.isEmpty else { return nil }
            nextMember += 1
            return members[nextMember % members.count]
        }

        private func finish(_ position: Int, _ outcome: Histories.Operation.Outcome) {
            history[position].returned = now
            history[position].outcome = outcome
        }

        private func fail(_ position: Int, _ error: any Error) {
            failures += 1
            if firstFailure == nil { firstFailure = "\(error)" }
            // These prove that nothing was changed; a get that says nothing stands for it.
            switch error as? BanyanError {
            case .noQuorum, .unreachable, .memberUnreachable, .refused, .differentClusters, .noSuchHost:
                history[position].kind = .get
            default: break
            }
        }

        func end() { isOver = true }

        var files: [Int] { Set(history.map(\.file)).sorted() }

        func readBack(_ file: Int, _ client: Int, with connection: BanyanClient) async {
            _ = await perform(.get, client, on: file, revision: 0, connection)
        }
    }
}
