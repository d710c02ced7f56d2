import BanyanClient
import CrashPoints
import FileTree
import Glibc
import Logging
import NIOCore
import Raft
import Snapshots
import Threads
import WireProtocol

/// Takes a snapshot from another member, of everything that was ever acknowledged, and builds a state of it beside the
/// present one: as a client that makes a backup does.
struct SnapshotFetch: Sendable {
    /// Whom to ask for the other members.
    let nodes: @Sendable () async throws -> [String]
    /// The member that needs it.
    let memberID: UInt64
    let peer: PeerID
    let clusterID: UInt64
    let directory: String
    /// Bytes of the disk that stay free.
    let reserve: UInt64
    /// Bytes a second.
    let rate: Int
    let logger: Logger
    /// Of the copy that is on its way.
    var progress = WorkProgress()

    /// How long to wait before the next try.
    private static let pause = Duration.seconds(1)

    /// Tries one member after the other until there is a snapshot that will do.
    ///
    /// - Parameters:
    ///   - allot: answers with the number of a state that was never used.
    ///   - use: takes the state of that number, which is whole and durable, and its directory from then on; or answers with
    ///     why it won't do.
    func run(
        allot: () async throws -> UInt64, use: (SnapshotMetadata, _ stateNumber: UInt64) async throws -> String?
    ) async throws {
        var said = ""
        var refusal = ""
        // Of what won't do, nobody sends the like twice.
        var refused: Index = 0
        while true {
            let client = try await BanyanClient(nodes: nodes(), timeout: .seconds(10))
            var reason = "no other member can be reached"
            for member in (try? await client.status()) ?? [] {
                guard member.id != memberID, member.isRunning else { continue }
                let number = try await allot()
                let metadata: SnapshotMetadata
                do { metadata = try await take(from: member.address, client, number, behind: refused) } catch {
                    DataDirectory.remove(DataDirectory.statePath(in: directory, number))
                    if Task.isCancelled {
                        await client.close()
                        throw CancellationError()
                    }
                    if error is NothingNew {
                        reason = refusal
                    } else if let error = error as? SnapshotError, error.isFull {
                        reason = "this member's own disk has no room for a copy: \(error)"
                    } else {
                        reason = ForeignText.plain("member \(member.id): \(error)")
                    }
                    continue
                }
                guard let unfit = try await use(metadata, number) else {
                    await client.close()
                    return logger.notice(
                        "repaired", metadata: ["from": "\(member.id)", "index": "\(metadata.index)"])
                }
                refused = max(refused, metadata.index)
                (refusal, reason) = (unfit, unfit)
            }
            await client.close()
            if said != reason { logger.warning("no sound copy yet", metadata: ["reason": "\(reason)"]) }
            said = reason
            try await Task.sleep(for: Self.pause)
        }
    }

    /// What a snapshot of another member's would be of now; nothing of it is kept. nil when nobody gives one that knows this
    /// member.
    func look() async -> SnapshotMetadata? {
        guard let nodes = try? await nodes() else { return nil }
        let client = BanyanClient(nodes: nodes, timeout: .seconds(10))
        var found: SnapshotMetadata?
        for member in (try? await client.status()) ?? [] where member.id != memberID && member.isRunning {
            try? await client.snapshot(of: member.address) { piece in
                found = try SnapshotHeader(piece).metadata
                throw CancellationError()
            }
            if let configuration = found?.configuration, configuration.clusterID == clusterID,
                configuration.member(peer) != nil
            {
                break
            }
            found = nil
        }
        await client.close()
        return found
    }

    /// The other members' state is still the one that would not do.
    private struct NothingNew: Error {}

    private func take(
        from address: String, _ client: BanyanClient, _ number: UInt64, behind refused: Index
    ) async throws -> SnapshotMetadata {
        let path = DataDirectory.statePath(in: directory, number)
        try DataDirectory.makeDirectory(path)
        let builder = StateBuilder(path: path, clusterID: clusterID, reserve: reserve)
        defer { builder.leave() }
        progress.begin()
        try await client.snapshot(of: address) { piece in
            progress.add(piece.readableBytes)
            if let header = try await builder.receive(piece), header.index <= refused { throw NothingNew() }
            try await Task.sleep(for: .seconds(Double(piece.readableBytes) / Double(max(1, rate))))
        }
        guard let metadata = try await builder.finish() else { throw SnapshotError.corrupt }
        guard metadata.configuration.member(peer) != nil else {
            throw StartError("it does not know this member's directory (any more)")
        }
        CrashPoint.fetchedBeforeSync.reach()
        try DataDirectory.sync(path)
        try DataDirectory.sync(directory)
        CrashPoint.fetchedAfterSync.reach()
        return metadata
    }
}

/// The thread that builds a state from the pieces of a snapshot: LMDB's write transactions belong to one thread, and what
/// waits for the network does not.
private final class StateBuilder: Sendable {
    private enum Job: Sendable {
        /// Of the first piece, the header, what the snapshot is of.
        case piece(ByteBuffer, CheckedContinuation<SnapshotMetadata?, any Error>)
        /// The snapshot's metadata, if it is whole.
        case finish(CheckedContinuation<SnapshotMetadata?, any Error>)
    }

    private let thread: OwnedThread<Job>

    init(path: String, clusterID: UInt64, reserve: UInt64) {
        thread = OwnedThread(name: "build") {
            var receiver: SnapshotReceiver?
            var whole: SnapshotMetadata?
            return (
                handle: { jobs in
                    for job in jobs {
                        switch job {
                        case .piece(let piece, let continuation):
                            do throws(SnapshotError) {
                                if let present = receiver {
                                    if try present.receive(piece) { whole = present.header.metadata }
                                    continuation.resume(returning: nil)
                                } else {
                                    let new = try SnapshotReceiver(
                                        header: piece, clusterID: clusterID, into: path, reserve: reserve)
                                    receiver = new
                                    continuation.resume(returning: new.header.metadata)
                                }
                            } catch { continuation.resume(throwing: error) }
                        case .finish(let continuation):
                            // Closed, before anybody else opens it.
                            receiver = nil
                            continuation.resume(returning: whole)
                        }
                    }
                }, finish: {}
            )
        }
    }

    func receive(_ piece: ByteBuffer) async throws -> SnapshotMetadata? {
        try await withCheckedThrowingContinuation { thread.send(.piece(piece, $0)) }
    }

    func finish() async throws -> SnapshotMetadata? {
        try await withCheckedThrowingContinuation { thread.send(.finish($0)) }
    }

    func leave() { thread.leave() }
}
