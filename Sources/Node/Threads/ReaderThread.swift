import CrashPoints
import FileTree
import Glibc
import NIOCore
import Raft
import RaftLog
import Snapshots
import Threads
import WireProtocol

/// What the log gave of the entries that were asked for, their records as the leader made them, and what stopped it.
struct ReadEntries: Sendable {
    var entries: [EntryHeader] = []
    var records: [ByteBuffer] = []
    var failure: LogError?
}

/// The thread for cold reads: entries that left the memory, a snapshot's pieces, and building a state from what a leader
/// sends. None of it may make a request or a heartbeat wait.
final class ReaderThread: Sendable {
    private enum Job: Sendable {
        case entries(EntriesRequest, @Sendable (ReadEntries) -> Void)
        case piece(UInt32, Spool, @Sendable (Result<Piece, SnapshotError>) -> Void)
        case receive(SnapshotPiece, over: UInt64, clusterID: UInt64, stateNumber: UInt64, @Sendable (Received) -> Void)
        case dropIncoming
        case removeState(UInt64)
    }

    typealias Piece = (bytes: ByteBuffer, isLast: Bool)

    /// What became of a piece.
    enum Received: Sendable {
        case taken
        /// It is the header of the snapshot that is being received already, as far as this piece.
        case resumed(UInt32)
        /// The snapshot is whole, and stands as a durable state in the directory of this number.
        case complete(SnapshotHeader, stateNumber: UInt64)
        case refused(SnapshotError)
    }

    private let thread: OwnedThread<Job>
    private let loop: any EventLoop

    /// - Parameter directory: the member's; states are built there.
    init(store: LogStore, directory: String, reserve: UInt64, loop: any EventLoop) {
        self.loop = loop
        thread = OwnedThread(name: "reader") {
            let worker = Worker(store: store, directory: directory, reserve: reserve)
            return (
                handle: { jobs in
                    for job in jobs { worker.run(job) }
                }, finish: {}
            )
        }
    }

    /// Reads entries for a peer. All completions are called on the loop's thread.
    func read(_ request: EntriesRequest, done: @escaping @Sendable (ReadEntries) -> Void) {
        thread.send(.entries(request, onLoop(done)))
    }

    /// Reads a piece that the spool holds.
    func piece(_ number: UInt32, of spool: Spool, done: @escaping @Sendable (Result<Piece, SnapshotError>) -> Void) {
        thread.send(.piece(number, spool, onLoop(done)))
    }

    /// Checks a piece and builds the state in the directory of `stateNumber` from it. Its first piece begins a snapshot,
    /// and ends any other that was being received; the rest must come in order over the same connection.
    func receive(
        _ piece: SnapshotPiece, over connection: UInt64, clusterID: UInt64, stateNumber: UInt64,
        done: @escaping @Sendable (Received) -> Void
    ) {
        thread.send(
            .receive(piece, over: connection, clusterID: clusterID, stateNumber: stateNumber, onLoop(done)))
    }

    /// Gives up the snapshot that is being received, whose sender comes back no more.
    func dropIncoming() { thread.send(.dropIncoming) }

    /// Removes a state that is of no use any more, or never was.
    func removeState(_ number: UInt64) { thread.send(.removeState(number)) }

    func close() { thread.close() }

    private func onLoop<Value: Sendable>(_ done: @escaping @Sendable (Value) -> Void) -> @Sendable (Value) -> Void {
        let loop = loop
        return { value in loop.execute { done(value) } }
    }

    /// The thread's own data.
    private final class Worker {
        private let store: LogStore
        private let directory: String
        private let reserve: UInt64
        private var incoming: Incoming?

        /// The snapshot that is being received.
        private struct Incoming {
            let receiver: SnapshotReceiver
            let from: PeerID
            /// What it began with: the same from the same sender goes on with it.
            let header: ByteBuffer
            var connection: UInt64
            let stateNumber: UInt64
            var nextPiece: UInt32 = 1
        }

        init(store: LogStore, directory: String, reserve: UInt64) {
            self.store = store
            self.directory = directory
            self.reserve = reserve
        }

        func run(_ job: Job) {
            switch job {
            case .entries(let request, let done): done(entries(request))
            case .piece(let number, let spool, let done):
                do throws(SnapshotError) {
                    guard let piece = try spool.piece(number) else { throw .corrupt }
                    done(.success(piece))
                } catch {
                    done(.failure(error))
                }
            case .receive(let piece, let connection, let clusterID, let stateNumber, let done):
                do throws(SnapshotError) {
                    done(try receive(piece, over: connection, clusterID: clusterID, stateNumber: stateNumber))
                } catch {
                    if incoming?.connection == connection { dropIncoming() }
                    done(.refused(error))
                }
            case .dropIncoming: dropIncoming()
            case .removeState(let number):
                CrashPoint.stateRemoveBefore.reach()
                DataDirectory.remove(DataDirectory.statePath(in: directory, number))
                CrashPoint.stateRemoveAfter.reach()
            }
        }

        /// Also answers with the first entry that is damaged or missing, if it stands in the way.
        private func entries(_ request: EntriesRequest) -> ReadEntries {
            var read = ReadEntries()
            var bytes = 0
            do throws(LogError) {
                try store.scan(from: request.first, through: request.last) { entry, record in
                    bytes += Int(entry.header.size)
                    guard entry.header.index <= request.last, read.entries.isEmpty || bytes <= request.bytesMax else {
                        return false
                    }
                    read.entries.append(entry.header)
                    read.records.append(record)
                    return true
                }
            } catch { read.failure = error }
            return read
        }

        // MARK: receiving

        private func receive(
            _ piece: SnapshotPiece, over connection: UInt64, clusterID: UInt64, stateNumber: UInt64
        ) throws(SnapshotError) -> Received {
            if piece.number == 0 {
                if piece.mayResume, let known = incoming, known.from == piece.from, known.header == piece.bytes {
                    incoming?.connection = connection
                    return .resumed(known.nextPiece - 1)
                }
                dropIncoming()
                let path = DataDirectory.statePath(in: directory, stateNumber)
                do throws(SnapshotError) {
                    incoming = Incoming(
                        receiver: try begin(piece, in: path, clusterID: clusterID), from: piece.from,
                        header: piece.bytes, connection: connection, stateNumber: stateNumber)
                } catch {
                    DataDirectory.remove(path)
                    throw error
                }
                return .taken
            }
            guard let receiving = incoming, receiving.connection == connection, receiving.nextPiece == piece.number
            else { throw .corrupt }
            incoming?.nextPiece += 1
            guard try receiving.receiver.receive(piece.bytes) else { return .taken }
            incoming = nil
            CrashPoint.receivedBeforeSync.reach()
            do {
                try DataDirectory.sync(DataDirectory.statePath(in: directory, receiving.stateNumber))
                try DataDirectory.sync(directory)
            } catch { throw .file(errno) }
            CrashPoint.receivedAfterSync.reach()
            return .complete(receiving.receiver.header, stateNumber: receiving.stateNumber)
        }

        private func begin(
            _ header: SnapshotPiece, in path: String, clusterID: UInt64
        ) throws(SnapshotError) -> SnapshotReceiver {
            do { try DataDirectory.makeDirectory(path) } catch { throw .file(errno) }
            return try SnapshotReceiver(header: header.bytes, clusterID: clusterID, into: path, reserve: reserve)
        }

        private func dropIncoming() {
            guard let number = incoming?.stateNumber else { return }
            incoming = nil
            DataDirectory.remove(DataDirectory.statePath(in: directory, number))
        }
    }
}
