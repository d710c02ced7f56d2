import FileTree
import Logging
import NIOCore
import Raft
import RaftLog
import Transport
import WireProtocol

/// The other members: connections, messages with the records of their entries, and entries that left the memory.
extension Replica {
    var clusterID: UInt64 { (identity.genesis ?? core.configuration).clusterID }

    func connect(_ member: Member) {
        guard let address = Address(member.address) else { return }
        var lanes: [Lane: PeerLink] = [:]
        for lane in [Lane.control, .append] {
            let link = PeerLink(
                to: address, on: loop, hello: { [unowned self] in hello(lane) },
                onWelcome: { [unowned self] in welcomed($0, $1, $2, by: member, lane) },
                onBreak: { [unowned self] in broke(member, lane, $1, wasReady: $2) },
                // Whoever does not know this member's address yet answers on this member's connection.
                onFrame: { [unowned self] _, connection, frame in
                    guard frame.kind == .peerMessage, !isStopped else { return }
                    do { try handlePeer(frame, from: member.peer, on: connection) } catch { connection.close() }
                })
            lanes[lane] = link
            link.start()
        }
        peers.link(member.peer, lanes)
    }

    func hello(_ lane: Lane) -> Hello {
        var hello = Hello(role: .peer)
        hello.lane = lane
        // Not that of the log's configuration: a cluster that was recovered has another one in its past.
        hello.clusterID = clusterID
        hello.memberID = identity.memberID
        hello.incarnation = identity.incarnation
        hello.members = (identity.genesis ?? core.configuration).text
        return hello
    }

    func welcomed(_ link: PeerLink, _ connection: FrameConnection, _ welcome: Welcome, by member: Member, _ lane: Lane)
        -> Bool
    {
        guard welcome.incarnation == member.peer.rawValue else {
            if peers.refused(member.peer, "it has another directory than the recorded one") {
                logger.warning(
                    "peer has another directory than the recorded one; if that was lost, run 'banyan member replace'",
                    metadata: ["peer": "\(member.id)", "address": "\(member.address)"])
            }
            link.reject()
            return true
        }
        // Earlier programs take it from here; the present one takes it from a connection of its own alone.
        if welcome.isBootstrapping, let configuration = genesis(for: member.peer) {
            connection.write { buffer in buffer.writeFrame(.genesis) { configuration.write(to: &$0) } }
            connection.flush()
        }
        peers.welcomed(member.peer)
        belonging.welcomed(by: member.peer)
        let knownVersion = UInt16(max(1, welcome.knownVersion))
        driver.knows(member.peer, clusterVersion: knownVersion)
        if knownVersion < lastReport.applied.clusterVersion {
            logger.error(
                "peer runs a program that does not know the cluster's version; start a newer one",
                metadata: ["peer": "\(member.id)", "version": "\(lastReport.applied.clusterVersion)"])
        }
        raiseVersionIfPossible()
        if lane == .control {
            logger.info("peer connected", metadata: ["peer": "\(member.id)", "address": "\(member.address)"])
        }
        return true
    }

    /// What a member that waits begins with, if it is one of this cluster. For those that founded it with this one, the first
    /// entry: it is the same for everyone. One that came later gets the configuration that took it in.
    func genesis(for peer: PeerID) -> Configuration? {
        if !identity.isJoining, let genesis = identity.genesis, genesis.member(peer) != nil { return genesis }
        return core.configuration.member(peer) == nil ? nil : core.configuration
    }

    func broke(_ member: Member, _ lane: Lane, _ goodbye: Goodbye?, wasReady: Bool) {
        // Not even a cluster that was given up ends at such a word: anybody may say it.
        if let goodbye, goodbye.code != .shuttingDown {
            let reason = ForeignText.plain(goodbye.reason)
            if peers.refused(member.peer, reason) {
                logger.warning(
                    "peer refused",
                    metadata: ["peer": "\(member.id)", "address": "\(member.address)", "reason": "\(reason)"])
            }
        }
        guard !isStopped else { return }
        if let goodbye, goodbye.code == .unknownIncarnation { isDisowned(by: member, goodbye.reason) }
        // Who comes back may run another program.
        if wasReady { driver.knows(member.peer, clusterVersion: nil) }
        if wasReady, lane == .control {
            logger.info("peer disconnected", metadata: ["peer": "\(member.id)", "address": "\(member.address)"])
        }
        guard lane == .append else { return }
        step(.unreachable(peer: member.peer))
        scheduleTurn()
    }

    /// Sends by the lane that fits; without a connection the message is lost, and Raft sends another.
    func send(_ message: Message, _ records: [ByteBuffer] = []) {
        let lane: Lane = if case .append = message.body { .append } else { .control }
        guard let connection = peers.connection(to: message.to, by: lane) else { return }
        // A peer that takes in nothing gets no more to take in: Raft sends it again, later.
        if lane == .append, connection.channel?.isWritable == false { return }
        if !records.isEmpty {
            connection.write { buffer in
                message.writeHead(to: &buffer, recordBytes: records.reduce(0) { $0 + $1.readableBytes })
                for record in records { buffer.writeImmutableBuffer(record) }
            }
        } else {
            let digest = core.role == .leader ? digests.agreed : digests.last
            connection.write { message.writeHead(to: &$0, freeBytes: disk.space.own, digest: digest) }
        }
        clients.markDirty(connection)
    }

    func handlePeer(_ frame: Frame, from peer: PeerID, on connection: FrameConnection) throws {
        let peerMessage = try PeerMessage(frame)
        let message = peerMessage.message
        // A message must come from whom the connection's hello named, and mean this directory.
        guard message.from == peer, message.to.rawValue == identity.incarnation else { return }
        // The recorded address may be out of date: then this is the way back.
        peers.heard(peer, on: connection)
        if let records = peerMessage.records, case .append(let append) = message.body,
            !canExecute(append.entries, in: records)
        {
            return report(Offence(peer: peer, term: message.term, kind: .unknownOperation))
        }
        step(.message(message), records: peerMessage.records)
        if peerMessage.freeBytes != nil || peerMessage.digest != nil { takeIn(peerMessage) }
        scheduleTurn()
    }

    /// A command that this program does not know would stop it when it is executed: it does not come in.
    private func canExecute(_ entries: [EntryHeader], in records: ByteBuffer) -> Bool {
        var offset = records.readerIndex
        for entry in entries {
            let isKnown =
                entry.kind != .command
                || CommandHeader.isExecutable(
                    records, at: offset + EntryRecord.headerByteCount,
                    count: Int(entry.size) - EntryRecord.headerByteCount, knownVersion: knownVersion)
            guard isKnown else { return false }
            offset += Int(entry.size)
        }
        return true
    }

    /// What stands beside a message: a leader's heartbeat tells the majority's digest, an answer to the leader a peer's own,
    /// and its free disk.space. It counts from a member of the cluster, in this term, from or at the leader.
    private func takeIn(_ peerMessage: PeerMessage) {
        let message = peerMessage.message
        guard message.term == core.term, core.configuration.peers.contains(message.from) else { return }
        if case .heartbeat = message.body {
            if core.leader == message.from, let digest = peerMessage.digest { judge(digest) }
        } else if core.role == .leader {
            if let bytes = peerMessage.freeBytes { disk.space.told(bytes, by: message.from, now: core.now) }
            if let digest = peerMessage.digest { heard(digest, from: message.from) }
        }
    }

    func report(_ offence: Offence) {
        let member = core.configuration.member(offence.peer)
        guard peers.note(offence, isMember: member != nil, now: Clock.now) else { return }
        let id = member.map { "\($0.id)" } ?? "\(offence.peer)"
        logger.error(
            "a peer's message was ignored: no sound member sends it",
            metadata: [
                "peer": "\(id)", "from": "\(peers.origin(of: offence.peer))", "term": "\(offence.term)",
                "reason": "\(offence.kind.rawValue)",
                "count": "\(peers.offences.count(of: offence.kind))",
            ])
    }

    /// Says once that a member must be replaced.
    func warnOfRegressedPeers() {
        for progress in core.peers where progress.state == .regressed && peers.isNewlyRegressed(progress.peer) {
            let id = core.configuration.member(progress.peer)?.id ?? 0
            logger.error(
                "peer lost what it had acknowledged: its directory was restored from an old copy; replace it",
                metadata: ["peer": "\(id)"])
        }
    }

    /// Entries for a peer that lags behind the window are read from the disk, on the reader's thread.
    func read(_ request: EntriesRequest) {
        let this = NIOLoopBound(self, eventLoop: loop)
        threads.reader.read(request) { entries in this.value.entriesRead(request.peer, entries) }
    }

    func entriesRead(_ peer: PeerID, _ read: ReadEntries) {
        guard !isStopped else { return }
        // An entry that is in the log by all that is known, and can't be read: it may have been acknowledged, so this member
        // may not vote or lead as if it had it. (One that was compacted meanwhile is no loss.)
        if let failure = read.failure {
            guard case .corruptEntry(let index) = failure else { return server.fatal("\(failure)") }
            if index > core.log.compactedIndex, index <= core.durableIndex, core.role == .leader {
                entryIsDamaged(index)
            }
        }
        drive { $0.entriesRead(for: peer, read.entries, read.records, now: Clock.now) }
        scheduleTurn()
    }
}
