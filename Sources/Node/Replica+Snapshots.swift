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
    var compactable: Index { isStateSettled ? min(lastReport.durableIndex, core.applied, nextState ?? .max) : 0 }

    func compact(through index: Index) {
        step(.compact(through: index))
        let log = core.log
        logWriter.compact(
            behind: SnapshotMetadata(
                index: log.compactedIndex, term: log.compactedTerm,
                configuration: log.configuration(at: log.compactedIndex)))
        logger.debug("log compacted", metadata: ["index": "\(log.compactedIndex)"])
    }

    /// The last index that every peer which is there, or is getting a snapshot, has. One whose transfer broke off goes on with
    /// the same snapshot, as long as that is kept: it would be of no use if the log began behind it.
    private var neededByPeers: Index? {
        let present = core.peers.filter { core.now - $0.lastContact < core.limits.electionTimeout }
        let matches = present.filter { $0.state != .snapshot }.map(\.match)
        let held = transfers.values.map { $0.index ?? $0.floor } + (rewriting.map { [$0.copied] } ?? [])
        let brokenOff = failedTransfers.isEmpty ? nil : spool?.header.metadata.index
        return (matches + held + [brokenOff].compactMap(\.self)).min()
    }

    /// What the state has that the log names, or is about to name, as the member's: what follows must never go.
    private var nextState: Index? {
        let copied = rewriting.flatMap { $0.isDecided ? $0.copied : nil }
        return [replacement?.metadata.index, copied].compactMap(\.self).min()
    }

    // MARK: sending

    /// How long a peer whose transfer broke off waits for the next.
    private static let transferPause: Nanoseconds = 2_000_000_000

    func sendSnapshot(to peer: PeerID) {
        guard let address = recorded(peer).flatMap({ Address($0.address) }) else {
            step(.snapshotEnded(peer: peer, installed: nil))
            return
        }
        guard damage?.kind != .wrong else { return step(.snapshotEnded(peer: peer, installed: nil)) }
        // Spooling a state again and again for a peer that can't take it would only wear the disk.
        if let failed = failedTransfers[peer], core.now - failed < Self.transferPause {
            step(.snapshotEnded(peer: peer, installed: nil))
            return
        }
        let transfer = SnapshotTransfer(
            from: core.id, to: peer, term: core.term, floor: lastReport.durableIndex, rate: options.snapshotRate,
            reader: reader, loop: loop, ended: { [weak self] in self?.transferEnded($0, isInstalled: $1) })
        transfers[peer] = transfer
        withSpool(covering: core.log.compactedIndex) { [unowned self] result in
            switch result {
            case .success(let spool):
                let index = spool.header.metadata.index
                logger.info("sending a snapshot", metadata: ["peer": "\(memberID(of: peer))", "index": "\(index)"])
                transfer.start(spool, to: address, hello: { [unowned self] in hello(.snapshot) })
            case .failure(let error): transfer.end(isInstalled: false, failure: "\(error)")
            }
        }
    }

    func memberID(of peer: PeerID) -> UInt64 { core.configuration.member(peer)?.id ?? 0 }

    /// How long a snapshot that nobody takes is kept for the next, or for one that comes back.
    private static let spoolKept: Nanoseconds = 60_000_000_000

    /// The snapshots that somebody takes. The last one that was made goes when the next is, unless it is one of them.
    private var takenSpools: [Spool] { distinct(backups.values.map(\.spool) + transfers.values.compactMap(\.spool)) }

    /// All snapshots that take room on the disk.
    var spools: [Spool] { distinct(takenSpools + (spool.map { [$0] } ?? [])) }

    private func distinct(_ spools: [Spool]) -> [Spool] {
        spools.reduce(into: []) { known, spool in
            if !known.contains(where: { $0 === spool }) { known.append(spool) }
        }
    }

    /// The last snapshot that was made, if it covers `index`.
    private func spool(covering index: Index) -> Spool? {
        guard let spool, spool.header.metadata.index >= index, !spool.hasFailed,
            spool.header.metadata.configuration.clusterID == clusterID
        else { return nil }
        spoolUsedAt = core.now
        return spool
    }

    /// Answers with a snapshot of everything through `index` at the least: the last one made, if that will do.
    func withSpool(covering index: Index, then use: @escaping (Result<Spool, SnapshotError>) -> Void) {
        if let spool = spool(covering: index) { return use(.success(spool)) }
        spoolRequests.append((index, use))
        makeSpoolIfWanted()
    }

    /// Waits until the state thread is with the state that is the member's now.
    func makeSpoolIfWanted() {
        guard !spoolRequests.isEmpty, !isSpooling, isStateSettled else { return }
        isSpooling = true
        let this = NIOLoopBound(self, eventLoop: loop)
        let number = stateNumber
        spooler.spool(lastReport.environment) { result in
            this.value.isSpooling = false
            // What was spooled may be a state that was found wrong meanwhile, or that another has taken the place of.
            if number == this.value.stateNumber, this.value.damage?.kind != .wrong {
                this.value.spoolBegan(result)
            } else {
                this.value.makeSpoolIfWanted()
            }
        }
    }

    /// Nobody gets any more of what was made from a state that is wrong.
    func dropSpools() {
        spool = nil
        backups = [:]
        let requests = spoolRequests
        spoolRequests = []
        for request in requests { request.use(.failure(.corrupt)) }
        for transfer in transfers.values { transfer.end(isInstalled: false, failure: "the state is damaged") }
    }

    private func spoolBegan(_ result: Result<Spool, SnapshotError>) {
        guard !isStopped else { return }
        let requests = spoolRequests
        spoolRequests = []
        guard case .success(let spool) = result else {
            for request in requests { request.use(result) }
            return
        }
        self.spool = spool
        spoolUsedAt = core.now
        // A state that has not executed its new cluster's first entry still bears the name of the one that it came from.
        let isOwn = spool.header.metadata.configuration.clusterID == clusterID
        let covered = isOwn ? spool.header.metadata.index : 0
        spoolRequests = requests.filter { $0.index > covered }
        makeSpoolIfWanted()
        for request in requests where request.index <= covered { request.use(result) }
    }

    /// How long a part of a snapshot is kept for a sender that may come back.
    private static let receivingKept: Nanoseconds = 600_000_000_000

    /// Lets go of a snapshot that nobody wanted for a while, and tells how far those go that are under way.
    func tendSnapshots() {
        if transfers.values.contains(where: { $0.spool === spool }) { spoolUsedAt = core.now }
        if spool != nil, core.now - spoolUsedAt > Self.spoolKept { spool = nil }
        if !backups.isEmpty { backups = backups.filter { core.now - $0.value.usedAt <= Self.spoolKept } }
        if let last = receiving?.at, core.now - last > Self.receivingKept {
            receiving = nil
            reader.dropIncoming()
        }
        guard core.now - progressToldAt >= Self.progressInterval else { return }
        progressToldAt = core.now
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
        guard !isStopped else { return }
        var metadata: Logger.Metadata = [
            "peer": "\(memberID(of: transfer.peer))", "index": "\(transfer.index ?? 0)",
            "bytes": "\(transfer.bytes)",
        ]
        if transfer.resumedAt > 0 { metadata["resumed_at_piece"] = "\(transfer.resumedAt)" }
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

    // MARK: backups

    /// So many at most lie on the disk for clients; who wants a newer one waits until an older one is taken.
    private static let spoolsMax = 2
    /// Who has come no further with its snapshot for so long gives it up when others wait.
    private static let backupIdleMax: Nanoseconds = 5_000_000_000

    /// Begins the snapshots of clients whose index is durable by now.
    func beginBackups() {
        guard !backupWaiters.isEmpty else { return }
        let waiting = backupWaiters
        backupWaiters = []
        if takenSpools.count >= Self.spoolsMax {
            backups = backups.filter { core.now - $0.value.advancedAt <= Self.backupIdleMax }
        }
        for (index, waiter, deadline) in waiting {
            guard deadline > core.now else {
                refuse(waiter, .deadlinePassed)
                continue
            }
            guard index <= lastReport.durableIndex,
                spool(covering: index) != nil || takenSpools.count < Self.spoolsMax
            else {
                backupWaiters.append((index, waiter, deadline))
                continue
            }
            withSpool(covering: index) { [unowned self] result in
                guard let connection = connections[waiter.connection] else { return }
                let spool: Spool
                switch result {
                case .success(let made): spool = made
                case .failure(let error): return refuseSnapshot(waiter, error)
                }
                backups[connection.id] = Backup(spool: spool, usedAt: core.now, advancedAt: core.now)
                let metadata = spool.header.metadata
                answer(waiter) { $0.writeMultipleIntegers(UInt16(0), metadata.index, metadata.term) }
                scheduleTurn()
            }
        }
    }

    /// Nobody gets a snapshot of a state that goes no further.
    func refuseBackups() {
        let waiting = backupWaiters
        backupWaiters = []
        for (_, waiter, _) in waiting { refuse(waiter, .corrupt) }
    }

    func readBackup(_ number: UInt32, for waiter: Waiter) {
        guard let spool = backups[waiter.connection]?.spool else { return refuse(waiter, .malformed) }
        backups[waiter.connection]?.read(number, at: core.now)
        spoolUsedAt = core.now
        let this = NIOLoopBound(self, eventLoop: loop)
        let loop = loop
        spool.whenAvailable(number) {
            loop.execute {
                guard !this.value.isStopped else { return }
                this.value.reader.piece(number, of: spool) { this.value.answer($0, for: waiter) }
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
            if piece.isLast { backups[waiter.connection] = nil }
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
        let waiting = piecesWaiting[connection.id, default: 0]
        guard waiting < Self.piecesWaitingMax else {
            throw Goodbye(.busy, "pieces of a snapshot come faster than they are taken in")
        }
        guard piecesWaiting.values.reduce(0, +) < 4 * Self.piecesWaitingMax else {
            return answer(piece, .refused, on: connection.id)
        }
        piecesWaiting[connection.id] = waiting + 1
        // Never a number that was used before: an older transfer's state may be on its way to being installed.
        if piece.number == 0 { lastStateNumber += 1 }
        receiving = ((piece.number == 0 ? 0 : receiving?.bytes ?? 0) + UInt64(piece.bytes.readableBytes), core.now)
        let this = NIOLoopBound(self, eventLoop: loop)
        let id = connection.id
        reader.receive(
            piece, over: id, clusterID: clusterID, stateNumber: lastStateNumber
        ) { received in
            this.value.received(received, piece, on: id)
        }
    }

    /// A sound sender has fewer on their way.
    private static let piecesWaitingMax = 8

    private func received(_ received: ReaderThread.Received, _ piece: SnapshotPiece, on connection: UInt64) {
        let waiting = piecesWaiting[connection, default: 1] - 1
        piecesWaiting[connection] = waiting == 0 ? nil : waiting
        guard !isStopped else { return }
        switch received {
        case .taken: answer(piece, .taken, on: connection)
        case .resumed(let number): answer(number, .resumed, on: connection)
        case .refused(let error):
            receiving = nil
            logger.warning("snapshot refused", metadata: ["piece": "\(piece.number)", "reason": "\(error)"])
            answer(piece, .refused, on: connection)
        case .complete(let snapshot, let number):
            receiving = nil
            // What the core gathered before belongs to the log as it was.
            performActions()
            receivedState = number
            step(
                .message(
                    Message(from: piece.from, to: core.id, term: piece.term, body: .installSnapshot(snapshot.metadata)))
            )
            performActions()
            // The core had no use for it: it was late.
            if receivedState != nil { reader.removeState(number) }
            receivedState = nil
            answer(piece, .complete, on: connection)
            scheduleTurn()
        }
    }

    private func answer(_ piece: SnapshotPiece, _ outcome: SnapshotReceipt.Outcome, on id: UInt64) {
        answer(piece.number, outcome, on: id)
    }

    private func answer(_ number: UInt32, _ outcome: SnapshotReceipt.Outcome, on id: UInt64) {
        guard let connection = connections[id] else { return }
        connection.write { SnapshotReceipt(number: number, outcome: outcome).write(to: &$0) }
        connection.flush()
    }

    /// The core installs the snapshot that was just received: its write makes the state that was built from it the one
    /// in use. Until that write is on the disk nothing more is executed, and the old state stays.
    func switchState(to snapshot: SnapshotMetadata, _ write: Write) {
        guard let number = receivedState else { preconditionFailure("a snapshot is installed that nobody received") }
        receivedState = nil
        abandonRewriting()
        abandonReplacing()
        formerStates.append(stateNumber)
        stateNumber = number
        switchWrite = write.number
        stateThread.send(.replace(path: DataDirectory.statePath(in: directory, number)))
        stateIsSound()
        logger.info("snapshot installed", metadata: ["index": "\(snapshot.index)", "term": "\(snapshot.term)"])
    }
}
