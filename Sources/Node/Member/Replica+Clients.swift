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
        clients.opened(connection)
        connection.onWritable = { [weak self, weak connection] in
            if let connection { self?.admitReads(of: connection) }
        }
    }

    func closed(_ connection: FrameConnection) {
        clients.closed(connection)
        reads.closed(connection.id)
        shelf.release(connection.id)
        scrubbing.closed(connection.id)
        peers.closed(connection)
    }

    func handleClient(_ frame: Frame, on connection: FrameConnection) {
        let isRead = frame.kind.purpose == .read
        let waiter = Waiter(connection: connection.id, requestID: frame.requestID, isRead: isRead)
        let deadline = Clock.now + UInt64(min(frame.deadlineMilliseconds, Frame.deadlineMillisecondsMax)) * 1_000_000
        let isTooMany =
            connection.requestsInFlight >= Welcome.requestsInFlightMax
            || (isRead && clients.memory.isCrowded && reads.isWaiting(connection.id))
        guard !isTooMany else { return say(Refusal(.busy), to: frame.requestID, on: connection) }
        if let farewell = removedGoodbye, frame.kind != .status { return connection.say(farewell) }
        connection.requestsInFlight += 1
        if isRead {
            handleRead(frame, waiter, deadline, on: connection)
        } else {
            handleOther(frame, waiter, deadline, on: connection)
        }
        scheduleTurn()
    }

    private func handleRead(_ frame: Frame, _ waiter: Waiter, _ deadline: Nanoseconds, on connection: FrameConnection) {
        var query = frame.body
        var bytesMax: Int?
        let kind: PendingRead.Kind? =
            switch frame.kind {
            case .read: .linearizable
            case .leaseRead: .lease
            case .staleRead: query.readInteger(as: UInt32.self).map { .stale(ageMax: $0) }
            case .readSnapshot: query.readableBytes == 4 ? query.readInteger(as: UInt32.self).map { .piece($0) } : nil
            case .openSnapshot: .snapshot
            case .write, .status, .transferLeadership, .changeMembership, .listMembers, .verify, .rewriteState, .hello,
                .welcome, .goodbye, .result, .refusal, .statusResult, .peerMessage, .genesis, .snapshotChunk,
                .snapshotReceipt:
                nil
            }
        guard let kind else {
            // It has begun nothing that would have to end.
            connection.requestsInFlight -= 1
            return say(Refusal(.malformed), to: frame.requestID, on: connection)
        }
        if case .piece = kind { (query, bytesMax) = (frame.body, FrameConnection.longestAnswerBytes) }
        let read = PendingRead(
            kind: kind, waiter: waiter, query: query, deadline: deadline, answerBytesMax: bytesMax)
        guard !reads.admitNow(read, from: connection) else { return }
        reads.wait(read)
        admitReads(of: connection)
    }

    private func handleOther(_ frame: Frame, _ waiter: Waiter, _ deadline: Nanoseconds, on connection: FrameConnection)
    {
        switch frame.kind {
        case .write: handleWrite(frame.body, waiter, deadline, on: connection)
        case .verify: verify(for: waiter)
        case .rewriteState: health.damage == nil ? rewriteState(for: waiter) : refuse(waiter, .corrupt)
        case .changeMembership: changeMembership(frame, for: waiter)
        case .listMembers: listMembers(for: waiter)
        case .transferLeadership: transferLeadership(frame, for: waiter)
        case .status:
            connection.requestsInFlight -= 1
            connection.write { status.write(to: &$0, requestID: frame.requestID) }
            clients.markDirty(connection)
        case .hello, .welcome, .goodbye, .result, .refusal, .statusResult, .peerMessage, .genesis, .snapshotChunk,
            .snapshotReceipt:
            connection.say(Goodbye(.protocolError, "a client sends requests alone, and this is none"))
        case .read, .leaseRead, .staleRead, .openSnapshot, .readSnapshot:
            preconditionFailure("a read would be taken for another request, and never answered")
        }
    }

    private func handleWrite(
        _ command: ByteBuffer, _ waiter: Waiter, _ deadline: Nanoseconds, on connection: FrameConnection
    ) {
        // A follower may not know the cluster's version yet: the leader judges.
        if core.role != .leader {
            refuse(waiter, core.leader == nil ? .noLeader : .notLeader)
        } else if isDraining {
            refuse(waiter, .busy)
        } else if !health.isFitForWrites {
            refuse(waiter, .corrupt)
        } else if command.readableBytes > FileTreeLimits.commandBytesMax {
            answer(waiter) { Outcome.failed(.contentTooLarge, revision: 0).write(to: &$0) }
        } else if let error = CommandHeader.refusal(of: command, clusterVersion: lastReport.applied.clusterVersion) {
            if error == .unsupported,
                driver.mayRaiseVersion || CommandHeader.mayBeExecuted(command, knownVersion: knownVersion)
            {
                refuse(waiter, .busy)
            } else {
                answer(waiter) { Outcome.failed(error, revision: 0).write(to: &$0) }
            }
        } else if CommandHeader.opensSession(command), !connection.sessions.take(now: Clock.now) {
            refuse(waiter, .busy)
        } else if digests.isAlarmed, CommandHeader.needsSpace(command) {
            refuse(waiter, .corrupt)
        } else if disk.space.isLow, CommandHeader.needsSpace(command) {
            refuse(waiter, .diskFull)
        } else {
            driver.offer(owned(command, connection), for: waiter, deadline: deadline)
        }
    }

    /// The command as it is proposed: a session's owner is who this member sees, whatever a client says.
    private func owned(_ command: ByteBuffer, _ connection: FrameConnection) -> ByteBuffer {
        guard CommandHeader.opensSession(command), lastReport.applied.clusterVersion >= OpenSession.ownedVersion else {
            return command
        }
        var owned = ByteBuffer()
        let owner = SessionOwner(host: connection.hostNumber, connection: identity.incarnation ^ connection.id)
        OpenSession(owner: owner).write(to: &owned)
        return owned
    }

    var leaderAddress: String {
        core.leader.flatMap { core.configuration.member($0)?.address } ?? ""
    }

    func answer(_ waiter: Waiter, _ body: (inout ByteBuffer) -> Void) {
        guard let connection = clients[waiter.connection] else { return }
        var bytes = 0
        connection.write { buffer in
            let start = buffer.writerIndex
            buffer.writeFrame(.result, requestID: waiter.requestID, body: body)
            bytes = buffer.writerIndex - start
        }
        clients.markDirty(connection)
        isAnswered(waiter, on: connection, bytes: bytes)
    }

    private func isAnswered(_ waiter: Waiter, on connection: FrameConnection, bytes: Int) {
        connection.requestsInFlight -= 1
        guard waiter.isRead else { return }
        connection.readsEnd(1, reserved: waiter.answerBytesMax, bytesMax: bytes)
        admitReads(of: connection)
    }

    func refuse(_ waiter: Waiter, _ code: Refusal.Code) {
        guard let connection = clients[waiter.connection] else { return }
        say(Refusal(code, leader: code == .notLeader ? leaderAddress : ""), to: waiter.requestID, on: connection)
        isAnswered(waiter, on: connection, bytes: 0)
    }

    private func say(_ refusal: Refusal, to request: UInt64, on connection: FrameConnection) {
        connection.write { refusal.write(to: &$0, requestID: request) }
        clients.markDirty(connection)
    }
}
