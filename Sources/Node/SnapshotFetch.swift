import BanyanClient
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
    let logger: Logger

    /// How long to wait before the next try.
    private static let pause = Duration.seconds(1)

    /// Tries one member after the other until there is a snapshot that will do.
    ///
    /// - Parameters:
    ///   - allot: answers with the number of a state that was never used.
    ///   - use: takes the state of that number, which is whole and durable; or answers with why it won't do.
    func run(
        allot: () async throws -> UInt64, use: (SnapshotMetadata, _ stateNumber: UInt64) async throws -> String?
    ) async throws {
        var said = ""
        while true {
            let client = try await BanyanClient(nodes: nodes(), timeout: .seconds(10))
            var reason = "no other member can be reached"
            for member in (try? await client.status()) ?? [] {
                guard member.id != memberID, member.role != "unreachable" else { continue }
                let number = try await allot()
                do {
                    let metadata = try await take(from: member.address, client, number)
                    guard let refusal = try await use(metadata, number) else {
                        await client.close()
                        return logger.notice(
                            "repaired", metadata: ["from": "\(member.id)", "index": "\(metadata.index)"])
                    }
                    reason = refusal
                } catch let error as LogFailure { throw error.error } catch { reason = "member \(member.id): \(error)" }
                DataDirectory.remove(DataDirectory.statePath(in: directory, number))
            }
            await client.close()
            if said != reason { logger.warning("no sound copy yet", metadata: ["reason": "\(reason)"]) }
            said = reason
            try await Task.sleep(for: Self.pause)
        }
    }

    /// This member's own log fails: no other snapshot helps.
    struct LogFailure: Error { let error: any Error }

    private func take(from address: String, _ client: BanyanClient, _ number: UInt64) async throws -> SnapshotMetadata {
        let path = DataDirectory.statePath(in: directory, number)
        try DataDirectory.makeDirectory(path)
        let builder = StateBuilder(path: path, clusterID: clusterID, reserve: reserve)
        defer { builder.leave() }
        try await client.snapshot(of: address) { try await builder.receive($0) }
        guard let metadata = try await builder.finish() else { throw SnapshotError.corrupt }
        guard metadata.configuration.member(peer) != nil else {
            throw StartError("it does not know this member's directory (any more)")
        }
        try DataDirectory.sync(path)
        try DataDirectory.sync(directory)
        return metadata
    }
}

/// The thread that builds a state from the pieces of a snapshot: LMDB's write transactions belong to one thread, and what
/// waits for the network does not.
private final class StateBuilder: Sendable {
    private enum Job: Sendable {
        case piece(ByteBuffer, CheckedContinuation<Void, any Error>)
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
                                } else {
                                    receiver = try SnapshotReceiver(
                                        header: piece, clusterID: clusterID, into: path, reserve: reserve)
                                }
                                continuation.resume()
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

    func receive(_ piece: ByteBuffer) async throws {
        try await withCheckedThrowingContinuation { thread.send(.piece(piece, $0)) }
    }

    func finish() async throws -> SnapshotMetadata? {
        try await withCheckedThrowingContinuation { thread.send(.finish($0)) }
    }

    func leave() { thread.leave() }
}
