import Driver
import NIOCore
import Raft
import Transport
import WireProtocol

/// Clients' reads: taken up as their answers go out, confirmed by the driver, answered by the state thread.
extension Replica {
    func admitReads(of connection: FrameConnection) {
        guard reads.isWaiting(connection.id) else { return }
        for read in reads.admit(from: connection, now: Clock.now) { waitedTooLong(read) }
        scheduleTurn()
    }

    private func waitedTooLong(_ read: PendingRead) {
        guard let connection = clients[read.waiter.connection] else { return }
        connection.requestsInFlight -= 1
        connection.write { Refusal(.deadlinePassed).write(to: &$0, requestID: read.waiter.requestID) }
        clients.markDirty(connection)
    }

    /// The answer was longer than it may be: it is read again when there is room for the longest. Whatever it was not to miss it
    /// does not miss then, either.
    func waitForRoom(_ read: StateThread.Read, of connection: FrameConnection) {
        connection.readsEnd(1, reserved: read.waiter.answerBytesMax, bytesMax: read.waiter.answerBytesMax)
        var again = PendingRead(
            kind: .stale(ageMax: 0), waiter: read.waiter, query: read.query, deadline: read.deadline,
            answerBytesMax: FrameConnection.longestAnswerBytes)
        if !read.isStale { again.kind = .settled }
        reads.waitFirst(again)
    }

    private static let memoryMeasureInterval: Nanoseconds = 100_000_000

    /// Looks at what clients hold, lets those go on that waited for room, and those go who keep it from others.
    func tendMemory() {
        let now = Clock.now
        guard now - turns.memoryMeasuredAt >= Self.memoryMeasureInterval else { return }
        turns.memoryMeasuredAt = now
        for connection in clients.measure(now: now) {
            connection.say(Goodbye(.busy, "answers were left unread while others needed the room"))
        }
        for read in reads.expire(now: now) { waitedTooLong(read) }
        for id in reads.connections { clients[id].map(admitReads) }
    }

    func requestNewReads() {
        let admitted = reads.takeAdmitted()
        guard !admitted.isEmpty else { return }
        let now = Clock.now
        var (leases, confirmed): ([PendingRead], [PendingRead]) = ([], [])
        for read in admitted {
            switch read.kind {
            case .lease: leases.append(read)
            case .stale(let age) where driver.isFresh(Nanoseconds(age) * 1_000_000, now: now): serve(read)
            case .settled: serve(read)
            case .linearizable, .snapshot, .stale: confirmed.append(read)
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
        if !confirmed.isEmpty { ask(confirmed, isLease: false, now) }
    }

    private func ask(_ reads: [PendingRead], isLease: Bool, _ now: Nanoseconds) {
        drive { $0.read(reads, isLease: isLease, now: now) }
    }

    /// Everything that the read may not miss is with the state thread.
    func serve(_ read: PendingRead) {
        if health.mustRefuse(read.kind) {
            refuse(read.waiter, .corrupt)
        } else if read.kind == .snapshot {
            let isAsked = shelf.ask(read.waiter, covering: driver.handedOut, deadline: read.deadline)
            if !isAsked { refuse(read.waiter, .busy) }
        } else if reads.serve(read) {
            sendReads()
        }
    }

    func sendReads() {
        let served = reads.takeServed()
        if !served.isEmpty { threads.state.send(.read(served)) }
    }

    /// Refuses reads whose clients wait no longer.
    func expireReads() {
        for read in driver.expireReads(now: Clock.now) { refuse(read.waiter, .deadlinePassed) }
    }
}
