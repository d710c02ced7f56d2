import FileTree
import Logging
import NIOCore
import Raft
import RaftLog
import WireProtocol

/// A log with a damaged entry, which may have been acknowledged, or with one that contradicts what the cluster decided.
///
/// What the state has executed needs no entry any more: the log begins behind it, and nothing is lost. Otherwise its member
/// takes no part in its cluster, since it can't keep what it promised, until it has a snapshot from another member.
struct LogRepair {
    let options: ServerOptions
    let store: LogStore
    let identity: Identity
    let logger: Logger

    /// Reads the log; answers with nil when it has to be repaired from the other members.
    func recover() throws -> LogStore.Recovered? {
        if let contradiction {
            logger.error("damaged", metadata: ["damage": "\(contradiction.reason)"])
            return nil
        }
        do throws(LogError) { return try store.recover() } catch {
            guard case .corruptEntry = error else { throw error }
            logger.error("damaged", metadata: ["damage": "\(error)"])
            if try beginBehindState() {
                logger.notice("repaired: the log begins behind a damaged entry that the state has executed")
                return try store.recover()
            }
            guard try !others(store.damaged()).isEmpty else { throw error }
            return nil
        }
    }

    private var contradiction: StateDamage? {
        StateDamage.marked(options.data).flatMap { $0.kind == .contradicted ? $0 : nil }
    }

    private func others(_ damaged: LogStore.Damaged) -> [Member] {
        damaged.configuration.otherVoters(than: PeerID(identity.incarnation))
    }

    /// Lets the log begin behind its member's own state, if no entry behind that is damaged.
    func beginBehindState() throws(LogError) -> Bool {
        let row = try store.damaged().row
        let state = DataDirectory.statePath(in: options.data, row.stateNumber)
        guard let view = try? StateView(StateEnvironment(path: state)), view.applied.index > row.compactedIndex,
            row.lastIndex.map({ view.applied.index <= $0 }) ?? true
        else { return false }
        var bytes = ByteBuffer(bytes: view.configuration)
        guard let configuration = Configuration(from: &bytes) else { return false }
        let snapshot = SnapshotMetadata(
            index: view.applied.index, term: view.applied.term, configuration: configuration)
        return try store.repair(with: snapshot, stateNumber: row.stateNumber, isOwn: true)
    }

    /// Tries until the log begins behind a snapshot of another member's. What the log has behind that may have been
    /// acknowledged, and stays; a damaged entry there is waited out: it goes as soon as the cluster has passed it.
    func run() async throws {
        let damaged = try store.damaged()
        let others = others(damaged).map(options.moved.address)
        let founders = MemberList.recorded(identity.founders).filter { $0.id != identity.memberID }
        let nodes = others + founders.map { $0.address.description }.filter { !others.contains($0) }
        let fetch = SnapshotFetch(
            nodes: { nodes }, memberID: identity.memberID, peer: PeerID(identity.incarnation),
            clusterID: (identity.genesis ?? damaged.configuration).clusterID, directory: options.data,
            reserve: options.reserve / 2, rate: options.snapshotRate, logger: logger)
        var number = damaged.row.stateNumber
        try await fetch.run(
            allot: {
                number += 1
                return number
            },
            use: { metadata, number in
                if try store.repair(with: metadata, stateNumber: number, replacesCommitted: contradiction != nil) {
                    try StateDamage.unmark(options.data)
                    return nil
                }
                DataDirectory.remove(DataDirectory.statePath(in: options.data, number))
                return "the cluster has not passed the damaged entries yet: any write to it helps"
            })
    }
}
