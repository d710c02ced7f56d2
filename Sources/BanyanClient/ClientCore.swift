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
        private(set) var deadline: NIODeadline
        let completion: Completion
        /// The last that stood in its way, and is more than that nobody leads.
        var obstacle: BanyanError?
        /// Since when members refuse it.
        var refusedSince: NIODeadline?
        /// When it is sent again.
        var resumesAt = NIODeadline.uptimeNanoseconds(0)
        var redirects = 0
        /// Of one that may take long: how long its member may show no progress. Its deadline moves on with that.
        var patience: TimeAmount?
        var isOver = false
        /// Meant for this member alone, and for no other in its place.
        let address: String?
        /// Of a write: what makes it one that may be sent again: a place in a session, or a name of its own.
        var ticket: Session.Ticket?
        var oneTime: OneTime?
        /// It is to get such a name, when it is known who leads.
        var goesAlone = false
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
        /// Whether it may take effect without an answer.
        var leavesTraces: Bool { isChange || kind == .transferLeadership || kind == .rewriteState }
        /// How long a member may take for it.
        var wireDeadline: NIODeadline { patience == nil ? deadline : .now() + .hours(24) }

        func progressed() { if let patience { deadline = .now() + patience } }
    }

    /// A write that belongs to no session and takes effect once.
    struct OneTime {
        let id: UInt128
        /// The log time from which on it is refused, in milliseconds.
        var until: UInt64
    }

    /// What a leader said of log time, in milliseconds, and when.
    struct LeaderClock {
        let logTime: UInt64
        let at: NIODeadline
    }

    /// How much longer than it may take a write of no session can be repeated.
    static let oneTimeMargin = TimeAmount.seconds(120)
    /// What a leader said longer ago is no measure.
    static let leaderClockMax = TimeAmount.seconds(60)

    static let redirectsMax = 5
    /// How long the opening of a session may take before another is tried.
    static let openTimeout = TimeAmount.seconds(2)
    /// How long a member may take to say who leads, before it is asked again.
    static let locateTimeout = TimeAmount.seconds(2)

    let loop: any EventLoop
    let nodes: [String]
    var connections: [String: ClientConnection] = [:]
    /// Of the first member that answered; 0 before. Members of another would mix two trees into one.
    var clusterID: UInt64 = 0
    /// Who named it.
    var clusterFrom = ""
    var search: LeaderSearch
    /// Two of the addresses that were given belong to different clusters: nothing is done then.
    var mixture: BanyanError?
    var lastID: UInt64 = 0
    /// Why the last connection to an address ended; of those that were never ready since.
    var troubles: [String: ClientConnection.Trouble] = [:]
    /// Requests that wait for a leader.
    var leaderless: [Request] = []
    /// Requests between two tries, after a refusal.
    var resting: [Request] = []
    var restEnds: NIODeadline?
    var isFlushScheduled = false
    var isSweepScheduled = false
    var isClosed = false
    var session = Session()
    var isOpening = false
    /// The first write of a client goes alone: most clients that a command line makes write once.
    var hasWritten = false
    /// By its address.
    var leaderClocks: [String: LeaderClock] = [:]
    /// Writes that wait for a session, or for room in it.
    var unticketed: Deque<Request> = []
    /// Until then the cluster is taken for one without sessions.
    var sessionlessUntil = NIODeadline.uptimeNanoseconds(0)

    init(nodes: [String], loop: any EventLoop) {
        self.nodes = nodes
        self.loop = loop
        search = LeaderSearch(nodes: nodes)
    }

    func send(_ request: Request) {
        guard !isClosed, mixture == nil else {
            return end(request, mixture ?? .unreachable("the client is closed"))
        }
        scheduleSweep()
        let isOnItsOwn = request.ticket != nil || request.oneTime != nil || request.isSessions
        if request.kind == .write, !isOnItsOwn, sessionlessUntil <= .now() {
            if !hasWritten {
                hasWritten = true
                request.goesAlone = true
            }
            guard request.goesAlone else {
                unticketed.append(request)
                return takeUpWrites()
            }
            if let leader = search.leader { return send(alone: request, to: leader) }
        }
        if request.oneTime != nil, let leader = search.leader, let until = end(of: request, by: leader) {
            request.oneTime?.until = until
        }
        guard let target = request.address ?? target(for: request) else {
            leaderless.append(request)
            return perform(search.begin(at: .now()))
        }
        let connection = connections[target] ?? connect(to: target)
        lastID += 1
        connection.send(request, id: lastID)
        scheduleFlush()
    }

    /// Gives the write a name of its own, if the cluster knows such; else a place in a session.
    func send(alone request: Request, to leader: String) {
        request.goesAlone = false
        if let until = end(of: request, by: leader) {
            request.oneTime = OneTime(id: UInt128.random(in: 1...UInt128.max), until: until)
        }
        send(request)
    }

    /// The log time from which on no copy of a write is wanted any more, as the leader reckons it now: another one's may lie
    /// behind, by the time in which nothing was written. Nil: it is not known, or too far.
    func end(of request: Request, by leader: String) -> UInt64? {
        let now = NIODeadline.now()
        guard let clock = leaderClocks[leader], now - clock.at < Self.leaderClockMax else { return nil }
        let left = (request.deadline - clock.at + Self.oneTimeMargin).nanoseconds / 1_000_000
        guard left > 0, left < FileTreeLimits.oneTimeMillisecondsMax else { return nil }
        return clock.logTime + UInt64(left)
    }

    /// Nobody, until it is known who leads. A write to a member that is stopped would end as "unknown" for no good reason.
    func target(for request: Request) -> String? {
        if let leader = search.leader {
            // What any member may answer is spared the leader.
            return request.kind == .staleRead ? search.reader ?? leader : leader
        }
        return request.kind == .staleRead ? search.reader : request.isRead ? search.follower : nil
    }

    /// What is sent of a request: a write that belongs to a session says so.
    func body(of request: Request) -> ByteBuffer {
        var body = request.body
        if let oneTime = request.oneTime {
            CommandHeader.enrollOnce(&body, id: oneTime.id, until: oneTime.until)
        } else if let ticket = request.ticket {
            CommandHeader.enroll(
                &body, session: ticket.session, sequence: ticket.sequence,
                lowestUnanswered: session.lowestUnanswered(for: ticket))
        }
        return body
    }

    // MARK: sessions

    /// Gives the writes that wait their places in the session, as far as it has room.
    func takeUpWrites() {
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

    func openSession() {
        guard !isOpening, !isClosed else { return }
        isOpening = true
        var body = ByteBuffer()
        OpenSession().write(to: &body)
        send(
            Request(
                kind: .write, body: body, deadline: .now() + Self.openTimeout,
                completion: { [weak self] in self?.opened($0) }, isSessions: true))
    }

    func opened(_ result: Result<Frame, BanyanError>) {
        isOpening = false
        guard !isClosed else { return }
        switch result {
        case .success(var frame):
            switch Outcome(from: &frame.body) {
            case .done(let id): session.open(id)
            // A cluster whose members are not all of this version has none.
            case .failed, nil: sessionlessUntil = .now() + .seconds(1)
            }
        case .failure(let error):
            if error.isFinal {
                let requests = unticketed
                unticketed = []
                for request in requests { end(request, error) }
            }
        // Otherwise those who wait go on waiting, until their time is over.
        }
        takeUpWrites()
    }

    /// Ends a request. Its place in the session is free for another.
    func complete(_ request: Request, _ result: Result<Frame, BanyanError>) {
        request.isOver = true
        if let ticket = request.ticket { session.settle(ticket) }
        request.completion(result)
        if request.ticket != nil { takeUpWrites() }
    }

    /// Ends a request that is not answered.
    func end(_ request: Request, _ error: BanyanError) {
        complete(request, .failure(request.mayHaveHappened ? .unknownOutcome : error))
    }

    /// A member refuses to talk with this client at all.
    func refuse(_ request: Request, _ reason: String) { end(request, mixture ?? .refused(reason)) }

    /// A write that may have been proposed: in a session it can be sent again.
    func lostAnswer(to request: Request) {
        guard request.ticket != nil || request.oneTime != nil else {
            return complete(request, .failure(.unknownOutcome))
        }
        request.mayHaveHappened = true
        sendAgain(request)
    }

    /// The session is over. A write that was sent once alone did not happen, and gets a place in a new one.
    func sessionEnded(for request: Request) {
        request.oneTime = nil
        if let ticket = request.ticket, session.isOf(ticket) { session = Session() }
        guard !request.mayHaveHappened else { return complete(request, .failure(.unknownOutcome)) }
        request.ticket = nil
        send(request)
    }
}
