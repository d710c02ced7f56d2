import FileTree
import Logging
import NIOCore
import Raft
import RaftLog
import WireProtocol

/// The log's writer and the state's thread: what is handed to them, and what they report.
extension Replica {
    // MARK: the log writer

    func hand(_ write: Write, _ records: [ByteBuffer]) {
        if let snapshot = write.snapshot { install(snapshot, by: write) }
        if write.truncates { tail.truncate(from: write.entries.lowerBound) }
        if let last = write.entries.last {
            tail.append(through: last, bytes: records.reduce(0) { $0 + $1.readableBytes })
        }
        let stateNumber = write.snapshot == nil ? nil : exchange.number
        threads.logWriter.send(LogWriter.Request(write: write, records: records, stateNumber: stateNumber))
    }

    func saved(_ write: UInt64) {
        guard !isStopped else { return }
        disk.watch.committed()
        step(.saved(write: write))
        settleExchange()
        scheduleTurn()
    }

    // MARK: a disk that stands still

    /// How long the oldest write of the log has been under way, in nanoseconds; 0 while that is nothing to speak of.
    var diskWait: Nanoseconds {
        guard let began = core.oldestWriteBegan else { return 0 }
        let waiting = Clock.now - min(began, Clock.now)
        return waiting >= core.limits.writeQuickWithin ? waiting : 0
    }

    func watchDisk() {
        let events = disk.watch.look(
            oldestWriteBegan: core.oldestWriteBegan, gaveWayAt: core.gaveWayAt, now: core.now)
        for event in events {
            switch event {
            case .standsStill:
                logger.warning("this member's disk stands still: a write of the log has waited for over a second")
            case .worksAgain(let time):
                logger.notice(
                    "this member's disk works again", metadata: ["stood_still_ms": "\(time / 1_000_000)"])
            case .handedOver:
                logger.warning("this member's disk stands still: it hands its lead over to one whose disk works")
            }
        }
    }

    /// Whether this is the state that the log names as the member's.
    func isCurrent(_ environment: StateEnvironment) -> Bool {
        environment.path == DataDirectory.statePath(in: directory, exchange.number)
    }

    /// Whether the state thread is with that state, as far as it has told; just after a change it is with the former one.
    var isStateSettled: Bool { isCurrent(lastReport.environment) }

    // MARK: the state thread

    func reported(_ report: StateReport) {
        guard !isStopped else { return }
        for answer in report.answers { forward(answer) }
        if let measured = report.usage { measuredUsage(measured) }
        continueDraining()
        scheduleTurn()
        // What a state was that another has taken the place of says nothing any more.
        guard isCurrent(report.environment) else { return }
        lastReport = report
        lastReport.answers = []
        settleExchange()
        if !report.digests.isEmpty { remember(report.digests) }
        if let error = report.damage { stateIsDamaged(StateDamage(error)) }
        drive { $0.executed(report.applied, now: Clock.now) }
        continueDraining()
        beginBackups()
        makeSpoolIfWanted()
        driver.reclaimIfDue(now: Clock.now)
        raiseVersionIfPossible()
        compactIfDue()
    }

    private func forward(_ answers: StateReport.Answers) {
        guard let connection = clients[answers.connection] else { return }
        connection.requestsInFlight -= answers.count
        if answers.reads > 0 {
            connection.readsEnd(answers.reads, reserved: answers.reservedBytes, bytesMax: answers.readBytesMax)
        }
        for read in answers.tooLong { waitForRoom(read, of: connection) }
        // Long frames go to the socket at once, which may end the connection: what it holds is counted by then.
        connection.write(frames: answers.frames)
        clients.markDirty(connection)
        admitReads(of: connection)
    }

    private func measuredUsage(_ measured: DiskUsage) {
        disk.space.measured(measured)
        guard !measured.isInPlace else { return }
        server.fatal(
            "\(directory): its files were deleted, moved or replaced while this member ran, so that what it writes is "
                + "lost; put them back, or start it with an empty directory and run 'banyan member replace'")
    }

    /// A leader stops taking puts in time, and takes them again by itself.
    func decideOnSpace() {
        guard core.role == .leader else { return }
        let voters = core.configuration.voters
        let heard = core.peers.filter { core.now - $0.lastContact < core.limits.electionTimeout }.map(\.peer)
        let isChanged = disk.space.decide(
            leader: core.id, voters: voters, present: voters.filter { $0 == core.id || heard.contains($0) })
        guard isChanged else { return }
        let free = disk.space.peers.values.reduce(disk.space.own, min) >> 20
        let metadata: Logger.Metadata = ["least_free_mib": "\(free)", "reserve_mib": "\(disk.space.reserve >> 20)"]
        if disk.space.isLow {
            logger.error("puts are refused: too little of the disks is free", metadata: metadata)
        } else {
            logger.notice("puts are taken again", metadata: metadata)
        }
    }
}
