import Driver
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
                durable: compactable, compacted: core.log.compactedIndex, needed: neededByPeers)
        else { return }
        compact(through: point)
    }

    /// What the log may let go at the most: all states that count, or are about to, have it.
    var compactable: Index {
        isStateSettled ? min(lastReport.durableIndex, core.applied, exchange.indexNamedNext ?? .max) : 0
    }

    func compact(through index: Index) {
        step(.compact(through: index))
        let log = core.log
        threads.logWriter.compact(
            behind: SnapshotMetadata(
                index: log.compactedIndex, term: log.compactedTerm,
                configuration: log.configuration(at: log.compactedIndex)))
        logger.debug("log compacted", metadata: ["index": "\(log.compactedIndex)"])
    }

    /// The last index that every peer which is there, or is getting a snapshot, has.
    private var neededByPeers: Index? {
        let present = core.peers.filter { core.now - $0.lastContact < core.limits.electionTimeout }
        let matches = present.filter { $0.state != .snapshot }.map(\.match)
        return (matches + shelf.needed + [exchange.copied].compactMap(\.self)).min()
    }

    // MARK: sending

    func sendSnapshot(to peer: PeerID) {
        guard recorded(peer).flatMap({ Address($0.address) }) != nil, health.isFitForSnapshots,
            shelf.mayBegin(peer, now: core.now)
        else { return step(.snapshotEnded(peer: peer, installed: nil)) }
        transfers[peer] = SnapshotTransfer(
            from: core.id, to: peer, term: core.term, rate: options.snapshotRate, reader: threads.reader, loop: loop,
            ended: { [weak self] in self?.transferEnded($0, isInstalled: $1) })
        let deliveries = shelf.order(
            for: peer, covering: core.log.compactedIndex, floor: lastReport.durableIndex, clusterID: clusterID,
            now: core.now)
        deliver(deliveries)
        makeSpoolIfWanted()
    }

    func memberID(of peer: PeerID) -> UInt64 { core.configuration.member(peer)?.id ?? 0 }

    /// Hands over what was ordered.
    private func deliver(_ deliveries: [SpoolShelf.Delivery]) {
        for (customer, result) in deliveries {
            switch (customer, result) {
            case (.peer(let peer), .success(let spool)):
                guard let transfer = transfers[peer] else { continue }
                guard let address = recorded(peer).flatMap({ Address($0.address) }) else {
                    transfer.end(isInstalled: false, failure: "its address is not known")
                    continue
                }
                let index = spool.header.metadata.index
                logger.info("sending a snapshot", metadata: ["peer": "\(memberID(of: peer))", "index": "\(index)"])
                transfer.start(spool, to: address, hello: { [unowned self] in hello(.snapshot) })
            case (.peer(let peer), .failure(let error)):
                transfers[peer]?.end(isInstalled: false, failure: "\(error)")
            case (.client(let waiter), .success(let spool)):
                let metadata = spool.header.metadata
                answer(waiter) { $0.writeMultipleIntegers(UInt16(0), metadata.index, metadata.term) }
                scheduleTurn()
            case (.client(let waiter), .failure(let error)): refuseSnapshot(waiter, error)
            }
        }
    }

    /// Waits until the state thread is with the state that is the member's now.
    func makeSpoolIfWanted() {
        guard shelf.begins(isStateSettled: isStateSettled) else { return }
        let this = NIOLoopBound(self, eventLoop: loop)
        let number = exchange.number
        threads.spooler.spool(lastReport.environment) { result in
            let replica = this.value
            guard !replica.isStopped else { return }
            let isOfUse = number == replica.exchange.number && replica.health.isFitForSnapshots
            replica.deliver(
                replica.shelf.made(
                    result, isOfUse: isOfUse, clusterID: replica.clusterID, now: replica.core.now))
            replica.makeSpoolIfWanted()
        }
    }

    /// Nobody gets any more of what was made from a state that is wrong.
    func dropSpools() {
        deliver(shelf.drop())
        for transfer in transfers.values { transfer.end(isInstalled: false, failure: "the state is damaged") }
    }

    /// Lets go of what nobody wanted for a while, and tells how far those go that are under way.
    func tendSnapshots() {
        shelf.tend(now: core.now)
        if incoming.isForgotten(now: core.now) { threads.reader.dropIncoming() }
        guard core.now - turns.progressToldAt >= Self.progressInterval else { return }
        turns.progressToldAt = core.now
        for transfer in transfers.values where transfer.bytes > 0 {
            logger.info(
                "snapshot under way",
                metadata: [
                    "peer": "\(memberID(of: transfer.peer))", "sent_mib": "\(transfer.bytes >> 20)",
                    "of_mib": "\((transfer.spool?.bytes ?? 0) >> 20)",
                ])
        }
    }

    private static let progressInterval: Nanoseconds = 5_000_000_000

    private func transferEnded(_ transfer: SnapshotTransfer, isInstalled: Bool) {
        guard transfers[transfer.peer] === transfer else { return }
        transfers[transfer.peer] = nil
        shelf.transferEnded(transfer.peer, isInstalled: isInstalled, now: core.now)
        guard !isStopped else { return }
        var metadata: Logger.Metadata = [
            "peer": "\(memberID(of: transfer.peer))", "index": "\(transfer.index ?? 0)",
            "bytes": "\(transfer.bytes)",
        ]
        if transfer.resumedAt > 0 { metadata["resumed_at_piece"] = "\(transfer.resumedAt)" }
        if isInstalled {
            logger.info("snapshot sent", metadata: metadata)
        } else {
            metadata["reason"] = "\(transfer.failure ?? "the connection broke")"
            logger.warning("snapshot broke off", metadata: metadata)
        }
        step(.snapshotEnded(peer: transfer.peer, installed: isInstalled ? transfer.index : nil))
        scheduleTurn()
    }

    // MARK: backups

    /// Begins the snapshots of clients whose index is durable by now.
    func beginBackups() {
        let (deliveries, expired) = shelf.beginBackups(
            durable: lastReport.durableIndex, clusterID: clusterID, now: core.now)
        for waiter in expired { refuse(waiter, .deadlinePassed) }
        deliver(deliveries)
        makeSpoolIfWanted()
    }

    /// Nobody gets a snapshot of a state that goes no further.
    func refuseBackups() {
        for waiter in shelf.refuseBackups() { refuse(waiter, .corrupt) }
    }

    func readBackup(_ number: UInt32, for waiter: Waiter) {
        guard let spool = shelf.read(number, by: waiter.connection, now: core.now) else {
            return refuse(waiter, .malformed)
        }
        let this = NIOLoopBound(self, eventLoop: loop)
        let loop = loop
        spool.whenAvailable(number) {
            loop.execute {
                guard !this.value.isStopped else { return }
                this.value.threads.reader.piece(number, of: spool) { this.value.answer($0, for: waiter) }
            }
        }
    }

    private func answer(_ piece: Result<ReaderThread.Piece, SnapshotError>, for waiter: Waiter) {
        switch piece {
        case .success(let piece):
            answer(waiter) { body in
                body.writeMultipleIntegers(UInt16(0), UInt8(piece.isLast ? 1 : 0))
                body.writeImmutableBuffer(piece.bytes)
            }
            if piece.isLast { shelf.finished(waiter.connection) }
        case .failure(let error): refuseSnapshot(waiter, error)
        }
        scheduleTurn()
    }

    /// A disk without room for it says nothing of the state.
    private func refuseSnapshot(_ waiter: Waiter, _ error: SnapshotError) {
        logger.warning("a snapshot was not made", metadata: ["reason": "\(error)"])
        refuse(waiter, error.isFull ? .diskFull : .corrupt)
    }

    // MARK: receiving

    /// Takes in a piece of a leader's snapshot. The state is built beside the present one, by the reader's thread.
    func handleSnapshot(_ frame: Frame, from hello: Hello, on connection: FrameConnection) throws {
        let piece = try SnapshotPiece(frame)
        guard piece.from.rawValue == hello.incarnation, piece.to == core.id else { return }
        guard piece.term >= core.term else { return answer(piece, .refused, on: connection.id) }
        let bytes = piece.bytes.readableBytes
        switch incoming.receive(piece.number, bytes: bytes, over: connection.id, now: core.now) {
        case .take: break
        case .refuse: return answer(piece, .refused, on: connection.id)
        case .tooFast: throw Goodbye(.busy, "pieces of a snapshot come faster than they are taken in")
        }
        // Never a number that was used before: an older transfer's state may be on its way to being installed.
        let stateNumber = piece.number == 0 ? exchange.allot() : exchange.lastAllotted
        let this = NIOLoopBound(self, eventLoop: loop)
        let id = connection.id
        threads.reader.receive(piece, over: id, clusterID: clusterID, stateNumber: stateNumber) { received in
            this.value.received(received, piece, on: id)
        }
    }

    private func received(_ received: ReaderThread.Received, _ piece: SnapshotPiece, on connection: UInt64) {
        let isOver =
            switch received {
            case .refused, .complete: true
            case .taken, .resumed: false
            }
        incoming.takenIn(over: connection, isOver: isOver)
        guard !isStopped else { return }
        switch received {
        case .taken: answer(piece, .taken, on: connection)
        case .resumed(let number): answer(number, .resumed, on: connection)
        case .refused(let error):
            logger.warning("snapshot refused", metadata: ["piece": "\(piece.number)", "reason": "\(error)"])
            answer(piece, .refused, on: connection)
        case .complete(let snapshot, let number):
            // What the core gathered before belongs to the log as it was.
            performActions()
            exchange.received(number)
            step(
                .message(
                    Message(from: piece.from, to: core.id, term: piece.term, body: .installSnapshot(snapshot.metadata)))
            )
            performActions()
            // It was late.
            if let unused = exchange.takeUnused() { threads.reader.removeState(unused) }
            answer(piece, .complete, on: connection)
            scheduleTurn()
        }
    }

    private func answer(_ piece: SnapshotPiece, _ outcome: SnapshotReceipt.Outcome, on id: UInt64) {
        answer(piece.number, outcome, on: id)
    }

    private func answer(_ number: UInt32, _ outcome: SnapshotReceipt.Outcome, on id: UInt64) {
        guard let connection = clients[id] else { return }
        connection.write { SnapshotReceipt(number: number, outcome: outcome).write(to: &$0) }
        connection.flush()
    }

    /// The core installs the snapshot that was just received: its write makes the state that was built from it the one
    /// in use.
    func install(_ snapshot: SnapshotMetadata, by write: Write) {
        perform(exchange.install(by: write.number))
        threads.state.send(.replace(path: DataDirectory.statePath(in: directory, exchange.number)))
        stateIsSound()
        logger.info("snapshot installed", metadata: ["index": "\(snapshot.index)", "term": "\(snapshot.term)"])
    }
}
