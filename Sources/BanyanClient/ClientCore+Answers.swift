import FileTree
import NIOCore
import WireProtocol

/// What comes of a request: its answer, a refusal, the end of its connection or of its time.
extension ClientCore {
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
    func sendAgain(_ request: Request) {
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
    func rest(_ request: Request, because obstacle: BanyanError? = nil) {
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

    func scheduleRest() {
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
    func expire(_ request: Request) {
        if let address = request.address {
            guard troubles[address] == nil else { return sendAgain(request) }
            return end(request, .memberUnreachable("the member at \(address) does not answer"))
        }
        end(request, request.obstacle ?? search.obstacle)
    }

    /// It was sent, and its time is over.
    func expireUnanswered(_ request: Request, by address: String) {
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
    func scheduleSweep() {
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

    func expireLate(_ list: ReferenceWritableKeyPath<ClientCore, [Request]>, at now: NIODeadline) {
        guard self[keyPath: list].contains(where: { $0.deadline <= now }) else { return }
        let late = self[keyPath: list].filter { $0.deadline <= now }
        self[keyPath: list].removeAll { $0.deadline <= now }
        for request in late { expire(request) }
    }
}
