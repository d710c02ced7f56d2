import CrashPoints
import LMDB

/// The LMDB environment that holds one state, with its one database opened: nobody who reads it later has to wait for
/// the write transaction that the state's owner keeps open.
package struct StateEnvironment: Sendable {
    /// The addresses set aside for a state; its file is sparse and grows with use.
    package static let mapBytes = 1 << 40

    let environment: Environment
    let database: Database

    /// Opens, or creates, the state in the existing directory `path`. A process opens a directory once at a time.
    package init(path: String) throws(StateError) {
        do throws(LMDBError) {
            let opened = try Environment(path: path, mapSize: Self.mapBytes, databases: 4)
            environment = opened
            database = try opened.database("state")
        } catch {
            throw .store(error.code)
        }
        CrashPoint.stateOpened.reach()
    }

    package var path: String { environment.path }
    /// Bytes that the file may still grow by, until its map is full.
    package var unmappedBytes: Int { environment.unmappedBytes }
    /// Bytes of the file in use or free for reuse.
    package var usedBytes: Int { environment.usedBytes }
    /// Bytes that are free on the disk under it; 0 when that can't be found out.
    package var freeDiskBytes: UInt64 { environment.freeDiskBytes }
    package var isInPlace: Bool { environment.isInPlace }
    package var oldestReaderCommits: Int { environment.oldestReaderCommits }
    /// Bytes of the file that hold nothing; 0 when that can't be found out.
    package var reusableBytes: Int { (try? environment.reusableBytes()) ?? 0 }
}
