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

    /// Makes the directory that of a new cluster of one, with a higher term, and revisions that go on from its last one.
    /// The old members can't come back to it: it has another cluster id.
    package static func forceNewCluster(_ data: String) throws -> Contents {
        let directory = try DataDirectory(path: data)
        let (identity, old) = try read(directory)
        let configuration = Configuration(
            clusterID: UInt64.random(in: 1...UInt64.max),
            members: [Member(id: old.memberID, peer: PeerID(identity.incarnation), address: old.address)])
        do { try directory.store.restart(identity, alone: configuration) } catch {
            throw StartError("\(data): \(error)")
        }
        return try read(directory).contents
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
        let listed = ServerOptions.recordedMembers(identity.founders).first { $0.id == identity.memberID }
        let contents = Contents(
            memberID: identity.memberID, address: own?.address ?? listed?.address.description ?? "",
            clusterID: configuration.clusterID, members: configuration.text, term: recovered.row.hardState.term,
            lastTerm: recovered.log.lastTerm, lastIndex: recovered.log.lastIndex, commit: recovered.row.hardState.commit
        )
        return (identity, contents)
    }
}
