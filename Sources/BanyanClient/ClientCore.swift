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
    private struct LeaderClock {
        let logTime: UInt64
        let at: NIODeadline
    }

    /// How much longer than it may take a write of no session can be repeated.
    private static let oneTimeMargin = TimeAmount.seconds(120)
    /// What a leader said longer ago is no measure.
    private static let leaderClockMax = TimeAmount.seconds(60)

    private static let redirectsMax = 5
    /// How long the opening of a session may take before another is tried.
    private static let openTimeout = TimeAmount.seconds(2)
    /// How long a member may take to say who leads, before it is asked again.
    private static let locateTimeout = TimeAmount.seconds(2)

    let loop: any EventLoop
    private let nodes: [String]
    private var connections: [String: ClientConnection] = [:]
    /// Of the first member that answered; 0 before. Members of another would mix two trees into one.
    private(set) var clusterID: UInt64 = 0
    /// Who named it.
    private var clusterFrom = ""
    private var search: LeaderSearch
    /// Two of the addresses that were given belong to different clusters: nothing is done then.
    private var mixture: BanyanError?
    private var lastID: UInt64 = 0
    /// Requests that wait for a leader.
    private var leaderless: [Request] = []
    /// Requests between two tries, after a refusal.
    private var resting: [Request] = []
    private var restEnds: NIODeadline?
    private var isFlushScheduled = false
    private var isSweepScheduled = false
    private(set) var isClosed = false
    private var session = Session()
    private var isOpening = false
    /// The first write of a client goes alone: most clients that a command line makes write once.
    private var hasWritten = false
    /// By its address.
    private var leaderClocks: [String: LeaderClock] = [:]
    /// Writes that wait for a session, or for room in it.
    private var unticketed: Deque<Request> = []
    /// Until then the cluster is taken for one without sessions.
    private var sessionlessUntil = NIODeadline.uptimeNanoseconds(0)

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
    private func send(alone request: Request, to leader: String) {
        request.goesAlone = false
        if let until = end(of: request, by: leader) {
            request.oneTime = OneTime(id: UInt128.random(in: 1...UInt128.max), until: until)
        }
        send(request)
    }

    /// The log time from which on no copy of a write is wanted any more, as the leader reckons it now: another one's may lie
    /// behind, by the time in which nothing was written. Nil: it is not known, or too far.
    private func end(of request: Request, by leader: String) -> UInt64? {
        let now = NIODeadline.now()
        guard let clock = leaderClocks[leader], now - clock.at < Self.leaderClockMax else { return nil }
        let left = (request.deadline - clock.at + Self.oneTimeMargin).nanoseconds / 1_000_000
        guard left > 0, left < FileTreeLimits.oneTimeMillisecondsMax else { return nil }
        return clock.logTime + UInt64(left)
    }

    /// Nobody, until it is known who leads. A write to a member that is stopped would end as "unknown" for no good reason.
    private func target(for request: Request) -> String? {
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
        OpenSession().write(to: &body)
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
    private func end(_ request: Request, _ error: BanyanError) {
        complete(request, .failure(request.mayHaveHappened ? .unknownOutcome : error))
    }

    /// A member refuses to talk with this client at all.
    func refuse(_ request: Request, _ reason: String) { end(request, mixture ?? .refused(reason)) }

    /// A write that may have been proposed: in a session it can be sent again.
    private func lostAnswer(to request: Request) {
        guard request.ticket != nil || request.oneTime != nil else {
            return complete(request, .failure(.unknownOutcome))
        }
        request.mayHaveHappened = true
        sendAgain(request)
    }

    /// The session is over. A write that was sent once alone did not happen, and gets a place in a new one.
    private func sessionEnded(for request: Request) {
        request.oneTime = nil
        if let ticket = request.ticket, session.isOf(ticket) { session = Session() }
        guard !request.mayHaveHappened else { return complete(request, .failure(.unknownOutcome)) }
        request.ticket = nil
        send(request)
    }

    // MARK: the leader

    private func perform(_ actions: [LeaderSearch.Action]) {
        for action in actions {
            switch action {
            case .ask(let address): ask(address)
            case .wake(let time):
                let this = NIOLoopBound(self, eventLoop: loop)
                loop.scheduleTask(deadline: time) {
                    let core = this.value
                    guard !core.isClosed else { return }
                    core.perform(core.search.wake(at: .now(), isWanted: !core.leaderless.isEmpty))
                }
            case .concluded: concluded()
            }
        }
        takeUpLeaderless()
    }

    private func ask(_ address: String) {
        let request = Request(
            kind: .status, body: ByteBuffer(), deadline: .now() + Self.locateTimeout,
            completion: { [weak self] in self?.asked(address, $0) }, address: address)
        // Not before the search has taken note of all that it asks.
        let this = NIOLoopBound((self, request), eventLoop: loop)
        loop.execute { this.value.0.send(this.value.1) }
    }

    private func asked(_ address: String, _ result: Result<Frame, BanyanError>) {
        guard !isClosed, mixture == nil else { return }
        switch result {
        case .success(let frame):
            guard let status = try? MemberStatus(frame) else {
                return perform(search.failed(address, .unreachable("its status can't be read"), at: .now()))
            }
            noteClock(of: status, at: address)
            perform(search.heard(LeaderSearch.Statement(status), from: address, at: .now()))
        case .failure(.refused(let reason)):
            let reason = reason.hasPrefix("\(address): ") ? String(reason.dropFirst(address.count + 2)) : reason
            perform(search.failed(address, .hopeless(reason), at: .now()))
        case .failure:
            let finding: LeaderSearch.Finding =
                switch troubles[address] {
                case .hopeless(let reason)?: .hopeless(reason)
                case .noSuchHost(let host)?: .noSuchHost(host)
                case .unreachable(let reason)?: .unreachable(reason)
                case nil: .silent
                }
            perform(search.failed(address, finding, at: .now()))
        }
    }

    private func noteClock(of status: MemberStatus, at address: String) {
        let statistics = status.statistics
        let version = statistics.first { $0.name == MemberStatus.clusterVersion }?.value ?? 0
        let logTime = statistics.first { $0.name == MemberStatus.logTime }?.value
        let isOfUse = status.role == .leader && version >= CommandHeader.oneTimeVersion
        leaderClocks[address] = isOfUse ? logTime.map { LeaderClock(logTime: $0, at: .now()) } : nil
    }

    /// Why the last connection to an address ended; of those that were never ready since.
    private var troubles: [String: ClientConnection.Trouble] = [:]

    /// Everybody was asked, and nobody leads.
    private func concluded() {
        guard search.isHopeless else { return }
        let requests = leaderless + unticketed
        leaderless = []
        unticketed = []
        for request in requests { end(request, search.obstacle) }
    }

    /// Sends what waited for a leader, or for anybody who can answer it.
    private func takeUpLeaderless() {
        guard !leaderless.isEmpty, !isClosed else { return }
        let requests = leaderless
        leaderless = []
        for request in requests {
            if target(for: request) == nil { leaderless.append(request) } else { send(request) }
        }
    }

    /// The member acts as the leader no more.
    private func lost(_ address: String, isSuspect: Bool) {
        search.lost(address, isSuspect: isSuspect)
        if !leaderless.isEmpty { perform(search.begin(at: .now())) }
    }

    func close() {
        if let id = session.id, let leader = search.leader, let connection = connections[leader] {
            var body = ByteBuffer()
            CloseSession(id).write(to: &body)
            lastID += 1
            // Nobody waits for the answer: a session that stays ends by itself.
            connection.send(
                Request(
                    kind: .write, body: body, deadline: .now() + .seconds(1), completion: { _ in }, isSessions: true),
                id: lastID)
            connection.flush()
        }
        isClosed = true
        let requests = leaderless + resting + unticketed
        leaderless = []
        resting = []
        unticketed = []
        for request in requests { end(request, .unreachable("the client is closed")) }
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
    func accepts(_ welcome: Welcome, from address: String) -> Bool {
        troubles[address] = nil
        if clusterID == 0, welcome.clusterID != 0 { (clusterID, clusterFrom) = (welcome.clusterID, address) }
        return welcome.clusterID == 0 || welcome.clusterID == clusterID
    }

    /// The member at the address is of another cluster. If both were given, it is not known which one is meant.
    func isForeign(_ address: String) {
        guard nodes.contains(address), nodes.contains(clusterFrom), mixture == nil else { return }
        let error = BanyanError.differentClusters("\(address) belongs to another cluster than \(clusterFrom)")
        mixture = error
        let requests = leaderless + resting + unticketed
        leaderless = []
        resting = []
        unticketed = []
        for request in requests { end(request, error) }
    }

    // MARK: answers

    func received(_ frame: Frame, for request: Request, from address: String) {
        guard frame.kind == .refusal else {
            let code = frame.body.getInteger(at: frame.body.readerIndex, as: UInt16.self)
            let isOnce = request.ticket != nil || request.oneTime != nil
            if isOnce, code == TreeError.sessionEnded.rawValue { return sessionEnded(for: request) }
            // A leader that stood still while the version rose, or the table is full for the moment: a session will do.
            // So it will where the leader's clock was another when it was asked.
            let refusals: [TreeError] = [.unsupported, .tooManyUnanswered, .malformed]
            if request.oneTime != nil, refusals.contains(where: { $0.rawValue == code }) {
                return sessionEnded(for: request)
            }
            // A leader that has yet to hear of the version in force can't say that an earlier copy did not happen.
            if request.ticket != nil, request.mayHaveHappened, code == TreeError.unsupported.rawValue {
                return complete(request, .failure(.unknownOutcome))
            }
            return complete(request, .success(frame))
        }
        guard let refusal = try? Refusal(frame) else {
            complete(request, .failure(.protocolViolation("a refusal can't be read")))
            return
        }
        switch refusal.code {
        case .notLeader:
            request.redirects += 1
            if !refusal.leader.isEmpty {
                perform(search.redirected(by: address, to: refusal.leader, at: .now()))
            } else {
                lost(address, isSuspect: false)
            }
            if request.redirects <= Self.redirectsMax, request.address == nil {
                send(request)
            } else {
                rest(request, because: .noQuorum("\(address) does not lead"))
            }
        case .noLease:
            request.obstacle = .noQuorum("\(address) leads, and holds no lease now: read without --consistency lease")
            // After a while the surer way is the quicker one: this leader may have given its lease away for good.
            request.redirects += 1
            if request.redirects > Self.redirectsMax { request.kind = .read }
            rest(request)
        case .noLeader, .shuttingDown:
            lost(address, isSuspect: false)
            request.obstacle = nil
            rest(request, because: .noQuorum("\(address) knows no leader"))
        case .busy:
            request.obstacle = .noQuorum("\(address) is too busy")
            rest(request)
        case .deadlinePassed: end(request, .noQuorum("\(address) took it up too late"))
        case .unknownOutcome: lostAnswer(to: request)
        case .transferFailed: complete(request, .failure(.transferFailed))
        case .diskFull: end(request, .diskFull)
        case .unsupported: complete(request, .failure(.unsupported))
        case .malformed: complete(request, .failure(.protocolViolation("the member can't read the request")))
        case .corrupt where request.isRead && request.redirects < Self.redirectsMax:
            // Another member's copy may be sound.
            request.redirects += 1
            lost(address, isSuspect: true)
            rest(request)
        case .corrupt:
            end(request, .refused("\(address): its copy is damaged, or the members' copies differ; see its log"))
        }
    }

    /// The connection is gone. What never left may go elsewhere, and so may reads.
    func closed(
        _ connection: ClientConnection, _ trouble: ClientConnection.Trouble, unsent: [Request], sent: [Request]
    ) {
        if connections[connection.address] === connection { connections[connection.address] = nil }
        troubles[connection.address] = trouble
        lost(connection.address, isSuspect: false)
        for request in unsent { sendAgain(request) }
        for request in sent { if request.isChange { lostAnswer(to: request) } else { sendAgain(request) } }
    }

    /// To whoever leads, or can answer it; one that is meant for a member alone ends.
    private func sendAgain(_ request: Request) {
        guard let address = request.address else {
            guard mixture == nil, !isClosed else {
                return end(request, mixture ?? .unreachable("the client is closed"))
            }
            return send(request)
        }
        if case .noSuchHost(let host)? = troubles[address] {
            return end(request, .noSuchHost("\(address): no such host: \(host)"))
        }
        let reason = troubles[address].map { " (\($0.reason))" } ?? ""
        end(request, .memberUnreachable("the member at \(address) can't be reached\(reason)"))
    }

    /// Sends a refused request again after a pause that grows with the time for which it is refused.
    private func rest(_ request: Request, because obstacle: BanyanError? = nil) {
        guard request.address == nil, !isClosed, mixture == nil else {
            return end(request, mixture ?? obstacle ?? request.obstacle ?? .unreachable("the client is closed"))
        }
        let now = NIODeadline.now()
        let since = request.refusedSince ?? now
        request.refusedSince = since
        request.resumesAt = now + LeaderSearch.pause(after: now - since)
        resting.append(request)
        scheduleRest()
    }

    private func scheduleRest() {
        guard let next = resting.map(\.resumesAt).min(), restEnds.map({ next < $0 }) ?? true else { return }
        restEnds = next
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(deadline: next) {
            let core = this.value
            if core.restEnds == next { core.restEnds = nil }
            let now = NIODeadline.now()
            let requests = core.resting.filter { $0.resumesAt <= now }
            core.resting.removeAll { $0.resumesAt <= now }
            for request in requests { core.send(request) }
            core.scheduleRest()
        }
    }

    /// Its time is over, and no answer to it was lost.
    private func expire(_ request: Request) {
        if let address = request.address {
            guard troubles[address] == nil else { return sendAgain(request) }
            return end(request, .memberUnreachable("the member at \(address) does not answer"))
        }
        end(request, request.obstacle ?? search.obstacle)
    }

    /// It was sent, and its time is over.
    private func expireUnanswered(_ request: Request, by address: String) {
        if request.leavesTraces { return complete(request, .failure(.unknownOutcome)) }
        guard request.address == nil else {
            return end(request, .memberUnreachable("the member at \(address) does not answer, or does not get on"))
        }
        end(request, .noQuorum("\(address) does not answer in time"))
    }

    // MARK: patience

    /// Looks now and then whether the member goes on with a request that may take long.
    func watch(_ request: Request, _ last: [UInt64] = []) {
        guard !request.isOver, !isClosed, let patience = request.patience, let address = request.address else { return }
        let this = NIOLoopBound((self, request), eventLoop: loop)
        loop.scheduleTask(in: min(.milliseconds(500), .nanoseconds(patience.nanoseconds / 4))) {
            let (core, request) = this.value
            guard !request.isOver else { return }
            core.send(
                Request(
                    kind: .status, body: ByteBuffer(), deadline: .now() + patience,
                    completion: { [weak core] in
                        // What is only said, as how long something stands still, is no progress.
                        let work = (try? $0.get()).flatMap { try? MemberStatus($0).workUnderWay }
                        let done = work?.map(\.bytesDone).filter { $0 > 0 }
                        if let done, done != last { request.progressed() }
                        core?.watch(request, done ?? last)
                    }, address: address))
        }
    }

    /// Ends what waits beyond its deadline, on every connection.
    private func scheduleSweep() {
        guard !isSweepScheduled else { return }
        isSweepScheduled = true
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: .milliseconds(50)) {
            let core = this.value
            core.isSweepScheduled = false
            let now = NIODeadline.now()
            core.expireLate(\.leaderless, at: now)
            core.expireLate(\.resting, at: now)
            var late: [Request] = []
            core.unticketed.removeAll { request in
                guard request.deadline <= now else { return false }
                late.append(request)
                return true
            }
            for request in late { core.expire(request) }
            for connection in Array(core.connections.values) {
                let (unsent, sent) = connection.takeExpired(at: now)
                for request in unsent { core.expire(request) }
                for request in sent { core.expireUnanswered(request, by: connection.address) }
                let stalled = connection.takeStalled(at: now)
                // A member that answers nothing may be stopped or cut off: try another.
                if !stalled.isEmpty || sent.contains(where: { $0.address == nil }) {
                    core.lost(connection.address, isSuspect: true)
                }
                for request in stalled {
                    if request.kind == .write { core.lostAnswer(to: request) } else { core.sendAgain(request) }
                }
                connection.endIfMute(at: now)
            }
            let isIdle =
                core.leaderless.isEmpty && core.resting.isEmpty && core.unticketed.isEmpty
                && core.connections.values.allSatisfy(\.isIdle)
            if !isIdle && !core.isClosed { core.scheduleSweep() }
        }
    }

    private func expireLate(_ list: ReferenceWritableKeyPath<ClientCore, [Request]>, at now: NIODeadline) {
        guard self[keyPath: list].contains(where: { $0.deadline <= now }) else { return }
        let late = self[keyPath: list].filter { $0.deadline <= now }
        self[keyPath: list].removeAll { $0.deadline <= now }
        for request in late { expire(request) }
    }
}

extension LeaderSearch.Statement {
    init(_ status: MemberStatus) {
        let addresses = status.members.split(separator: ",").compactMap { part -> String? in
            let sides = part.split(separator: "=", maxSplits: 1)
            return sides.count == 2 && UInt64(sides[0]) != nil ? String(sides[1]) : nil
        }
        self.init(
            leads: status.role == .leader, term: status.term, leader: status.leader, members: addresses,
            isRemoved: status.isRemoved, startingReason: status.startingReason)
    }
}
