import FileTree
import NIOCore
import WireProtocol

/// Who leads, as the search finds it, and what waits for that.
extension ClientCore {
    func perform(_ actions: [LeaderSearch.Action]) {
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

    func ask(_ address: String) {
        let request = Request(
            kind: .status, body: ByteBuffer(), deadline: .now() + Self.locateTimeout,
            completion: { [weak self] in self?.asked(address, $0) }, address: address)
        // Not before the search has taken note of all that it asks.
        let this = NIOLoopBound((self, request), eventLoop: loop)
        loop.execute { this.value.0.send(this.value.1) }
    }

    func asked(_ address: String, _ result: Result<Frame, BanyanError>) {
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

    func noteClock(of status: MemberStatus, at address: String) {
        let statistics = status.statistics
        let version = statistics.first { $0.name == MemberStatus.clusterVersion }?.value ?? 0
        let logTime = statistics.first { $0.name == MemberStatus.logTime }?.value
        let isOfUse = status.role == .leader && version >= CommandHeader.oneTimeVersion
        leaderClocks[address] = isOfUse ? logTime.map { LeaderClock(logTime: $0, at: .now()) } : nil
    }

    /// Everybody was asked, and nobody leads.
    func concluded() {
        guard search.isHopeless else { return }
        let requests = leaderless + unticketed
        leaderless = []
        unticketed = []
        for request in requests { end(request, search.obstacle) }
    }

    /// Sends what waited for a leader, or for anybody who can answer it.
    func takeUpLeaderless() {
        guard !leaderless.isEmpty, !isClosed else { return }
        let requests = leaderless
        leaderless = []
        for request in requests {
            if target(for: request) == nil { leaderless.append(request) } else { send(request) }
        }
    }

    /// The member acts as the leader no more.
    func lost(_ address: String, isSuspect: Bool) {
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

    func connect(to address: String) -> ClientConnection {
        let connection = ClientConnection(address: address, core: self)
        connections[address] = connection
        connection.connect()
        return connection
    }

    func scheduleFlush() {
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
