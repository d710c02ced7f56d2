import BanyanClient
import FileTree
import Glibc
import Logging
import NIOCore
import Raft
import RaftLog
import Snapshots
import WireProtocol

/// A member whose copy is damaged takes no part in its cluster until it has a sound one: it takes a snapshot from another
/// member, of everything that was ever acknowledged, checks it, and makes it its state and the start of its log.
///
/// What its own log has behind the snapshot may have been acknowledged, and stays. A damaged entry there is waited out: it
/// goes as soon as the cluster has passed it.
final class Repair: Sendable {
    private let options: ServerOptions
    private let store: LogStore
    private let identity: Identity
    private let logger: Logger

    init(options: ServerOptions, store: LogStore, identity: Identity, logger: Logger) {
        self.options = options
        self.store = store
        self.identity = identity
        self.logger = logger
    }

    // MARK: the mark

    private static func path(in directory: String) -> String { directory + "/repair" }

    /// Leaves word in the directory that it must be repaired before its member takes part again.
    static func mark(_ directory: String, _ reason: String) throws {
        let file = open(path(in: directory), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw StartError("\(directory): can't be written: \(String(cString: strerror(errno)))") }
        defer { close(file) }
        let bytes = Array(reason.utf8)
        let isWritten = bytes.withUnsafeBytes { write(file, $0.baseAddress, $0.count) } == bytes.count
        guard isWritten, fsync(file) == 0 else { throw StartError("\(directory): can't be written") }
        try DataDirectory.sync(directory)
    }

    /// What is wrong with a state that is sound in itself.
    static let divergence = "the state has another digest than the majority's"

    /// Whether a second look at what was found damaged finds nothing. A member that was wrong about itself must not wait for
    /// others that may be as wrong.
    private func isSound(_ damaged: LogStore.Damaged) throws -> Bool {
        guard !isMarkedDivergent() else { return false }
        do throws(LogError) { _ = try store.recover() } catch {
            guard case .corruptEntry = error else { throw error }
            return false
        }
        let path = DataDirectory.statePath(in: options.data, damaged.row.stateNumber)
        do throws(StateError) {
            let view = try StateView(StateEnvironment(path: path))
            var audit = StateAudit()
            try view.forEach { key, row throws(StateError) in try audit.add(key: key, row: row) }
            _ = try audit.finish()
        } catch {
            return false
        }
        return true
    }

    private func isMarkedDivergent() -> Bool {
        let file = open(Self.path(in: options.data), O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return false }
        defer { close(file) }
        let expected = Array(Self.divergence.utf8)
        var bytes = [UInt8](repeating: 0, count: expected.count)
        return read(file, &bytes, bytes.count) == bytes.count && bytes == expected
    }

    private func unmark() throws {
        unlink(Self.path(in: options.data))
        try DataDirectory.sync(options.data)
    }

    static func isMarked(_ directory: String) -> Bool { access(path(in: directory), F_OK) == 0 }

    // MARK: the work

    /// How long to wait before the next try.
    private static let pause = Duration.seconds(1)

    /// Tries until it is done.
    func run() async throws {
        let damaged = try store.damaged()
        if try isSound(damaged) {
            logger.warning("a second look finds no damage")
            return try unmark()
        }
        let others = damaged.configuration.members.filter { $0.peer.rawValue != identity.incarnation }.map(\.address)
        let founders = try ServerOptions.members(identity.founders).filter { $0.id != identity.memberID }
        let nodes = others + founders.map { $0.address.description }.filter { !others.contains($0) }
        guard !nodes.isEmpty else {
            throw StartError(
                "\(options.data): damaged, and there is no other member to take a sound copy from; restore a backup with "
                    + "banyand --restore")
        }
        var said = ""
        var number = damaged.row.stateNumber
        while true {
            let client = BanyanClient(nodes: nodes, timeout: .seconds(10))
            var reason = "no other member can be reached"
            for member in (try? await client.status()) ?? [] {
                guard member.id != identity.memberID, member.role != "unreachable" else { continue }
                number += 1
                do {
                    if let index = try await take(from: member.address, client, damaged, stateNumber: number) {
                        await client.close()
                        try unmark()
                        logger.notice("repaired", metadata: ["from": "\(member.id)", "index": "\(index)"])
                        return
                    }
                    reason = "the cluster has not passed the damaged entries yet: any write to it helps"
                } catch let error as LogError { throw error } catch { reason = "member \(member.id): \(error)" }
                DataDirectory.remove(DataDirectory.statePath(in: options.data, number))
            }
            await client.close()
            if said != reason { logger.warning("not repaired yet", metadata: ["reason": "\(reason)"]) }
            said = reason
            try await Task.sleep(for: Self.pause)
        }
    }

    /// Answers with the snapshot's index, or with nil when it does not reach far enough.
    private func take(
        from address: String, _ client: BanyanClient, _ damaged: LogStore.Damaged, stateNumber: UInt64
    ) async throws -> Index? {
        let path = DataDirectory.statePath(in: options.data, stateNumber)
        try DataDirectory.makeDirectory(path)
        let clusterID = (identity.genesis ?? damaged.configuration).clusterID
        var receiver: SnapshotReceiver?
        var isWhole = false
        try await client.snapshot(of: address) { piece in
            if let receiver {
                isWhole = try receiver.receive(piece)
            } else {
                receiver = try SnapshotReceiver(
                    header: piece, clusterID: clusterID, into: StateImport(path: path))
            }
        }
        guard isWhole, let metadata = receiver?.header.metadata else { throw SnapshotError.corrupt }
        guard metadata.configuration.member(PeerID(identity.incarnation)) != nil else {
            throw StartError("it does not know this member's directory (any more)")
        }
        receiver = nil
        try DataDirectory.sync(path)
        try DataDirectory.sync(options.data)
        return try store.repair(with: metadata, stateNumber: stateNumber) ? metadata.index : nil
    }
}
