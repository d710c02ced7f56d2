import FileTree
import Glibc
import Raft
import RaftLog
import WireProtocol

/// What is left when a cluster lost its majority for good: to go on with what one directory holds. Offline, and at a price:
/// what the others acknowledged and this one never got is gone.
package enum Recovery {
    /// What a directory holds.
    package struct Contents: Sendable {
        package var memberID: UInt64
        package var address: String
        package var clusterID: UInt64
        package var members: String
        package var term: Term
        package var lastTerm: Term
        package var lastIndex: Index
        package var commit: Index
    }

    /// - Throws: `StartError` when the directory can't be used.
    package static func inspect(_ data: String) throws -> Contents {
        let directory = try DataDirectory(path: data)
        let (_, contents) = try read(directory)
        return contents
    }

    /// Makes the directory that of a new cluster of one, with another cluster id and another incarnation, in a term behind
    /// its last entry's: whatever term the old cluster came to. The revisions begin beyond any that were given out before: see
    /// `FirstRevision`. Nothing of the old cluster fits it any more.
    ///
    /// The directory belongs to the old cluster until one commit gives it to the new one, with a copy of the state that has
    /// executed all that the log holds.
    ///
    /// - Parameter warn: told what whoever recovers should know.
    package static func forceNewCluster(
        _ data: String, wallTime: Int64 = Clock.wall, warn: (String) -> Void = { _ in }
    ) throws -> Contents {
        let directory = try DataDirectory(path: data)
        let (old, contents) = try read(directory)
        let recovered = try directory.store.recover()
        let (log, number) = (recovered.log, recovered.row.stateNumber + 1)
        if let damage = StateDamage.marked(data) { throw unusable(data, damage.reason) }
        do throws(StateError) {
            try copyState(in: directory, recovered, to: number)
        } catch { throw unusable(data, "\(error)") }
        var identity = Identity(
            memberID: old.memberID, incarnation: UInt64.random(in: 1...UInt64.max),
            founders: "\(old.memberID)=\(contents.address)")
        identity.formerClusterID = contents.clusterID
        let alone = Configuration(
            clusterID: UInt64.random(in: 1...UInt64.max),
            members: [Member(id: old.memberID, peer: PeerID(identity.incarnation), address: contents.address)])
        let last = SnapshotMetadata(index: log.lastIndex, term: log.lastTerm, configuration: alone)
        try Restore.begin(identity, in: directory, behind: last, stateNumber: number, wallTime: wallTime, warn)
        DataDirectory.removeStates(in: data) { $0 != number }
        return try read(directory).contents
    }

    private static func unusable(_ data: String, _ reason: String) -> StartError {
        StartError(
            "\(data): the state can't be used: \(reason); nothing was changed: recover another member's directory, or "
                + "restore a backup with banyand --restore")
    }

    /// Makes the state `number` beside the member's own, which has executed the whole log.
    private static func copyState(
        in directory: DataDirectory, _ recovered: LogStore.Recovered, to number: UInt64
    ) throws(StateError) {
        let log = recovered.log
        let path: String
        do { path = try directory.prepareState(recovered.row.stateNumber) } catch { throw .store(ENOENT) }
        let copy = DataDirectory.statePath(in: directory.path, number)
        let environment = try StateEnvironment(path: path)
        if let applied = try environment.applied() {
            guard applied.index >= log.compactedIndex, log.term(at: applied.index) == applied.term else {
                throw .wrongIndex(expected: log.compactedIndex, got: applied.index)
            }
            _ = try RewriteThread.copy(environment, to: copy, reserve: 0)
        } else {
            // It has executed nothing yet that it had to make durable.
            guard log.compactedIndex == 0 else { throw .wrongIndex(expected: log.compactedIndex, got: 0) }
            do { try DataDirectory.makeDirectory(copy) } catch { throw .store(errno) }
        }
        _ = try RewriteThread.catchUp(copy, through: log.lastIndex, directory.store, Applied.clusterVersionMax)
    }

    private static func read(_ directory: DataDirectory) throws -> (identity: Identity, contents: Contents) {
        let (identity, recovered): (Identity?, LogStore.Recovered)
        do {
            identity = try directory.store.identity()
            guard identity?.genesis != nil else {
                throw StartError("\(directory.path): never belonged to a cluster; there is nothing to recover")
            }
            recovered = try directory.store.recover()
        } catch let error as LogError { throw StartError("\(directory.path): \(error)") }
        guard let identity else { throw StartError("\(directory.path): is nobody's") }
        let configuration = recovered.log.configuration
        let own = configuration.members.first { $0.id == identity.memberID }
        let listed = MemberList.recorded(identity.founders).first { $0.id == identity.memberID }
        let contents = Contents(
            memberID: identity.memberID, address: own?.address ?? listed?.address.description ?? "",
            clusterID: configuration.clusterID, members: configuration.text, term: recovered.row.hardState.term,
            lastTerm: recovered.log.lastTerm, lastIndex: recovered.log.lastIndex, commit: recovered.row.hardState.commit
        )
        return (identity, contents)
    }
}
