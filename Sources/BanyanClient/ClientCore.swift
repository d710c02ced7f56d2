import DequeModule
import FileTree
import NIOCore
import NIOPosix
import WireProtocol

/// The client's own state, on its event loop: connections, requests, and what it believes of the leader.
///
/// A write belongs to a session and has a sequence in it, so that it can be sent again until it is answered, and takes
/// effect once. Without an answer in its time it ends as "unknown". (A cluster that has no sessions yet gets a write
/// again only after a refusal that proves that nothing was proposed.)
final class ClientCore {
    typealias Completion = (Result<Frame, BanyanError>) -> Void

    /// Passed from hand to hand, and never copied.
    final class Request {
        var kind: Frame.Kind
        let body: ByteBuffer
        let deadline: NIODeadline
        let completion: Completion
        /// Some member said that there is no leader, or that it is busy.
        var wasRefused = false
        var redirects = 0
        /// Meant for this member alone, and for no other in its place.
        let address: String?
        /// Of a write: what makes it one that may be sent again.
        var ticket: Session.Ticket?
        /// A write that was sent, and may have been proposed, and the answer is lost.
        var mayHaveHappened = false
        /// Opens or closes a session.
        let isSessions: Bool

        init(
            kind: Frame.Kind, body: ByteBuffer, deadline: NIODeadline, completion: @escaping Completion,
            address: String? = nil, isSessions: Bool = false
        ) {
            self.kind = kind
            self.body = body
            self.deadline = deadline
            self.completion = completion
            self.address = address
            self.isSessions = isSessions
        }

        var isRead: Bool { [.read, .leaseRead, .staleRead].contains(kind) }
        /// Whether it changes something: then it must not be sent again unless that is harmless.
        var isChange: Bool { kind == .write || kind == .changeMembership }
        /// What there is to say when nobody took it.
        var unreached: BanyanError { address.map { .memberUnreachable("the member at \($0)") } ?? .unreachable }
        /// What there is to say when it was sent and no answer came.
        var unanswered: BanyanError { isChange ? .unknownOutcome : .noQuorum }
    }

    private static let retryDelay = TimeAmount.milliseconds(20)
    private static let redirectsMax = 5
    /// How long the opening of a session may take before another is tried.
    private static let openTimeout = TimeAmount.seconds(2)
    /// How long a member may take to say who leads, before the next one is asked.
    private static let locateTimeout = TimeAmount.milliseconds(500)

    let loop: any EventLoop
    private let nodes: [String]
    private var connections: [String: ClientConnection] = [:]
    /// Of the first member that answered; 0 before. Members of another would mix two trees into one.
    private(set) var clusterID: UInt64 = 0
    /// Whether any member ever answered: then it is not the network that lacks.
    private var isAnswered = false
    private var leader: String?
    private var nextNode = 0
    private var isLocating = false
    private var lastID: UInt64 = 0
    /// Requests between two tries.
    private var waiting: [Request] = []
    private var isRetryScheduled = false
    private var isFlushScheduled = false
    private var isSweepScheduled = false
    private(set) var isClosed = false
    private var session = Session()
    private var isOpening = false
    /// Writes that wait for a session, or for room in it.
    private var unticketed: Deque<Request> = []
    /// Until then the cluster is taken for one without sessions.
    private var sessionlessUntil = NIODeadline.uptimeNanoseconds(0)

    init(nodes: [String], loop: any EventLoop) {
        self.nodes = nodes
        self.loop = loop
    }

    func send(_ request: Request) {
        guard !isClosed else {
            request.completion(.failure(request.mayHaveHappened ? .unknownOutcome : .unreachable))
            return
        }
        scheduleSweep()
        if request.kind == .write, request.ticket == nil, !request.isSessions, sessionlessUntil <= .now() {
            unticketed.append(request)
            takeUpWrites()
            return
        }
        // A write to a member that is stopped would end as "unknown" for no good reason: it goes to the leader alone.
        if request.kind == .write, leader == nil {
            retryLater(request)
            locateLeader()
            return
        }
        // What any member may answer is spared the leader.
        let leader = request.kind == .staleRead ? nil : leader
        let target = request.address ?? leader ?? nodes[nextNode % nodes.count]
        let connection = connections[target] ?? connect(to: target)
        lastID += 1
        connection.send(request, id: lastID)
        scheduleFlush()
    }

    /// What is sent of a request: a write that belongs to a session says so.
    func body(of request: Request) -> ByteBuffer {
        var body = request.body
        if let ticket = request.ticket {
            CommandHeader.enroll(
                &body, session: ticket.session, sequence: ticket.sequence,
                lowestUnanswered: session.lowestUnanswered(for: ticket))
        }
        return body
    }

    // MARK: sessions

    /// Gives the writes that wait their places in the session, as far as it has room.
    private func takeUpWrites() {
        while !unticketed.isEmpty {
            if sessionlessUntil > .now() {
                send(unticketed.removeFirst())
            } else if let ticket = session.issueTicket() {
                let request = unticketed.removeFirst()
                request.ticket = ticket
                send(request)
            } else {
                if !session.isOpen { openSession() }
                return
            }
        }
    }

    private func openSession() {
        guard !isOpening, !isClosed else { return }
        isOpening = true
        var body = ByteBuffer()
        OpenSession.write(to: &body)
        send(
            Request(
                kind: .write, body: body, deadline: .now() + Self.openTimeout,
                completion: { [weak self] in self?.opened($0) }, isSessions: true))
    }

    private func opened(_ result: Result<Frame, BanyanError>) {
        isOpening = false
        guard !isClosed else { return }
        switch result {
        case .success(var frame):
            switch Outcome(from: &frame.body) {
            case .done(let id): session.open(id)
            // A cluster whose members are not all of this version has none.
            case .failed, nil: sessionlessUntil = .now() + .seconds(1)
            }
        case .failure(.refused(let reason)):
            let requests = unticketed
            unticketed = []
            for request in requests { request.completion(.failure(.refused(reason))) }
        // Nobody answered: those who wait go on waiting, until their time is over.
        case .failure(let error):
            for position in unticketed.indices { unticketed[position].wasRefused = error == .noQuorum }
        }
        takeUpWrites()
    }

    /// Ends a request. Its place in the session is free for another.
    func complete(_ request: Request, _ result: Result<Frame, BanyanError>) {
        if let ticket = request.ticket { session.settle(ticket) }
        request.completion(result)
        if request.ticket != nil { takeUpWrites() }
    }

    /// A member refuses to talk with this client at all.
    func refuse(_ request: Request, _ reason: String) {
        complete(request, .failure(request.mayHaveHappened ? .unknownOutcome : .refused(reason)))
    }

    /// A write that may have been proposed: in a session it can be sent again.
    private func lostAnswer(to request: Request) {
        guard request.ticket != nil else { return complete(request, .failure(request.unanswered)) }
        request.mayHaveHappened = true
        retryLater(request)
    }

    /// The session is over. A write that was sent once alone did not happen, and gets a place in a new one.
    private func sessionEnded(for request: Request) {
        if let ticket = request.ticket, session.isOf(ticket) { session = Session() }
        guard !request.mayHaveHappened else { return complete(request, .failure(.unknownOutcome)) }
        request.ticket = nil
        send(request)
    }

    /// Asks one member after the other who leads, until one knows.
    private func locateLeader() {
        guard !isLocating, !isClosed else { return }
        isLocating = true
        let position = nextNode
        send(
            Request(
                kind: .status, body: ByteBuffer(), deadline: .now() + Self.locateTimeout,
                completion: { [weak self] in self?.located($0, askedAt: position) },
                address: nodes[position % nodes.count]))
    }

    private func located(_ result: Result<Frame, BanyanError>, askedAt position: Int) {
        isLocating = false
        guard !isClosed, leader == nil else { return }
        if case .failure(.refused(let reason)) = result {
            let requests = waiting.filter { $0.kind == .write }
            waiting.removeAll { $0.kind == .write }
            for request in requests { refuse(request, reason) }
        }
        switch result.map({ try? MemberStatus($0).leader }) {
        case .success(let address?) where !address.isEmpty:
            leader = address
            retryNow()
        case .success:
            // There is no leader now: that is known, where silence is not.
            for position in waiting.indices { waiting[position].wasRefused = true }
            nextNode = position + 1
        // The member closes the connection next, and that moves on.
        case .failure(.refused): break
        case .failure: nextNode = position + 1
        }
    }

    func close() {
        if let id = session.id, let leader, let connection = connections[leader] {
            var body = ByteBuffer()
            CloseSession.write(to: &body, session: id)
            lastID += 1
            // Nobody waits for the answer: a session that stays ends by itself.
            connection.send(
                Request(
                    kind: .write, body: body, deadline: .now() + .seconds(1), completion: { _ in }, isSessions: true),
                id: lastID)
            connection.flush()
        }
        isClosed = true
        for request in waiting + unticketed {
            request.completion(.failure(request.mayHaveHappened ? .unknownOutcome : .unreachable))
        }
        waiting = []
        unticketed = []
        for connection in connections.values { connection.close() }
    }

    private func connect(to address: String) -> ClientConnection {
        let connection = ClientConnection(address: address, core: self)
        connections[address] = connection
        connection.connect()
        return connection
    }

    private func scheduleFlush() {
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.execute {
            this.value.isFlushScheduled = false
            for connection in this.value.connections.values { connection.flush() }
        }
    }

    /// Whether the member is of the cluster that this client talks to.
    func accepts(_ welcome: Welcome) -> Bool {
        isAnswered = true
        if clusterID == 0 { clusterID = welcome.clusterID }
        return welcome.clusterID == 0 || welcome.clusterID == clusterID
    }

    // MARK: answers

    func received(_ frame: Frame, for request: Request) {
        guard frame.kind == .refusal else {
            let code = frame.body.getInteger(at: frame.body.readerIndex, as: UInt16.self)
            if request.ticket != nil, code == TreeError.sessionEnded.rawValue { return sessionEnded(for: request) }
            return complete(request, .success(frame))
        }
        guard let refusal = try? Refusal(frame) else {
            complete(request, .failure(.protocolViolation("a refusal can't be read")))
            return
        }
        switch refusal.code {
        case .notLeader:
            request.redirects += 1
            leader = refusal.leader.isEmpty ? nil : refusal.leader
            if request.redirects <= Self.redirectsMax { send(request) } else { retryLater(request) }
        case .noLease:
            // After a while the surer way is the quicker one: this leader may have given its lease away for good.
            request.redirects += 1
            if request.redirects > Self.redirectsMax { request.kind = .read }
            retryLater(request)
        case .noLeader, .busy, .shuttingDown:
            request.wasRefused = true
            if refusal.code == .noLeader || refusal.code == .shuttingDown { forgetLeader() }
            retryLater(request)
        case .deadlinePassed: complete(request, .failure(request.mayHaveHappened ? .unknownOutcome : .noQuorum))
        case .unknownOutcome: lostAnswer(to: request)
        case .transferFailed: complete(request, .failure(.transferFailed))
        case .diskFull: complete(request, .failure(request.mayHaveHappened ? .unknownOutcome : .diskFull))
        case .unsupported: complete(request, .failure(.unsupported))
        case .malformed: complete(request, .failure(.protocolViolation("the member can't read the request")))
        case .corrupt where request.isRead && request.redirects < Self.redirectsMax:
            // Another member's copy may be sound.
            request.redirects += 1
            forgetLeader()
            retryLater(request)
        case .corrupt:
            complete(
                request,
                .failure(
                    request.mayHaveHappened
                        ? .unknownOutcome
                        : .refused("the leader: its copy is damaged, or the members' copies differ; see its log")))
        }
    }

    private func forgetLeader() {
        leader = nil
        nextNode += 1
    }

    /// The connection is gone. What never left may go elsewhere, and so may reads.
    func closed(_ connection: ClientConnection, unsent: [Request], sent: [Request]) {
        if connections[connection.address] === connection { connections[connection.address] = nil }
        if leader == connection.address || leader == nil { forgetLeader() }
        for request in unsent { retryLater(request) }
        for request in sent { if request.isChange { lostAnswer(to: request) } else { retryLater(request) } }
    }

    private func retryLater(_ request: Request) {
        guard !isClosed, request.address == nil else {
            let failure: BanyanError = request.wasRefused ? .noQuorum : request.unreached
            complete(request, .failure(request.mayHaveHappened ? .unknownOutcome : failure))
            return
        }
        waiting.append(request)
        guard !isRetryScheduled else { return }
        isRetryScheduled = true
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: Self.retryDelay) {
            this.value.isRetryScheduled = false
            this.value.retryNow()
        }
    }

    private func retryNow() {
        let requests = waiting
        waiting = []
        for request in requests {
            if request.deadline <= .now() { expire(request) } else { send(request) }
        }
    }

    private func expire(_ request: Request) {
        let error: BanyanError =
            request.mayHaveHappened
            ? .unknownOutcome
            : request.wasRefused || (isAnswered && request.address == nil)
                ? .noQuorum : request.unreached
        complete(request, .failure(error))
    }

    /// Ends what waits beyond its deadline, on every connection.
    private func scheduleSweep() {
        guard !isSweepScheduled else { return }
        isSweepScheduled = true
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: .milliseconds(50)) {
            let core = this.value
            core.isSweepScheduled = false
            var isIdle = core.waiting.isEmpty && core.unticketed.isEmpty
            let late = core.unticketed.filter { $0.deadline <= .now() }
            core.unticketed.removeAll { $0.deadline <= .now() }
            for request in late { core.expire(request) }
            for connection in Array(core.connections.values) {
                let (unsent, sent) = connection.takeExpired(at: .now())
                for request in unsent { core.expire(request) }
                for request in sent {
                    core.complete(request, .failure(request.unanswered))
                }
                let stalled = connection.takeStalled(at: .now())
                // A member that answers nothing may be stopped or cut off: try another.
                if !sent.isEmpty || !stalled.isEmpty, core.leader == connection.address || core.leader == nil {
                    core.forgetLeader()
                }
                for request in stalled {
                    if request.kind == .write { core.lostAnswer(to: request) } else { core.retryLater(request) }
                }
                if connection.isMute(at: .now()) { connection.close() }
                if !connection.isIdle { isIdle = false }
            }
            if !isIdle && !core.isClosed { core.scheduleSweep() }
        }
    }
}
