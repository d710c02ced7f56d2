import Driver
import FileTree
import Glibc
import NIOCore
import Raft
import Transport
import WireProtocol

/// What clients ask: writes become proposals, reads wait for an index, and everything gets one answer.
extension Replica {
    func accept(_ connection: FrameConnection) {
        connections[connection.id] = connection
        connection.onWritable = { [weak self, weak connection] in
            if let connection { self?.admitReads(of: connection) }
        }
    }

    func closed(_ connection: FrameConnection) {
        connections[connection.id] = nil
        for read in waitingReads.removeValue(forKey: connection.id) ?? [] { memory.requestGoesOn(read.heldBytes) }
        backups[connection.id] = nil
        backupWaiters.removeAll { $0.waiter.connection == connection.id }
        verifyWaiters.removeAll { $0.connection == connection.id }
        if let hello = connection.hello, strangers[PeerID(hello.incarnation)] === connection {
            strangers[PeerID(hello.incarnation)] = nil
        }
    }

    func handleClient(_ frame: Frame, on connection: FrameConnection) {
        let isRead = [.read, .leaseRead, .staleRead, .openSnapshot, .readSnapshot].contains(frame.kind)
        let waiter = Waiter(connection: connection.id, requestID: frame.requestID, isRead: isRead)
        let deadline = Clock.now + UInt64(min(frame.deadlineMilliseconds, Frame.deadlineMillisecondsMax)) * 1_000_000
        guard connection.requestsInFlight < Welcome.requestsInFlightMax else {
            refuse(waiter, .busy, isCounted: false)
            return
        }
        if isRead, memory.isCrowded, waitingReads[connection.id] != nil {
            refuse(waiter, .busy, isCounted: false)
            return
        }
        if let farewell = removedGoodbye, frame.kind != .status { return connection.say(farewell) }
        connection.requestsInFlight += 1
        func queue(_ kind: PendingRead.Kind, _ query: ByteBuffer? = nil, bytesMax: Int? = nil) {
            let read = PendingRead(
                kind: kind, waiter: waiter, query: query ?? frame.body, deadline: deadline, answerBytesMax: bytesMax)
            memory.requestWaits(read.heldBytes)
            waitingReads[connection.id, default: []].append(read)
            admitReads(of: connection)
        }
        func malformed() {
            connection.readBegins(0)
            refuse(waiter, .malformed)
        }
        switch frame.kind {
        case .write:
            // A follower may not know the cluster's version yet: the leader judges.
            if core.role != .leader {
                refuse(waiter, core.leader == nil ? .noLeader : .notLeader)
            } else if draining != nil {
                refuse(waiter, .busy)
            } else if let damage, damage.kind != .rotten {
                refuse(waiter, .corrupt)
            } else if frame.body.readableBytes > FileTreeLimits.commandBytesMax {
                answer(waiter) { Outcome.failed(.contentTooLarge, revision: 0).write(to: &$0) }
            } else if let error = CommandHeader.refusal(
                of: frame.body, clusterVersion: lastReport.applied.clusterVersion)
            {
                if error == .unsupported,
                    driver.mayRaiseVersion || CommandHeader.mayBeExecuted(frame.body, knownVersion: knownVersion)
                {
                    refuse(waiter, .busy)
                } else {
                    answer(waiter) { Outcome.failed(error, revision: 0).write(to: &$0) }
                }
            } else if CommandHeader.opensSession(frame.body), !connection.sessions.take(now: Clock.now) {
                refuse(waiter, .busy)
            } else if isAlarmed, CommandHeader.needsSpace(frame.body) {
                refuse(waiter, .corrupt)
            } else if space.isLow, CommandHeader.needsSpace(frame.body) {
                refuse(waiter, .diskFull)
            } else {
                driver.offer(owned(frame.body, connection), for: waiter, deadline: deadline)
            }
        case .read: queue(.linearizable)
        case .leaseRead: queue(.lease)
        case .staleRead:
            var query = frame.body
            guard let age = query.readInteger(as: UInt32.self) else {
                malformed()
                break
            }
            queue(.stale(ageMax: age), query)
        case .openSnapshot: queue(.snapshot)
        case .readSnapshot:
            guard frame.body.readableBytes == 4,
                let number = frame.body.getInteger(at: frame.body.readerIndex, as: UInt32.self)
            else {
                malformed()
                break
            }
            queue(.piece(number), bytesMax: FrameConnection.longestAnswerBytes)
        case .verify: verify(for: waiter)
        case .rewriteState: damage == nil ? rewriteState(for: waiter) : refuse(waiter, .corrupt)
        case .changeMembership: changeMembership(frame, for: waiter)
        case .listMembers: listMembers(for: waiter)
        case .transferLeadership: transferLeadership(frame, for: waiter)
        case .status:
            connection.requestsInFlight -= 1
            connection.write { status.write(to: &$0, requestID: frame.requestID) }
            markDirty(connection)
        default:
            connection.say(Goodbye(.protocolError, "a client sends writes, reads and status requests alone"))
        }
        scheduleTurn()
    }

    /// The command as it is proposed: a session's owner is who this member sees, whatever a client says.
    private func owned(_ command: ByteBuffer, _ connection: FrameConnection) -> ByteBuffer {
        guard OpenSession.isOne(command), lastReport.applied.clusterVersion >= OpenSession.ownedVersion else {
            return command
        }
        var owned = ByteBuffer()
        OpenSession.write(
            to: &owned,
            owner: SessionOwner(host: connection.hostNumber, connection: identity.incarnation ^ connection.id))
        return owned
    }

    // MARK: leadership transfer

    private func transferLeadership(_ frame: Frame, for waiter: Waiter) {
        guard let id = frame.body.getInteger(at: frame.body.readerIndex, as: UInt64.self),
            frame.body.readableBytes == 8
        else { return refuse(waiter, .malformed) }
        guard core.role == .leader else { return refuse(waiter, core.leader == nil ? .noLeader : .notLeader) }
        if id == identity.memberID { return answer(waiter) { $0.writeInteger(UInt16(0)) } }
        let wanted = core.configuration.members.first { $0.id == id }?.peer
        guard id == 0 || wanted != nil else { return answer(waiter) { $0.writeInteger(TreeError.notFound.rawValue) } }
        handOver(to: wanted) { [weak self] outcome in
            switch outcome {
            case .done: self?.answer(waiter) { $0.writeInteger(UInt16(0)) }
            case .failed: self?.refuse(waiter, .transferFailed)
            }
        }
    }

    /// Hands leadership over, to whoever is best if nobody is named; at once `done` when this member does not lead.
    func handOver(to peer: PeerID?, then settled: @escaping (TransferOutcome) -> Void) {
        guard core.role == .leader else { return settled(.done) }
        transferWaiters.append(settled)
        step(.transferLeadership(to: peer))
        scheduleTurn()
    }

    /// Takes no more writes, answers those that were taken, hands leadership over, and calls `settled`.
    func drain(then settled: @escaping () -> Void) {
        draining = (Draining(term: core.term, now: core.now), settled)
        continueDraining()
        scheduleTurn()
    }

    func continueDraining() {
        guard let settled = draining?.settled else { return }
        let standing = Draining.Standing(
            term: core.term, isLeader: core.role == .leader,
            otherVoters: core.configuration.otherVoters(than: core.id).count,
            isHandingOver: core.transferTarget != nil,
            hasWork: driver.isProposing || lastReport.applied.index < driver.handedOut,
            hasConnections: !connections.isEmpty)
        switch draining?.state.next(standing, now: Clock.now) {
        case .wait, nil: break
        case .handOver: step(.transferLeadership(to: nil))
        case .end:
            draining = nil
            settled()
        }
    }

    /// Tells those who wait how a transfer ended: the leader's own step into another role, or the end of its time.
    func settleTransfer() {
        guard !transferWaiters.isEmpty, core.role != .leader || core.transferTarget == nil else { return }
        let waiters = transferWaiters
        transferWaiters = []
        for settled in waiters { settled(core.role == .leader ? .failed : .done) }
        scheduleTurn()
    }

    var status: MemberStatus {
        let role: MemberStatus.Role =
            switch core.role {
            case .follower: .follower
            case .candidate: .candidate
            case .leader: .leader
            case .learner: .learner
            }
        var status = MemberStatus(
            id: identity.memberID, term: core.term, commit: core.commit, applied: lastReport.applied.index,
            digest: lastReport.applied.digest.value, role: role, members: core.configuration.text,
            leader: leaderAddress)
        status.statistics = statistics
        status.workUnderWay = workUnderWay
        return status
    }

    private var statistics: [MemberStatus.Statistic] {
        let applied = lastReport.applied
        var statistics: [MemberStatus.Statistic] = [
            .init("files", applied.files), .init("content_bytes", applied.bytes),
            .init("durable_index", lastReport.durableIndex), .init("log_first_index", core.log.firstIndex),
            .init("log_last_index", core.log.lastIndex), .init("log_bytes", usage.logBytes),
            .init("log_commits", logCommits), .init("disk_waiting_ms", diskWait / 1_000_000),
            .init("clients_bytes", UInt64(memory.heldBytes)),
            .init("state_bytes", usage.stateBytes), .init("state_unused_bytes", usage.unusedBytes),
            .init("state_oldest_reader_commits", usage.oldestReaderCommits),
            .init("state_wait_p999_us", lastReport.wait), .init("free_bytes", usage.freeBytes),
            .init("snapshot_bytes", UInt64(spools.reduce(0) { $0 + $1.bytes })),
            .init("cluster_version", UInt64(applied.clusterVersion)), .init("connections", UInt64(connections.count)),
            .init("digest_index", ownDigests.last?.index ?? 0),
            .init("digest_low", UInt64(truncatingIfNeeded: ownDigests.last?.digest ?? 0)),
            .init("process_id", UInt64(getpid())),
        ]
        if removedGoodbye != nil { statistics.append(.init(MemberStatus.removed, 1)) }
        return statistics + offences.counts.filter { $0.count > 0 }.map { .init($0.kind.statistic, $0.count) }
    }

    private var workUnderWay: [MemberStatus.Work] {
        var work = transfers.values.sorted { $0.peer < $1.peer }.map { transfer in
            MemberStatus.Work(
                "sending a snapshot to member \(memberID(of: transfer.peer))", bytesDone: UInt64(transfer.bytes),
                of: UInt64(transfer.spool?.wholeBytes ?? 0))
        }
        if rewriting != nil {
            work.append(
                .init(
                    "writing the state anew", bytesDone: rewriter.bytes,
                    of: usage.stateBytes - min(usage.stateBytes, usage.unusedBytes)))
        }
        if isScrubbing { work.append(.init("reading all that is kept", bytesDone: scrubber.bytes)) }
        if let receiving { work.append(.init("taking in a snapshot", bytesDone: receiving.bytes)) }
        if damage != nil { work.append(.init("taking a sound copy from the others", bytesDone: fetchProgress.bytes)) }
        for peer in offences.beyondLeap(now: Clock.now) {
            guard let member = core.configuration.member(peer) else { continue }
            work.append(
                .init(
                    "member \(member.id), or somebody in its name, is in a term out of reach; if it can't come back, wipe "
                        + "it, start it with --join, and run 'banyan member replace \(member.id)'", bytesDone: 0))
        }
        if diskWait > 0 {
            let seconds = "\(diskWait / 1_000_000_000).\(diskWait / 100_000_000 % 10) s"
            work.append(.init("its disk stands still: a write has waited for \(seconds)", bytesDone: 0))
        }
        for (peer, reason) in refusals.current {
            work.append(.init("no connection with member \(memberID(of: peer)): \(reason)", bytesDone: 0))
        }
        if isStarved() {
            work.append(.init("taking in no connections: no file descriptor is free (ulimit -n)", bytesDone: 0))
        }
        if space.isLow { work.append(.init("refusing puts: the disk is nearly full", bytesDone: 0)) }
        return work
    }

    var leaderAddress: String {
        core.leader.flatMap { core.configuration.member($0)?.address } ?? ""
    }

    func answer(_ waiter: Waiter, _ body: (inout ByteBuffer) -> Void) {
        guard let connection = connections[waiter.connection] else { return }
        var bytes = 0
        connection.write { buffer in
            let start = buffer.writerIndex
            buffer.writeFrame(.result, requestID: waiter.requestID, body: body)
            bytes = buffer.writerIndex - start
        }
        markDirty(connection)
        isAnswered(waiter, on: connection, bytes: bytes)
    }

    private func isAnswered(_ waiter: Waiter, on connection: FrameConnection, bytes: Int) {
        connection.requestsInFlight -= 1
        guard waiter.isRead else { return }
        connection.readsEnd(1, reserved: waiter.answerBytesMax, bytesMax: bytes)
        admitReads(of: connection)
    }

    func refuse(_ waiter: Waiter, _ code: Refusal.Code, isCounted: Bool = true) {
        guard let connection = connections[waiter.connection] else { return }
        let leader = code == .notLeader ? leaderAddress : ""
        connection.write { Refusal(code, leader: leader).write(to: &$0, requestID: waiter.requestID) }
        markDirty(connection)
        if isCounted { isAnswered(waiter, on: connection, bytes: 0) }
    }

    func markDirty(_ connection: FrameConnection) {
        if dirty.last !== connection { dirty.append(connection) }
    }

    // MARK: reads

    /// Takes up reads of a connection as far as its answers go out: a client that asks faster than it takes its answers
    /// in makes itself wait, and fills nobody's memory.
    func admitReads(of connection: FrameConnection) {
        guard var waiting = waitingReads[connection.id], !waiting.isEmpty else { return }
        let now = Clock.now
        while var read = waiting.first, connection.mayRead(read.answerBytesMax ?? connection.answerBytesMax) {
            waiting.removeFirst()
            if read.deadline < now {
                waitedTooLong(read, on: connection)
            } else {
                memory.requestGoesOn(read.heldBytes)
                read.waiter.answerBytesMax = read.answerBytesMax ?? connection.answerBytesMax
                connection.readBegins(read.waiter.answerBytesMax)
                newReads.append(read)
            }
        }
        waitingReads[connection.id] = waiting.isEmpty ? nil : waiting
        scheduleTurn()
    }

    private func waitedTooLong(_ read: PendingRead, on connection: FrameConnection) {
        memory.requestGoesOn(read.heldBytes)
        connection.requestsInFlight -= 1
        connection.write { Refusal(.deadlinePassed).write(to: &$0, requestID: read.waiter.requestID) }
        markDirty(connection)
    }

    /// The answer was longer than it may be: it is read again when there is room for the longest. Whatever it was not to miss it
    /// does not miss then, either.
    func waitForRoom(_ read: StateThread.Read, of connection: FrameConnection) {
        connection.readsEnd(1, reserved: read.waiter.answerBytesMax, bytesMax: read.waiter.answerBytesMax)
        var again = PendingRead(
            kind: .stale(ageMax: 0), waiter: read.waiter, query: read.query, deadline: read.deadline,
            answerBytesMax: FrameConnection.longestAnswerBytes)
        if !read.isStale { again.kind = .settled }
        memory.requestWaits(again.heldBytes)
        waitingReads[connection.id, default: []].prepend(again)
    }

    // MARK: memory

    private static let memoryMeasureInterval: Nanoseconds = 100_000_000
    /// Who leaves answers unread for so long while there is no room for others' is let go.
    private static let unreadMax: Nanoseconds = 5_000_000_000

    /// Looks at what clients hold, lets those go on that waited for room, and those go who keep it from others.
    func tendMemory() {
        let now = Clock.now
        guard now - memoryMeasuredAt >= Self.memoryMeasureInterval else { return }
        memoryMeasuredAt = now
        let wasFull = memory.isFull
        var bytes = 0
        var idle: [FrameConnection] = []
        for connection in connections.values {
            let held = connection.measure(now: now)
            bytes += held.bytes
            if wasFull, let since = held.unreadSince, now - since >= Self.unreadMax { idle.append(connection) }
        }
        memory.measured(bytes)
        for connection in idle {
            connection.say(Goodbye(.busy, "answers were left unread while others needed the room"))
        }
        for id in waitingReads.keys.sorted() {
            guard let connection = connections[id] else { continue }
            waitingReads[id]?.removeAll { read in
                guard read.deadline < now else { return false }
                waitedTooLong(read, on: connection)
                return true
            }
            if waitingReads[id]?.isEmpty == true { waitingReads[id] = nil }
            admitReads(of: connection)
        }
    }

    func requestNewReads() {
        guard !newReads.isEmpty else { return }
        let now = Clock.now
        var (leases, reads): ([PendingRead], [PendingRead]) = ([], [])
        let asked = newReads
        newReads = []
        for read in asked {
            switch read.kind {
            case .lease: leases.append(read)
            case .stale(let age) where driver.isFresh(Nanoseconds(age) * 1_000_000, now: now): serve(read)
            case .settled: serve(read)
            case .linearizable, .snapshot, .stale: reads.append(read)
            case .piece(let number): readBackup(number, for: read.waiter)
            }
        }
        if !leases.isEmpty {
            if core.role == .leader {
                ask(leases, isLease: true, now)
            } else {
                for read in leases { refuse(read.waiter, core.leader == nil ? .noLeader : .notLeader) }
            }
        }
        if !reads.isEmpty { ask(reads, isLease: false, now) }
    }

    private func ask(_ reads: [PendingRead], isLease: Bool, _ now: Nanoseconds) {
        drive { $0.read(reads, isLease: isLease, now: now) }
    }

    /// Everything that the read may not miss is with the state thread.
    func serve(_ read: PendingRead) {
        if mustRefuse(read) {
            refuse(read.waiter, .corrupt)
        } else if read.kind == .snapshot,
            backupWaiters.contains(where: { $0.waiter.connection == read.waiter.connection })
        {
            // One at a time: who holds many would keep the others waiting.
            refuse(read.waiter, .busy)
        } else if read.kind == .snapshot {
            backupWaiters.append((driver.handedOut, read.waiter, read.deadline))
        } else {
            servedReads.append(
                StateThread.Read(
                    query: read.query, waiter: read.waiter, isStale: read.kind == .stale(ageMax: 0),
                    deadline: read.deadline))
            if servedReads.count >= Self.readsAtOnce { sendReads() }
        }
    }

    /// While the state thread answers so many, the loop prepares the next.
    private static let readsAtOnce = 16

    /// In one piece, behind what they must not miss: a thread that is woken costs more than a read.
    func sendReads() {
        guard !servedReads.isEmpty else { return }
        stateThread.send(.read(servedReads))
        servedReads.removeAll()
    }

    /// Refuses reads whose clients wait no longer.
    func expireReads() {
        for read in driver.expireReads(now: Clock.now) { refuse(read.waiter, .deadlinePassed) }
    }
}
