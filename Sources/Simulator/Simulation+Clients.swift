import NIOCore
import Raft

/// The clients of a run: one operation at a time each, on a few files that all of them share.
extension Simulation {
    static let clientCount = 4
    private static let files = 3

    func act(_ client: Int) {
        guard !isOver, clients[client].request == nil else { return }
        let file = Int.random(in: 0..<Self.files, using: &generator)
        let kind: Operation.Kind
        switch Int.random(in: 0..<10, using: &generator) {
        case 0..<4:
            lastValue += 1
            kind = .put(lastValue)
        case 4..<8: kind = .get
        case 8:
            if let known = clients[client].known[file] {
                lastValue += 1
                kind = .compareAndSet(known.value, lastValue)
            } else {
                kind = .get
            }
        default: kind = .delete
        }
        clients[client].operation = history.count
        clients[client].tries = 0
        history.append(Operation(client: client, file: file, kind: kind, invoked: time))
        ask(client)
    }

    /// Sends the client's operation to the member that it believes to lead, or to any.
    private func ask(_ client: Int) {
        let member = clients[client].leader ?? Int.random(in: members.indices, using: &generator)
        lastRequest += 1
        clients[client].request = lastRequest
        clients[client].tries += 1
        if !isLost() { schedule(.request(member, client: client, id: lastRequest), in: random(plan.delay)) }
        schedule(.timeout(client: client, id: lastRequest), in: random(300_000_000...2_000_000_000))
    }

    func arrive(at member: Int, client: Int, id: Int) throws {
        guard clients[client].request == id, let operation = clients[client].operation else { return }
        guard members[member].isRunning else {
            schedule(.answer(client: client, id: id, .refused), in: random(plan.delay))
            return
        }
        let waiter = SimulatedMember.Waiter(client: client, request: id)
        let now = clock(of: member)
        let asked = history[operation]
        if asked.kind == .get {
            let query = SimulatedClient.query(asked)
            try perform(member, members[member].read(query, for: waiter, now: now, &invariants))
        } else {
            let command = SimulatedClient.command(asked, known: clients[client].known[asked.file])
            try perform(member, members[member].write(command, for: waiter, now: now, &invariants))
        }
    }

    func received(_ answer: SimulatedMember.Answer, by client: Int, id: Int) {
        guard clients[client].request == id, let operation = clients[client].operation else { return }
        switch answer {
        case .result(let bytes, _, _):
            let (outcome, known) = SimulatedClient.outcome(of: history[operation], bytes)
            clients[client].known[history[operation].file] = known
            history[operation].returned = time
            history[operation].outcome = outcome
            finish(client)
        case .unknown:
            clients[client].leader = nil
            finish(client)
        case .notLeader(let leader):
            clients[client].leader = leader.map { position(of: $0) }
            retry(client)
        case .refused:
            clients[client].leader = nil
            retry(client)
        }
    }

    /// Nothing happened: the same operation may be asked for again.
    private func retry(_ client: Int) {
        guard let operation = clients[client].operation else { return }
        if clients[client].tries < 20 { return ask(client) }
        // It never happened, and so says nothing.
        history[operation].kind = .get
        finish(client)
    }

    func timedOut(_ client: Int, id: Int) {
        guard clients[client].request == id else { return }
        clients[client].leader = nil
        finish(client)
    }

    private func finish(_ client: Int) {
        clients[client].request = nil
        clients[client].operation = nil
        schedule(.act(client: client), in: random(1_000_000...100_000_000))
    }
}
