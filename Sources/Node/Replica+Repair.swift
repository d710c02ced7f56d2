import Driver
import FileTree
import Logging
import NIOCore
import Raft
import WireProtocol

/// A damaged state takes nothing from the cluster but this member's wish to lead: log and vote are sound, and go on. It is
/// replaced by a snapshot from another member, from which on the log is executed again.
extension Replica {
    /// Another member's state on its way to take the place of this one's.
    struct Replacement {
        let metadata: SnapshotMetadata
        let number: UInt64
        /// Called with why it won't do, or with nil once it is in use. Its directory is this member's to remove then.
        let settled: @Sendable (String?) -> Void
        /// The log names it, or is about to.
        var isDecided = false
    }

    var others: [Member] { core.configuration.otherVoters(than: core.id) }

    func stateIsDamaged(_ found: StateDamage) {
        guard !isStopped, found.kind.rawValue > damage?.kind.rawValue ?? -1 else { return }
        let metadata: Logger.Metadata = ["damage": "\(found.reason)"]
        guard !others.isEmpty else {
            // A lone member serves what it can: of what is wrong with it, nobody else knows better.
            if found.kind == .stopped {
                damage = found
                foundAt = core.now
                refuseBackups()
            }
            if toldDamage != found.reason {
                logger.critical("damaged, and no other member has a copy: restore a backup", metadata: metadata)
            }
            toldDamage = found.reason
            return
        }
        damage = found
        foundAt = core.now
        if found.kind != .rotten { refuseBackups() }
        if found.kind == .wrong { dropSpools() }
        logger.error("damaged: a sound copy will be taken from the others", metadata: metadata)
        do { try found.mark(directory) } catch { return unwritable(error) }
        giveWay()
        if fetching == nil { fetchState() }
    }

    /// The state thread met what it can't go on with.
    func stateFailed(_ error: StateError) {
        if case .damagedEntry(let index) = error { return entryIsDamaged(index, isLast: true) }
        guard error.isDamage else { return fatal("the state can't be used: \(error)") }
        // Of a state and its copy that differ, nobody knows which is right.
        let kind: StateDamage.Kind = error == .wrongDigest && !others.isEmpty ? .wrong : .stopped
        stateIsDamaged(StateDamage(kind: kind, reason: "\(error)"))
    }

    /// Whether a read is to be refused by all that is known of the state.
    func mustRefuse(_ read: PendingRead) -> Bool {
        switch damage?.kind {
        case nil, .rotten: false
        case .stopped: read.kind != .stale(ageMax: 0)
        case .wrong, .contradicted: true
        }
    }

    /// How long a damaged leader that found no successor, or was elected again, goes on before it tries once more.
    private static let giveWayPause: Nanoseconds = 3_000_000_000

    /// Another member leads on, if one can: its state may be sound.
    func giveWay() {
        guard damage != nil, core.role == .leader, core.transferTarget == nil, draining == nil,
            core.now - gaveWayAt >= Self.giveWayPause
        else { return }
        gaveWayAt = core.now
        step(.transferLeadership(to: nil))
    }

    /// Takes snapshots of the other members.
    var snapshotFetch: SnapshotFetch {
        let this = NIOLoopBound(self, eventLoop: loop)
        let loop = loop
        return SnapshotFetch(
            nodes: { try await loop.submit { this.value.others.map(this.value.options.moved.address) }.get() },
            memberID: identity.memberID, peer: core.id, clusterID: clusterID, directory: directory,
            reserve: options.reserve / 2, rate: options.snapshotRate, logger: logger,
            progress: fetchProgress)
    }

    private func fetchState() {
        let this = NIOLoopBound(self, eventLoop: loop)
        let loop = loop
        let fetch = snapshotFetch
        fetching = Task {
            do {
                try await fetch.run(
                    allot: {
                        try await loop.submit {
                            this.value.lastStateNumber += 1
                            return this.value.lastStateNumber
                        }.get()
                    },
                    use: { metadata, number in
                        await withCheckedContinuation { continuation in
                            loop.execute {
                                this.value.replaceState(
                                    Replacement(metadata: metadata, number: number) {
                                        continuation.resume(returning: $0)
                                    })
                            }
                        }
                    })
            } catch {
                // Cancelled: there is no need any more.
            }
        }
    }

    // MARK: replacing the state

    private func replaceState(_ new: Replacement) {
        guard !isStopped, damage != nil, replacement == nil else {
            return decline(new, "it is not needed any more")
        }
        guard new.metadata.index >= core.log.compactedIndex else {
            return decline(new, "it is older than what the log begins with")
        }
        replacement = new
        continueReplacing()
    }

    private func decline(_ new: Replacement, _ reason: String) {
        reader.removeState(new.number)
        new.settled(reason)
    }

    /// Lets the log name the new state, once the log reaches it: from there on it is executed again.
    func continueReplacing() {
        // While the log is about to name a copy of the present state, nobody knows which of the two may go.
        guard let new = replacement, !new.isDecided, rewriting?.isBeingNamed != true,
            new.metadata.index <= min(core.commit, core.durableIndex)
        else { return }
        abandonRewriting()
        guard core.log.term(at: new.metadata.index) == new.metadata.term else {
            replacement = nil
            return decline(new, "it does not fit this member's log")
        }
        replacement?.isDecided = true
        let this = NIOLoopBound(self, eventLoop: loop)
        let loop = loop
        logWriter.switchState(to: new.number) {
            loop.execute { this.value.stateIsReplaced(by: new.number) }
        }
    }

    private func stateIsReplaced(by number: UInt64) {
        guard !isStopped else { return }
        performActions()
        // A snapshot of a leader's that was installed meanwhile has taken the place of both.
        guard let new = replacement, new.number == number else { return }
        // The new state may lack what these must not miss, until the log was executed again.
        sendReads()
        step(.stateReplaced(new.metadata.index))
        formerStates.append(stateNumber)
        stateNumber = number
        stateThread.send(.replace(path: DataDirectory.statePath(in: directory, number)))
        dropSpools()
        replacement = nil
        stateIsSound()
        new.settled(nil)
        scheduleTurn()
    }

    /// Another state has taken the place of the one that was damaged.
    func stateIsSound() {
        guard damage != nil else { return }
        damage = nil
        toldDamage = ""
        // What the other state was at those indexes says nothing of this one.
        ownDigests = []
        do { try StateDamage.unmark(directory) } catch { return unwritable(error) }
        fetching?.cancel()
        fetching = nil
    }

    /// All rows were read from `began` on, and are sound: what was found before was written anew, or never was.
    func secondLookFoundNothing(since began: Nanoseconds) {
        guard damage?.kind == .rotten, replacement == nil, began > foundAt else { return }
        logger.notice("repaired: a second look finds no damage")
        stateIsSound()
    }

    /// A leader's snapshot takes the place of the state, damaged or not, and of whatever was to replace it.
    func abandonReplacing() {
        guard let replacement else { return }
        self.replacement = nil
        let reason = "a snapshot of the leader's has taken the state's place"
        guard replacement.isDecided else { return decline(replacement, reason) }
        // The log may name it until the snapshot's own write is on the disk.
        formerStates.append(replacement.number)
        replacement.settled(reason)
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
        if index <= compactable, damage == nil {
            compact(through: compactable)
            logger.notice(
                "repaired: the log begins behind a damaged entry that the state has executed", metadata: metadata)
        } else if isLast {
            // A member that ends is repaired when it begins again.
            guard draining == nil else { return }
            drain { [restart] in restart("log entry \(index) is damaged") }
        } else {
            logger.error("damaged", metadata: metadata)
            let this = NIOLoopBound(self, eventLoop: loop)
            loop.scheduleTask(in: Self.logRepairPause) { this.value.entryIsDamaged(index, isLast: true) }
        }
    }
}
