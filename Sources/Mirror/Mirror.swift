import BanyanClient
import FileTree
import Synchronization

/// Copies whole directories into the tree, and out of it, many files at once.
///
/// A file whose size, modification time and mode are the same on both sides is left alone. Nothing is removed on either side.
package struct Mirror: Sendable {
    /// Files under way at once, at the most, and descriptors that each takes: directories, the file, and the new one.
    private static let inFlightMax = 64
    private static let descriptorsEach = 4
    /// A put whose outcome stayed unknown, or found no leader, is tried so often in all: it writes the mirror's own file
    /// with the same content, so that doing it twice does no harm.
    static let triesMax = 6

    let tree: any RemoteTree
    /// What is withheld from the modes of what a pull makes, and of directories above a push's target.
    let creationMask: UInt16
    private let inFlight: Int
    private let pace: Pace
    private let progress: @Sendable (_ done: Int, _ of: Int, _ bytes: UInt64) -> Void

    /// - Parameters:
    ///   - patience: how long the cluster may do nothing before the mirror stops.
    ///   - descriptors: how many it may have open at once; with few, fewer files are under way.
    package init(
        tree: any RemoteTree, patience: Duration, descriptors: Int = .max,
        creationMask: UInt16 = LocalFile.creationMask,
        progress: @escaping @Sendable (_ done: Int, _ of: Int, _ bytes: UInt64) -> Void = { _, _, _ in }
    ) {
        self.tree = tree
        self.creationMask = creationMask
        self.progress = progress
        inFlight = min(Self.inFlightMax, max(1, descriptors / Self.descriptorsEach))
        pace = Pace(patience: patience)
    }

    // MARK: transfers

    /// What became of one file.
    enum Transfer: Sendable {
        case copied(bytes: UInt64)
        case unchanged
        case vanished
        case skipped
    }

    /// What became of one transfer. The position stands for the item, so that the tasks' result is no generic type.
    private struct Transferred: Sendable {
        let position: Int
        let result: Result<(Transfer, [MirrorNote]), any Error>
    }

    /// Runs `transfer` for each item, some at a time; a failure is noted and the others go on.
    ///
    /// - Parameter name: what the item is called on the side that it comes from.
    func copy<Item: Sendable>(
        _ items: [Item], into summary: inout MirrorSummary, name: (Item) -> [UInt8],
        transfer: @escaping @Sendable (Item) async throws -> (Transfer, [MirrorNote])
    ) async {
        await withTaskGroup(of: Transferred.self) { group in
            var next = 0
            func begin() {
                guard next < items.count, !Task.isCancelled, summary.stopped == nil else { return }
                let (position, item) = (next, items[next])
                next += 1
                group.addTask {
                    do { return Transferred(position: position, result: .success(try await transfer(item))) } catch {
                        return Transferred(position: position, result: .failure(error))
                    }
                }
            }
            for _ in 0..<inFlight { begin() }
            var done = 0
            while let transferred = await group.next() {
                done += 1
                let name = name(items[transferred.position])
                switch transferred.result {
                case .success((let transfer, let remarks)):
                    summary.remarks += remarks
                    switch transfer {
                    case .copied(let bytes):
                        summary.files += 1
                        summary.bytes += bytes
                    case .unchanged: summary.unchanged += 1
                    case .vanished: summary.vanished.append(MirrorNote(name, MirrorNote.vanished))
                    case .skipped: summary.skipped.append(MirrorNote(name, MirrorNote.isNoFile))
                    }
                case .failure(let error as BanyanError) where error.isOfTheCluster: summary.stopped = error
                case .failure(let error as LocalError):
                    summary.failures.append(MirrorNote(error.path, error.reason))
                case .failure(let error): summary.failures.append(MirrorNote(name, "\(error)"))
                }
                progress(done, items.count, summary.bytes)
                begin()
            }
        }
    }

    /// Tries again as long as the cluster gets on with anything.
    func retrying<Answer: Sendable>(_ body: () async throws -> Answer) async throws -> Answer {
        var tries = 0
        while true {
            do {
                let answer = try await body()
                pace.moveOn()
                return answer
            } catch let error as BanyanError where error.isOfTheCluster {
                tries += 1
                guard error != .diskFull, tries < Self.triesMax, await pace.movesOn() else { throw error }
            } catch {
                // An answer all the same.
                pace.moveOn()
                throw error
            }
        }
    }
}

extension BanyanError {
    /// Whether it would meet every other file as well.
    package var isOfTheCluster: Bool {
        switch self {
        case .noQuorum, .unreachable, .unknownOutcome, .diskFull: true
        default: false
        }
    }
}

/// When the cluster last answered.
final class Pace: Sendable {
    private let patience: Duration
    private let last = Mutex(ContinuousClock.now)

    init(patience: Duration) { self.patience = patience }

    func moveOn() { last.withLock { $0 = .now } }

    /// Waits until somebody else gets an answer: true. When nobody has got one for as long as one waits at most: false.
    func movesOn() async -> Bool {
        let before = last.withLock { $0 }
        while true {
            if last.withLock({ $0 }) != before { return true }
            if ContinuousClock.now - before >= patience || Task.isCancelled { return false }
            try? await Task.sleep(for: .milliseconds(10))
        }
    }
}
