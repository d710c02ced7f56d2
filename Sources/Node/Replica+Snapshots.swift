import FileTree
import Logging
import NIOCore
import Raft
import RaftLog
import Snapshots
import Transport
import WireProtocol

/// Snapshots (section 7 of the paper): compacting the log, sending the state to a peer that needs what is gone, and
/// taking in another's state in this one's place.
extension Replica {
    // MARK: compaction

    /// Lets entries go that the durable state covers. The state itself is the snapshot: nothing has to be written first.
    func compactIfDue() {
        guard
            let point = tail.compactionPoint(
                durable: min(lastReport.durableIndex, core.applied), compacted: core.log.compactedIndex,
                needed: neededByPeers)
        else { return }
        step(.compact(through: point))
        let log = core.log
        logWriter.compact(
            behind: SnapshotMetadata(
                index: log.compactedIndex, term: log.compactedTerm,
                configuration: log.configuration(at: log.compactedIndex)))
        logger.debug("log compacted", metadata: ["index": "\(log.compactedIndex)"])
    }

    /// The last index that every peer which is there, or is getting a snapshot, has.
    private var neededByPeers: Index? {
        let present = core.peers.filter { core.now - $0.lastContact < core.limits.electionTimeout }
        let matches = present.filter { $0.state != .snapshot }.map(\.match)
        return (matches + transfers.values.map { $0.index ?? $0.floor }).min()
    }

    // MARK: sending

    /// How long a peer whose transfer broke off waits for the next.
    private static let transferPause: Nanoseconds = 2_000_000_000

    func sendSnapshot(to peer: PeerID) {
        guard let address = recorded(peer).flatMap({ Address($0.address) }) else {
            step(.snapshotEnded(peer: peer, installed: nil))
            return
        }
        // Spooling a state again and again for a peer that can't take it would only wear the disk.
        if let failed = failedTransfers[peer], core.now - failed < Self.transferPause {
            step(.snapshotEnded(peer: peer, installed: nil))
            return
        }
        lastTransfer += 1
        let transfer = SnapshotTransfer(
            id: lastTransfer, from: core.id, to: peer, term: core.term, floor: lastReport.durableIndex, reader: reader,
            loop: loop,
            ended: { [weak self] in self?.transferEnded($0, isInstalled: $1) })
        transfers[peer] = transfer
        transfer.start(lastReport.environment, to: address, hello: { [unowned self] in hello(.snapshot) })
    }

    private func transferEnded(_ transfer: SnapshotTransfer, isInstalled: Bool) {
        guard transfers[transfer.peer] === transfer else { return }
        transfers[transfer.peer] = nil
        guard !isStopped else { return }
        var metadata: Logger.Metadata = [
            "peer": "\(core.configuration.member(transfer.peer)?.id ?? 0)", "index": "\(transfer.index ?? 0)",
            "bytes": "\(transfer.bytes)",
        ]
        failedTransfers[transfer.peer] = isInstalled ? nil : core.now
        if isInstalled {
            logger.info("snapshot sent", metadata: metadata)
        } else {
            metadata["reason"] = "\(transfer.failure ?? "the connection broke")"
            logger.warning("snapshot broke off", metadata: metadata)
        }
        step(.snapshotEnded(peer: transfer.peer, installed: isInstalled ? transfer.index : nil))
        scheduleTurn()
    }

    // MARK: receiving

    /// Takes in a piece of a leader's snapshot. The state is built beside the present one, by the reader's thread.
    func handleSnapshot(_ frame: Frame, from hello: Hello, on connection: FrameConnection) throws {
        let piece = try SnapshotPiece(frame)
        guard piece.from.rawValue == hello.incarnation, piece.to == core.id else { return }
        guard piece.term >= core.term else { return answer(piece, .refused, on: connection.id) }
        // Never a number that was used before: an older transfer's state may be on its way to being installed.
        if piece.number == 0 { lastStateNumber += 1 }
        let this = NIOLoopBound(self, eventLoop: loop)
        let id = connection.id
        reader.receive(
            piece, over: id, clusterID: clusterID, stateNumber: lastStateNumber
        ) { received in
            this.value.received(received, piece, on: id)
        }
    }

    private func received(_ received: ReaderThread.Received, _ piece: SnapshotPiece, on connection: UInt64) {
        guard !isStopped else { return }
        switch received {
        case .taken: answer(piece, .taken, on: connection)
        case .refused(let error):
            logger.warning("snapshot refused", metadata: ["piece": "\(piece.number)", "reason": "\(error)"])
            answer(piece, .refused, on: connection)
        case .complete(let snapshot, let number):
            // What the core gathered before belongs to the log as it was.
            perform(core.takeOutput())
            receivedState = number
            step(
                .message(
                    Message(from: piece.from, to: core.id, term: piece.term, body: .installSnapshot(snapshot.metadata)))
            )
            perform(core.takeOutput())
            // The core had no use for it: it was late.
            if receivedState != nil { reader.removeState(number) }
            receivedState = nil
            answer(piece, .complete, on: connection)
            scheduleTurn()
        }
    }

    private func answer(_ piece: SnapshotPiece, _ outcome: SnapshotReceipt.Outcome, on id: UInt64) {
        guard let connection = connections[id] else { return }
        connection.write { SnapshotReceipt(number: piece.number, outcome: outcome).write(to: &$0) }
        connection.flush()
    }

    /// The core installs the snapshot that was just received: its write makes the state that was built from it the one
    /// in use. Until that write is on the disk nothing more is executed, and the old state stays.
    func switchState(to snapshot: SnapshotMetadata, _ write: Write) {
        guard let number = receivedState else { preconditionFailure("a snapshot is installed that nobody received") }
        receivedState = nil
        stateNumber = number
        switchWrite = write.number
        // The entries behind the snapshot, if any stay, are the window's last.
        while windowFirst <= snapshot.index, !window.isEmpty {
            window.removeFirst()
            windowFirst += 1
        }
        if !write.keepsTail { window.removeAll() }
        if window.isEmpty { windowFirst = core.log.windowFirst }
        dispatched = max(dispatched, snapshot.index)
        stateThread.send(.replace(path: DataDirectory.statePath(in: directory, number)))
        releaseReads()
        logger.info("snapshot installed", metadata: ["index": "\(snapshot.index)", "term": "\(snapshot.term)"])
    }
}
