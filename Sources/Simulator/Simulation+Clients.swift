import Driver
import FileTree
import Histories
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
        clients[client].sequence = nil
        clients[client].mayHaveHappened = false
        clients[client].isLease = Int.random(in: 0..<3, using: &generator) == 0
        // One of them is of the old kind.
        clients[client].usesSession = client > 0
        // A session that is over, or never was: its writes are refused, and the client opens another.
        if clients[client].session != nil, Int.random(in: 0..<40, using: &generator) == 0 {
            clients[client].session = 1
        }
        history.append(Operation(client: client, file: file, kind: kind, invoked: time))
        trace("client \(client): \(kind) on file \(file)")
        ask(client)
    }

    /// Sends the client's operation to the member that it believes to lead, or to any.
    private func ask(_ client: Int) {
        // Reads that any member answers go to the one that the client is connected with.
        let isRead = clients[client].operation.map { history[$0].kind == .get } ?? false
        let near = isRead && !clients[client].isLease ? client % founders : clients[client].leader
        let known = Int.random(in: 0..<5, using: &generator) > 0 ? near : nil
        let member = known ?? Int.random(in: members.indices, using: &generator)
        lastRequest += 1
        clients[client].request = lastRequest
        clients[client].tries += 1
        let isWrite = clients[client].operation.map { history[$0].kind != .get } ?? false
        if isWrite, clients[client].usesSession, clients[client].sequence == nil {
            clients[client].isOpening = clients[client].session == nil
            if clients[client].session != nil {
                clients[client].sequence = clients[client].nextSequence
                clients[client].nextSequence += 1
            }
        }
        if !isLost() { schedule(.request(member, client: client, id: lastRequest), in: random(plan.delay)) }
        schedule(.timeout(client: client, id: lastRequest), in: random(300_000_000...2_000_000_000))
    }

    func arrive(at member: Int, client: Int, id: Int) throws {
        guard clients[client].request == id, let operation = clients[client].operation else { return }
        guard members[member].isRunning else {
            schedule(.answer(from: member, client: client, id: id, .refused), in: random(plan.delay))
            return
        }
        let waiter = Waiter(client: client, request: id)
        let now = clock(of: member)
        let asked = history[operation]
        if asked.kind == .get {
            let query = SimulatedClient.query(asked)
            try perform(
                member,
                members[member].read(query, isLease: clients[client].isLease, for: waiter, now: now, &invariants))
        } else if clients[client].isOpening {
            var command = ByteBuffer()
            OpenSession().write(to: &command)
            try perform(member, members[member].write(command, for: waiter, now: now, &invariants))
        } else {
            var command = SimulatedClient.command(asked, known: clients[client].known[asked.file])
            if let session = clients[client].session, let sequence = clients[client].sequence {
                // It has one operation under way at a time: all before it are answered, or given up.
                CommandHeader.enroll(&command, session: session, sequence: sequence, lowestUnanswered: sequence)
            }
            try perform(member, members[member].write(command, for: waiter, now: now, &invariants))
        }
    }

    func received(_ answer: SimulatedMember.Answer, from member: Int, by client: Int, id: Int) {
        guard clients[client].request == id, let operation = clients[client].operation else { return }
        switch answer {
        case .result(let bytes, _, _) where clients[client].isOpening:
            opened(client, bytes)
        case .result(let bytes, _, _) where clients[client].sequence != nil && Self.isSessionEnded(bytes):
            note(.sessionEnded)
            clients[client].session = nil
            clients[client].sequence = nil
            if clients[client].mayHaveHappened { finish(client) } else { ask(client) }
        case .result(let bytes, let index, _):
            // Writes and reads by lease are the leader's alone.
            if index > 0 || clients[client].isLease { clients[client].leader = member }
            if clients[client].mayHaveHappened { note(.repeated) }
            let (outcome, known) = SimulatedClient.outcome(of: history[operation], bytes)
            clients[client].known[history[operation].file] = known
            history[operation].returned = time
            history[operation].outcome = outcome
            trace("client \(client): \(history[operation].kind) on file \(history[operation].file): \(outcome)")
            finish(client)
        case .unknown:
            clients[client].leader = nil
            lostAnswer(client)
        case .noLease:
            clients[client].isLease = false
            retry(client)
        case .notLeader(let leader):
            clients[client].leader = leader.map { position(of: $0) }
                .flatMap { members.indices.contains($0) ? $0 : nil }
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
        if clients[client].mayHaveHappened { return finish(client) }
        // It never happened, and so says nothing.
        history[operation].kind = .get
        finish(client)
    }

    func timedOut(_ client: Int, id: Int) {
        guard clients[client].request == id else { return }
        // Some are patient with whom they know.
        if Int.random(in: 0..<3, using: &generator) > 0 { clients[client].leader = nil }
        lostAnswer(client)
    }

    private static func isSessionEnded(_ answer: ByteBuffer) -> Bool {
        answer.getInteger(at: answer.readerIndex, as: UInt16.self) == TreeError.sessionEnded.rawValue
    }

    private func opened(_ client: Int, _ answer: ByteBuffer) {
        var answer = answer
        clients[client].isOpening = false
        if case .done(let session)? = Outcome(from: &answer) {
            clients[client].session = session
            clients[client].nextSequence = 1
        } else {
            // The cluster's version has no sessions yet.
            clients[client].usesSession = false
        }
        ask(client)
    }

    /// A write of a session is sent again, a few times; any other's outcome is unknown.
    private func lostAnswer(_ client: Int) {
        let isEnrolled = clients[client].sequence != nil || clients[client].isOpening
        guard isEnrolled, clients[client].tries < 8 else { return finish(client) }
        if clients[client].sequence != nil { clients[client].mayHaveHappened = true }
        ask(client)
    }

    private func finish(_ client: Int) {
        clients[client].request = nil
        clients[client].operation = nil
        clients[client].isOpening = false
        schedule(.act(client: client), in: random(1_000_000...(options.scenario?.thinkingTime ?? 100_000_000)))
    }

    // MARK: directories

    /// Somebody makes a directory with a few files, changes the mode of one, and removes it as a whole.
    func unlink() throws {
        guard let leader else { return }
        unlinked += 1
        let directory = try TreePath("/unlinked/\(unlinked)")
        var commands = [ByteBuffer(), ByteBuffer(), ByteBuffer(), ByteBuffer()]
        for file in 0..<2 {
            let path = try directory.appending("\(file)".utf8)
            Put(path: path, content: ByteBuffer(string: "leaf")).write(to: &commands[file])
        }
        let mode = UInt16(unlinked & 0o777)
        SetAttributes(path: try directory.appending("0".utf8), mode: mode, mtime: .now).write(to: &commands[2])
        Delete(path: directory, isRecursive: true).write(to: &commands[3])
        // The second file is put by a write of no session, and a copy of it comes later: there is one such file, or none.
        let logTime = members[leader].driverLogTime(now: clock(of: leader))
        CommandHeader.enrollOnce(&commands[1], id: UInt128(unlinked), until: logTime + 60_000)
        for command in commands[..<3] + [commands[1]] + commands[3...] where members[leader].isRunning {
            let waiter = Waiter(client: -1, request: unlinked)
            try perform(leader, members[leader].write(command, for: waiter, now: clock(of: leader), &invariants))
        }
    }
}
