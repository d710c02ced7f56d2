import CrashPoints
import FileTree
import Glibc
import NIOCore
import Raft
import RaftLog
import Snapshots
import Threads
import WireProtocol

/// What the log gave of the entries that were asked for, and what stopped it.
struct ReadEntries: Sendable {
    var entries: [EntryRecord]
    var failure: LogError?
}

/// The thread for cold reads and for snapshots: entries that left the memory, spooling, and building a state from what a
/// leader sends. None of it may make a request or a heartbeat wait.
final class ReaderThread: Sendable {
    private enum Job: Sendable {
        case entries(EntriesRequest, @Sendable (ReadEntries) -> Void)
        case spool(StateEnvironment, transfer: UInt64, @Sendable (Result<SnapshotHeader, SnapshotError>) -> Void)
        case piece(transfer: UInt64, @Sendable (Result<Piece, SnapshotError>) -> Void)
        case endTransfer(UInt64)
        case receive(SnapshotPiece, over: UInt64, clusterID: UInt64, stateNumber: UInt64, @Sendable (Received) -> Void)
        case removeStates(before: UInt64)
        case removeState(UInt64)
    }

    typealias Piece = (bytes: ByteBuffer, isLast: Bool)

    /// What became of a piece.
    enum Received: Sendable {
        case taken
        /// The snapshot is whole, and stands as a durable state in the directory of this number.
        case complete(SnapshotHeader, stateNumber: UInt64)
        case refused(SnapshotError)
    }

    private let thread: OwnedThread<Job>
    private let loop: any EventLoop

    /// - Parameter directory: the member's; snapshots are spooled there, and states built.
    init(store: LogStore, directory: String, loop: any EventLoop) {
        self.loop = loop
        thread = OwnedThread(name: "reader") {
            let worker = Worker(store: store, directory: directory)
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

    /// Writes the last commit of `environment` to a file, from which this transfer's pieces are read.
    func spool(
        _ environment: StateEnvironment, for transfer: UInt64,
        done: @escaping @Sendable (Result<SnapshotHeader, SnapshotError>) -> Void
    ) {
        thread.send(.spool(environment, transfer: transfer, onLoop(done)))
    }

    /// Reads the transfer's next piece.
    func piece(of transfer: UInt64, done: @escaping @Sendable (Result<Piece, SnapshotError>) -> Void) {
        thread.send(.piece(transfer: transfer, onLoop(done)))
    }

    func endTransfer(_ transfer: UInt64) { thread.send(.endTransfer(transfer)) }

    /// Checks a piece and builds the state in the directory of `stateNumber` from it. Its first piece begins a snapshot,
    /// and ends any other that was being received; the rest must come in order over the same connection.
    func receive(
        _ piece: SnapshotPiece, over connection: UInt64, clusterID: UInt64, stateNumber: UInt64,
        done: @escaping @Sendable (Received) -> Void
    ) {
        thread.send(
            .receive(piece, over: connection, clusterID: clusterID, stateNumber: stateNumber, onLoop(done)))
    }

    /// Removes the states that were in use before this one. Numbers only grow, so that none is touched that is being built
    /// or waits to be installed.
    func removeStates(before number: UInt64) { thread.send(.removeStates(before: number)) }

    /// Removes a state that was received and is of no use.
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
        private var transfers: [UInt64: SnapshotFile] = [:]
        private var incoming: Incoming?

        /// The snapshot that is being received.
        private struct Incoming {
            let receiver: SnapshotReceiver
            let connection: UInt64
            let stateNumber: UInt64
            var nextPiece: UInt32 = 1
        }

        init(store: LogStore, directory: String) {
            self.store = store
            self.directory = directory
        }

        func run(_ job: Job) {
            switch job {
            case .entries(let request, let done): done(entries(request))
            case .spool(let environment, let transfer, let done):
                done(attempt { () throws(SnapshotError) in try spool(environment, for: transfer) })
            case .piece(let transfer, let done):
                done(attempt { () throws(SnapshotError) in try nextPiece(of: transfer) })
            case .endTransfer(let transfer): transfers[transfer] = nil
            case .receive(let piece, let connection, let clusterID, let stateNumber, let done):
                do throws(SnapshotError) {
                    done(try receive(piece, over: connection, clusterID: clusterID, stateNumber: stateNumber))
                } catch {
                    if incoming?.connection == connection { dropIncoming() }
                    done(.refused(error))
                }
            case .removeStates(let number):
                CrashPoint.statesRemoveBefore.reach()
                DataDirectory.removeStates(in: directory) { $0 < number }
                CrashPoint.statesRemoveAfter.reach()
            case .removeState(let number): DataDirectory.remove(DataDirectory.statePath(in: directory, number))
            }
        }

        private func attempt<Value>(
            _ body: () throws(SnapshotError) -> Value
        ) -> Result<Value, SnapshotError> {
            do throws(SnapshotError) { return .success(try body()) } catch { return .failure(error) }
        }

        /// Also answers with the first entry that is damaged or missing, if it stands in the way.
        private func entries(_ request: EntriesRequest) -> ReadEntries {
            var entries: [EntryRecord] = []
            var bytes = 0
            do throws(LogError) {
                try store.scan(from: request.first) { entry in
                    bytes += Int(entry.header.size)
                    guard entry.header.index <= request.last, entries.isEmpty || bytes <= request.bytesMax else {
                        return false
                    }
                    entries.append(entry)
                    return true
                }
            } catch {
                return ReadEntries(entries: entries, failure: error)
            }
            return ReadEntries(entries: entries, failure: nil)
        }

        // MARK: sending

        private func spool(
            _ environment: StateEnvironment, for transfer: UInt64
        ) throws(SnapshotError) -> SnapshotHeader {
            let view: StateView
            do { view = try StateView(environment) } catch { throw .state(error) }
            let path = directory + "/snapshot"
            let header = try SnapshotWriter.spool(view, to: path)
            transfers[transfer] = try SnapshotFile(path: path)
            // The open file is all that the transfer needs, and goes with it.
            unlink(path)
            return header
        }

        private func nextPiece(of transfer: UInt64) throws(SnapshotError) -> Piece {
            guard let file = transfers[transfer], let piece = try file.next() else { throw .corrupt }
            return piece
        }

        // MARK: receiving

        private func receive(
            _ piece: SnapshotPiece, over connection: UInt64, clusterID: UInt64, stateNumber: UInt64
        ) throws(SnapshotError) -> Received {
            if piece.number == 0 {
                dropIncoming()
                let path = DataDirectory.statePath(in: directory, stateNumber)
                do throws(SnapshotError) {
                    incoming = Incoming(
                        receiver: try begin(piece, in: path, clusterID: clusterID), connection: connection,
                        stateNumber: stateNumber)
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
            let state: StateImport
            do { state = try StateImport(path: path) } catch { throw .state(error) }
            return try SnapshotReceiver(header: header.bytes, clusterID: clusterID, into: state)
        }

        private func dropIncoming() {
            guard let number = incoming?.stateNumber else { return }
            incoming = nil
            DataDirectory.remove(DataDirectory.statePath(in: directory, number))
        }
    }
}
