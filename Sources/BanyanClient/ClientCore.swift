import DequeModule
import NIOCore
import NIOPosix
import WireProtocol

/// The client's own state, on its event loop: connections, requests, and what it believes of the leader.
///
/// A write is sent again only after a refusal that proves that nothing was proposed, or when it never left. Everything
/// else ends as "unknown".
final class ClientCore {
    typealias Completion = (Result<Frame, BanyanError>) -> Void

    struct Request {
        var kind: Frame.Kind
        var body: ByteBuffer
        var deadline: NIODeadline
        var completion: Completion
        /// Some member said that there is no leader, or that it is busy.
        var wasRefused = false
        var redirects = 0
        /// Meant for this member alone, and for no other in its place.
        var address: String?
    }

    private static let retryDelay = TimeAmount.milliseconds(20)
    private static let redirectsMax = 5
    /// How long a member may take to say who leads, before the next one is asked.
    private static let locateTimeout = TimeAmount.milliseconds(500)

    let loop: any EventLoop
    private let nodes: [String]
    private var connections: [String: ClientConnection] = [:]
    /// Of the first member that answered; 0 before. Members of another would mix two trees into one.
    private(set) var clusterID: UInt64 = 0
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

    init(nodes: [String], loop: any EventLoop) {
        self.nodes = nodes
        self.loop = loop
    }

    func send(_ request: Request) {
        guard !isClosed else {
            request.completion(.failure(.unreachable))
            return
        }
        scheduleSweep()
        // A write to a member that is stopped would end as "unknown" for no good reason: it goes to the leader alone.
        if request.kind == .write, leader == nil {
            retryLater(request)
            locateLeader()
            return
        }
        let target = request.address ?? leader ?? nodes[nextNode % nodes.count]
        let connection = connections[target] ?? connect(to: target)
        lastID += 1
        connection.send(request, id: lastID)
        scheduleFlush()
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
            for request in requests { request.completion(.failure(.refused(reason))) }
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
        isClosed = true
        for request in waiting { request.completion(.failure(.unreachable)) }
        waiting = []
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
        if clusterID == 0 { clusterID = welcome.clusterID }
        return welcome.clusterID == 0 || welcome.clusterID == clusterID
    }

    // MARK: answers

    func received(_ frame: Frame, for request: Request) {
        guard frame.kind == .refusal else {
            request.completion(.success(frame))
            return
        }
        guard let refusal = try? Refusal(frame) else {
            request.completion(.failure(.protocolViolation("a refusal can't be read")))
            return
        }
        var request = request
        switch refusal.code {
        case .notLeader:
            request.redirects += 1
            leader = refusal.leader.isEmpty ? nil : refusal.leader
            if request.redirects <= Self.redirectsMax { send(request) } else { retryLater(request) }
        case .noLeader, .busy, .shuttingDown:
            request.wasRefused = true
            if refusal.code != .busy { forgetLeader() }
            retryLater(request)
        case .deadlinePassed: request.completion(.failure(.noQuorum))
        case .unknownOutcome: request.completion(.failure(.unknownOutcome))
        case .transferFailed: request.completion(.failure(.transferFailed))
        case .unsupported: request.completion(.failure(.unsupported))
        case .malformed: request.completion(.failure(.protocolViolation("the member can't read the request")))
        case .corrupt where request.kind == .read && request.redirects < Self.redirectsMax:
            // Another member's copy may be sound.
            request.redirects += 1
            forgetLeader()
            retryLater(request)
        case .corrupt: request.completion(.failure(.protocolViolation("the member's copy is damaged")))
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
        for request in sent {
            if request.kind == .write { request.completion(.failure(.unknownOutcome)) } else { retryLater(request) }
        }
    }

    private func retryLater(_ request: Request) {
        guard !isClosed, request.address == nil else {
            request.completion(.failure(.unreachable))
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
        request.completion(.failure(request.wasRefused ? .noQuorum : .unreachable))
    }

    /// Ends what waits beyond its deadline, on every connection.
    private func scheduleSweep() {
        guard !isSweepScheduled else { return }
        isSweepScheduled = true
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: .milliseconds(50)) {
            let core = this.value
            core.isSweepScheduled = false
            var isIdle = core.waiting.isEmpty
            for connection in Array(core.connections.values) {
                let (unsent, sent) = connection.takeExpired(at: .now())
                for request in unsent { core.expire(request) }
                for request in sent {
                    request.completion(.failure(request.kind == .write ? .unknownOutcome : .noQuorum))
                }
                let stalled = connection.takeStalledReads(at: .now())
                // A member that answers nothing may be stopped or cut off: try another.
                if !sent.isEmpty || !stalled.isEmpty, core.leader == connection.address || core.leader == nil {
                    core.forgetLeader()
                }
                for request in stalled { core.retryLater(request) }
                if connection.isMute(at: .now()) { connection.close() }
                if !connection.isIdle { isIdle = false }
            }
            if !isIdle && !core.isClosed { core.scheduleSweep() }
        }
    }
}
