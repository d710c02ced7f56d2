import FileTree
import Glibc
import Logging
import NIOCore
import Raft
import Transport
import WireProtocol

/// Who may speak to this member, and to which part of it.
extension Server {
    func makeConnection() -> FrameConnection {
        lastConnection += 1
        if let other = admission.opened(lastConnection, at: Clock.now) {
            strangers.removeValue(forKey: other).map { end($0, Self.noHello) }
        }
        let connection = FrameConnection(
            id: lastConnection, memory: memory, unfinishedFrames: unfinishedFrames,
            onFrame: { [unowned self] in received($1, on: $0) },
            onClose: { [unowned self] connection, error in
                strangers[connection.id] = nil
                connections[connection.id] = nil
                admission.closed(connection.id)
                replica?.closed(connection)
                if let error = error as? ProtocolError { told(error, by: connection) }
            })
        strangers[connection.id] = connection
        return connection
    }

    func starved(_ error: IOError) {
        defer { starvedAt = Clock.now }
        guard starvedAt == nil else { return }
        logger.error(
            "taking in no connections; raise the limit of open files (ulimit -n)",
            metadata: ["reason": "\(String(cString: strerror(error.errnoCode)))"])
    }

    private static let noHello = Goodbye(.protocolError, "no hello came in time")
    private static let lateFrame = Goodbye(
        .protocolError,
        "a frame took too long: it must be whole, or get on by \(FrameDeadline.bytesMin) bytes, within "
            + "\(FrameDeadline.whileMax / 1_000_000_000) seconds")

    /// Once a second.
    func lookAtConnections() {
        let now = Clock.now
        if let failure = starvedAt, now - failure > 1_000_000_000 {
            starvedAt = nil
            logger.notice("taking in connections again")
        }
        for id in admission.overdue(at: now) {
            admission.closed(id)
            strangers.removeValue(forKey: id).map { end($0, Self.noHello) }
        }
        // A copy: who is sent away is gone from the other.
        for connection in Array(connections.values) {
            let (isHeard, isLate) = connection.look(at: now)
            if isHeard { admission.heard(connection.id, at: now) }
            if isLate { end(connection, Self.lateFrame) }
        }
    }

    /// Frames that are not whole hold too much together: the one that has begun first is no honest one's, whose are whole
    /// within moments.
    func endLongestFrame() {
        let unfinished = connections.values.filter { $0.unfinishedBytes > 0 }
        let first = unfinished.min { ($0.unfinishedSince, $1.id) < ($1.unfinishedSince, $0.id) }
        first.map { end($0, Goodbye(.shuttingDown, "too many frames are on their way, and this one took the longest")) }
    }

    private func end(_ connection: FrameConnection, _ goodbye: Goodbye) {
        logger.info(
            "connection ended", metadata: ["from": "\(connection.remoteAddress)", "reason": "\(goodbye.reason)"])
        connection.say(goodbye)
    }

    /// A peer that comes again and again is told of once.
    private func refuse(_ connection: FrameConnection, _ reason: String, _ hello: Hello?) {
        let reason = ForeignText.plain(reason)
        let isNews = hello.map { $0.role == .client || refusedPeers.refused($0.incarnation, reason) } ?? true
        logger.log(
            level: isNews ? .warning : .debug, "connection refused",
            metadata: ["from": "\(connection.remoteAddress)", "reason": "\(reason)"])
    }

    /// What came over the connection can't be read.
    private func told(_ error: ProtocolError, by connection: FrameConnection) {
        refuse(connection, error.description, nil)
        guard let hello = connection.hello, hello.role == .peer, let replica else { return }
        replica.report(Offence(peer: PeerID(hello.incarnation), term: replica.core.term, kind: .unreadable))
    }

    /// Gives a connection its place, and tells another that it has none any more.
    private func admit(_ connection: FrameConnection, _ hello: Hello) throws {
        strangers[connection.id] = nil
        let verdict = admission.greeted(
            connection.id, isPeer: hello.role == .peer, at: Clock.now, isBusy: { connections[$0]?.isBusy ?? false })
        switch verdict {
        case .welcome(let other), .operators(let other):
            if case .operators = verdict { connection.isForOperators = true }
            guard let other else { return }
            connections[other].map {
                end($0, Goodbye(.shuttingDown, "all places are taken, and this connection was idle the longest"))
            }
        case .full: throw Goodbye(.shuttingDown, "all places are taken, and none of them is idle")
        }
    }

    private func received(_ frame: Frame, on connection: FrameConnection) {
        do {
            if let hello = connection.hello {
                try received(frame, from: hello, on: connection)
            } else {
                let hello = try Hello(frame)
                do { try greet(hello, on: connection) } catch let goodbye as Goodbye {
                    refuse(connection, goodbye.reason, hello)
                    connection.say(goodbye)
                }
            }
        } catch let goodbye as Goodbye {
            refuse(connection, goodbye.reason, connection.hello)
            connection.say(goodbye)
        } catch let error as ProtocolError {
            told(error, by: connection)
            connection.say(Goodbye(.protocolError, error.description))
        } catch {
            fatal("\(error)")
        }
    }

    private func received(_ frame: Frame, from hello: Hello, on connection: FrameConnection) throws {
        switch (hello.role, phase) {
        case (.client, .running) where connection.isForOperators && frame.kind.isForContents:
            connection.write { Refusal(.busy).write(to: &$0, requestID: frame.requestID) }
            connection.flush()
        case (.client, .running(let replica)): replica.handleClient(frame, on: connection)
        case (.client, _) where frame.kind == .status:
            connection.write { statusBeforeRunning.write(to: &$0, requestID: frame.requestID) }
            connection.flush()
        case (.client, _):
            connection.write { Refusal(.noLeader).write(to: &$0, requestID: frame.requestID) }
            connection.flush()
        case (.peer, .running(let replica)) where frame.kind == .peerMessage:
            // One that was removed while it could not hear of it asks for votes until somebody tells it.
            if replica.hasRemoved(PeerID(hello.incarnation)) {
                throw Self.unknown(hello, to: replica.core.configuration)
            }
            try replica.handlePeer(frame, from: PeerID(hello.incarnation), on: connection)
        case (.peer, .running(let replica)) where frame.kind == .snapshotChunk:
            try replica.handleSnapshot(frame, from: hello, on: connection)
        // It has nothing to say until it begins, and says that with another hello.
        case (.peer, _) where hello.isBootstrapping: throw ProtocolError.malformedBody(frame.kind)
        // Whoever came in by the port is no authority on which cluster this is: see `Bootstrap`.
        case (.peer, .running) where frame.kind == .genesis: break
        case (.peer, .waiting), (.peer, .joining), (.peer, .repairing), (.peer, .starting), (.peer, .ended): break
        case (.peer, .running): throw ProtocolError.malformedBody(frame.kind)
        }
    }

    /// What a member says of itself that does not run yet.
    private var statusBeforeRunning: MemberStatus {
        let reason =
            switch phase {
            case .waiting(let bootstrap):
                "it waits for \(bootstrap.missing) to be started, with the same --cluster and --bootstrap"
            case .joining:
                "it waits to be taken in: run 'banyan member add \(identity.memberID) \(address)', or 'banyan member "
                    + "replace \(identity.memberID)'"
            case .repairing: "its log can't be read: it takes a sound copy from the others"
            case .starting, .running: "it opens its state"
            case .ended: "it ends"
            }
        return .starting(
            id: identity.memberID, members: identity.genesis?.text ?? options.clusterText, reason: reason)
    }

    private func greet(_ hello: Hello, on connection: FrameConnection) throws {
        guard hello.commonVersion != nil else {
            throw Goodbye(
                .noCommonVersion,
                "this member speaks versions \(ProtocolVersion.lowest) to \(ProtocolVersion.highest) of the protocol")
        }
        if hello.role == .peer {
            try check(hello)
        } else if hello.clusterID != 0, let genesis = identity.genesis, hello.clusterID != genesis.clusterID {
            throw Goodbye(
                .wrongCluster,
                "member \(identity.memberID) belongs to another cluster than the members asked before; check --nodes")
        }
        try admit(connection, hello)
        connection.hello = hello
        connections[connection.id] = connection
        replica?.accept(connection)
        var welcome = Welcome(
            clusterID: identity.genesis?.clusterID ?? 0, memberID: identity.memberID,
            incarnation: identity.incarnation, contentBytesMax: UInt32(FileTreeLimits.contentBytesMax),
            members: identity.genesis?.text ?? options.clusterText)
        welcome.isBootstrapping = identity.genesis == nil
        welcome.knownVersion = UInt8(clamping: options.knownVersion)
        connection.write { welcome.write(to: &$0) }
        tellGenesis(connection)
        connection.flush()
    }

    /// Tells a peer that waits what it begins with, if that is known.
    private func tellGenesis(_ connection: FrameConnection) {
        guard let hello = connection.hello, hello.role == .peer, hello.isBootstrapping else { return }
        let peer = PeerID(hello.incarnation)
        let genesis =
            replica.map { $0.genesis(for: peer) } ?? identity.genesis.flatMap { $0.member(peer) == nil ? nil : $0 }
        guard let genesis else { return }
        connection.write { buffer in buffer.writeFrame(.genesis) { genesis.write(to: &$0) } }
    }

    /// Those that asked before it was known have been waiting for it.
    func tellGenesis() {
        for connection in connections.values {
            tellGenesis(connection)
            connection.flush()
        }
    }

    /// Who may speak as a peer: a directory of this cluster; while this member waits for its cluster, whoever was given the
    /// same list, and while it waits to be taken in, a cluster's member.
    ///
    /// A directory that this member's configuration does not name may still be a member's: of a configuration that this
    /// one has yet to hear of, perhaps its leader's (section 6 of the paper). The leader alone knows better.
    private func check(_ hello: Hello) throws {
        // It hears nothing before a configuration names it.
        if hello.isNewcomer, hello.clusterID == 0 { return }
        if case .joining = phase {
            guard hello.clusterID != 0 else {
                throw Goodbye(
                    .differentMembers, "member \(identity.memberID) waits to be taken in by a running cluster")
            }
            return
        }
        guard let genesis = identity.genesis else {
            guard hello.members == options.clusterText else {
                throw Goodbye(
                    .differentMembers,
                    "member \(identity.memberID) was started with --cluster \(options.clusterText), not \(hello.members)"
                )
            }
            return
        }
        if hello.clusterID != 0, hello.clusterID == identity.formerClusterID {
            throw Goodbye(
                .recovered,
                "the cluster that you know was given up when member \(identity.memberID) was recovered; delete this directory, "
                    + "start an empty one with --join, and run 'banyan member add'")
        }
        guard hello.clusterID == genesis.clusterID || (hello.clusterID == 0 && hello.isBootstrapping) else {
            throw Goodbye(.wrongCluster, "member \(identity.memberID) belongs to another cluster")
        }
        let configuration = replica?.core.configuration ?? genesis
        if configuration.peers.contains(PeerID(hello.incarnation)) { return }
        if hello.isBootstrapping || replica?.core.role == .leader { throw Self.unknown(hello, to: configuration) }
    }

    private static func unknown(_ hello: Hello, to configuration: Configuration) -> Goodbye {
        let isKnown = configuration.members.contains { $0.id == hello.memberID }
        return Goodbye(
            .unknownIncarnation,
            isKnown
                ? "the cluster knows member \(hello.memberID) by another directory: one that was wiped can't come back "
                    + "under its old name; start it with --id, --cluster and --join, and run 'banyan member replace \(hello.memberID)'"
                : "member \(hello.memberID) does not belong to the cluster, or not any more")
    }
}

extension Frame.Kind {
    /// Whether a client asks by it for what the cluster keeps, or to change it.
    fileprivate var isForContents: Bool { purpose == .read || purpose == .write }
}
