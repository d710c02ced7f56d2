import Driver
import FileTree
import Logging
import NIOCore
import Raft
import WireProtocol

/// A damaged state takes nothing from the cluster but this member's wish to lead: log and vote are sound, and go on. It is
/// replaced by a snapshot from another member, from which on the log is executed again.
extension Replica {
    var others: [Member] { core.configuration.otherVoters(than: core.id) }

    func stateIsDamaged(_ found: StateDamage) {
        guard !isStopped, let response = health.found(found, isAlone: others.isEmpty, now: core.now) else { return }
        let metadata: Logger.Metadata = ["damage": "\(found.reason)"]
        if response.refusesBackups { refuseBackups() }
        if response.dropsSpools { dropSpools() }
        if response.isAlone {
            guard response.isNews else { return }
            return logger.critical("damaged, and no other member has a copy: restore a backup", metadata: metadata)
        }
        logger.error("damaged: a sound copy will be taken from the others", metadata: metadata)
        do { try found.mark(directory) } catch { return server.unwritable(error) }
        giveWay()
        if fetch == nil { fetchState() }
    }

    /// The state thread met what it can't go on with.
    func stateFailed(_ error: StateError) {
        if case .damagedEntry(let index) = error { return entryIsDamaged(index, isLast: true) }
        guard error.isDamage else { return server.fatal("the state can't be used: \(error)") }
        // Of a state and its copy that differ, nobody knows which is right.
        let kind: StateDamage.Kind = error == .wrongDigest && !others.isEmpty ? .wrong : .stopped
        stateIsDamaged(StateDamage(kind: kind, reason: "\(error)"))
    }

    /// Another member leads on, if one can: its state may be sound.
    func giveWay() {
        guard core.role == .leader, core.transferTarget == nil, !isDraining, health.givesWay(now: core.now) else {
            return
        }
        step(.transferLeadership(to: nil))
    }

    /// Takes snapshots of the other members.
    ///
    /// - Parameter progress: counts what has come.
    func snapshotFetch(_ progress: WorkProgress = WorkProgress()) -> SnapshotFetch {
        let this = NIOLoopBound(self, eventLoop: loop)
        let loop = loop
        return SnapshotFetch(
            nodes: { try await loop.submit { this.value.others.map(this.value.options.moved.address) }.get() },
            memberID: identity.memberID, peer: core.id, clusterID: clusterID, directory: directory,
            reserve: options.reserve / 2, rate: options.snapshotRate, logger: logger, progress: progress)
    }

    private func fetchState() {
        let this = NIOLoopBound(self, eventLoop: loop)
        let loop = loop
        let progress = WorkProgress()
        let snapshots = snapshotFetch(progress)
        let task = Task {
            do {
                try await snapshots.run(
                    allot: { try await loop.submit { this.value.exchange.allot() }.get() },
                    use: { metadata, number in
                        await withCheckedContinuation { continuation in
                            loop.execute {
                                this.value.offer(
                                    StateExchange.Replacement(metadata: metadata, number: number) {
                                        continuation.resume(returning: $0)
                                    })
                            }
                        }
                    })
            } catch {
                // Cancelled: there is no need any more.
            }
        }
        fetch = StateFetch(task: task, progress: progress)
    }

    /// Another member's state on its way here.
    struct StateFetch {
        let task: Task<Void, Never>
        let progress: WorkProgress
    }

    /// Another state has taken the place of the one that was damaged, or it was found sound.
    func stateIsSound() {
        guard health.becameSound() else { return }
        digests.stateReplaced()
        do { try StateDamage.unmark(directory) } catch { return server.unwritable(error) }
        fetch?.task.cancel()
        fetch = nil
    }

    /// All rows were read from `began` on, and are sound.
    func secondLookFoundNothing(since began: Nanoseconds) {
        guard !exchange.isReplacing, health.isDisproved(bySoundReadingSince: began) else { return }
        logger.notice("repaired: a second look finds no damage")
        stateIsSound()
    }

    // MARK: the log

    private static let logRepairPause = TimeAmount.seconds(2)

    /// An entry of the log is damaged that is there by all that is known.
    ///
    /// What the durable state has executed needs no entry: the log begins behind it. Anything else is executed and durable
    /// within a second or so, unless the state is damaged too; then the member begins anew, to be repaired before it votes.
    ///
    /// - Parameter isLast: there is nothing to wait for.
    func entryIsDamaged(_ index: Index, isLast: Bool = false) {
        guard !isStopped, index > core.log.compactedIndex else { return }
        let metadata: Logger.Metadata = ["damage": "log entry \(index)"]
        if index <= compactable, health.damage == nil {
            compact(through: compactable)
            logger.notice(
                "repaired: the log begins behind a damaged entry that the state has executed", metadata: metadata)
        } else if isLast {
            // A member that ends is repaired when it begins again.
            guard !isDraining else { return }
            drain { [server] in server.restart("log entry \(index) is damaged") }
        } else {
            logger.error("damaged", metadata: metadata)
            let this = NIOLoopBound(self, eventLoop: loop)
            loop.scheduleTask(in: Self.logRepairPause) { this.value.entryIsDamaged(index, isLast: true) }
        }
    }
}
