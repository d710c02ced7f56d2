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

    /// Makes `data`, which must be new or empty, the directory of a new cluster's only member, with the snapshot's tree. Its
    /// revisions begin beyond any that were given out before: see `FirstRevision`.
    ///
    /// - Parameter warn: told what whoever restores should know.
    package static func restore(
        _ file: String, to data: String, id: UInt64, address: Address, wallTime: Int64 = Clock.wall,
        warn: (String) -> Void = { _ in }
    ) throws -> Contents {
        let directory = try DataDirectory(path: data)
        guard try directory.store.identity() == nil else {
            throw StartError("\(data): belongs to a member already; name an empty directory with --data")
        }
        do { return try restore(file, to: directory, id: id, address: address, wallTime: wallTime, warn) } catch {
            directory.discard()
            throw error
        }
    }

    private static func restore(
        _ file: String, to directory: DataDirectory, id: UInt64, address: Address, wallTime: Int64,
        _ warn: (String) -> Void
    ) throws -> Contents {
        let contents: Contents
        let number: UInt64 = 1
        // Left by a restore that was broken off.
        DataDirectory.removeStates(in: directory.path) { _ in true }
        let path = try directory.prepareState(number)
        do { contents = try read(file, into: StateImport(path: path, reserve: 0)) } catch let error as SnapshotError {
            throw StartError("\(file): \(error)")
        } catch let error as StateError { throw StartError("\(path): \(error)") }
        let identity = Identity(
            memberID: id, incarnation: UInt64.random(in: 1...UInt64.max), founders: "\(id)=\(address)")
        let last = SnapshotMetadata(
            index: contents.metadata.index, term: contents.metadata.term,
            configuration: Configuration(
                clusterID: UInt64.random(in: 1...UInt64.max),
                members: [Member(id: id, peer: PeerID(identity.incarnation), address: address.description)]))
        try begin(identity, in: directory, behind: last, stateNumber: number, wallTime: wallTime, warn)
        return contents
    }

    /// Makes the directory that of a new cluster's only member, whose state has executed all up to `last`, and can't be the
    /// member's before that.
    static func begin(
        _ identity: Identity, in directory: DataDirectory, behind last: SnapshotMetadata, stateNumber: UInt64,
        wallTime: Int64, _ warn: (String) -> Void
    ) throws {
        guard
            let base = FirstRevision.base(
                after: last.index, wallTime: wallTime, random: UInt64.random(in: 0...UInt64.max))
        else {
            throw StartError(
                "\(directory.path): no revisions are left that were never given out: the machine's clock is, or was, "
                    + "centuries ahead; set it, and try again")
        }
        if base.isClockBehind {
            warn(
                "the machine's clock is behind the revisions that were given out before, or was ahead then: the new ones begin "
                    + "by chance, far beyond the last that is known")
        }
        let state = DataDirectory.statePath(in: directory.path, stateNumber)
        do throws(StateError) { try StateEnvironment(path: state).move(to: base.index) } catch {
            throw StartError("\(state): \(error)")
        }
        try DataDirectory.sync(state)
        try DataDirectory.sync(directory.path)
        try directory.store.begin(
            identity,
            behind: SnapshotMetadata(index: base.index, term: last.term, configuration: last.configuration),
            stateNumber: stateNumber)
    }
}
