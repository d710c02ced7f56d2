import FileTree
import Raft
import RaftLog
import Snapshots
import WireProtocol

/// A new cluster from a snapshot file.
package enum Restore {
    /// What a snapshot file holds. The whole file was read and checked.
    package struct Contents: Sendable {
        package var metadata: SnapshotMetadata
        package var clusterVersion: UInt16
        package var applied: Applied
        package var rows: UInt64
        /// Of the rows and their keys.
        package var bytes: UInt64
    }

    /// Reads and checks the whole file.
    ///
    /// - Parameter state: where to put the rows, if anywhere.
    package static func read(_ file: String, into state: StateImport? = nil) throws(SnapshotError) -> Contents {
        let pieces = try SnapshotFile(path: file)
        guard let first = try pieces.next() else { throw .notASnapshot }
        var checker = try SnapshotChecker(header: first.bytes, clusterID: nil)
        while let piece = try pieces.next() {
            _ = try checker.check(piece.bytes) { key, row throws(StateError) in try state?.add(key: key, row: row) }
        }
        guard let applied = checker.applied else { throw .corrupt }
        do { try state?.finish() } catch { throw .state(error) }
        return Contents(
            metadata: checker.header.metadata, clusterVersion: checker.header.clusterVersion, applied: applied,
            rows: checker.rows, bytes: checker.bytes)
    }

    /// Makes `data`, which must be new or empty, the directory of a new cluster's only member, with the snapshot's tree and
    /// revisions that go on from its last one.
    package static func restore(_ file: String, to data: String, id: UInt64, address: Address) throws -> Contents {
        let directory = try DataDirectory(path: data)
        guard try directory.store.identity() == nil else {
            throw StartError("\(data): belongs to a member already; name an empty directory with --data")
        }
        let contents: Contents
        do {
            // Left by a restore that was broken off.
            DataDirectory.removeStates(in: data) { _ in true }
            let state = try StateImport(path: directory.prepareState(1), reserve: 0)
            contents = try read(file, into: state)
        } catch let error as SnapshotError {
            DataDirectory.removeStates(in: data) { _ in true }
            throw StartError("\(file): \(error)")
        }
        let identity = Identity(
            memberID: id, incarnation: UInt64.random(in: 1...UInt64.max), founders: "\(id)=\(address)")
        let alone = Configuration(
            clusterID: UInt64.random(in: 1...UInt64.max),
            members: [Member(id: id, peer: PeerID(identity.incarnation), address: address.description)])
        try directory.store.restore(identity, contents.metadata, alone: alone)
        return contents
    }
}
