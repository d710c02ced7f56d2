import FileTree
import Glibc
import Raft
import Snapshots
import WireProtocol

/// What a member says of itself.
extension Replica {
    var status: MemberStatus {
        let role: MemberStatus.Role =
            switch core.role {
            case .follower: .follower
            case .preCandidate, .candidate: .candidate
            case .leader: .leader
            case .learner: .learner
            }
        var status = MemberStatus(
            id: identity.memberID, term: core.term, commit: core.commit, applied: lastReport.applied.index,
            digest: lastReport.applied.digest.value, role: role, members: core.configuration.text,
            leader: leaderAddress)
        status.statistics = statistics
        status.workUnderWay = workUnderWay
        return status
    }

    private var statistics: [MemberStatus.Statistic] {
        let applied = lastReport.applied
        var statistics: [MemberStatus.Statistic] = [
            .init("files", applied.files), .init("content_bytes", applied.bytes),
            .init("durable_index", lastReport.durableIndex), .init("log_first_index", core.log.firstIndex),
            .init("log_last_index", core.log.lastIndex), .init("log_bytes", disk.space.usage.logBytes),
            .init("log_commits", disk.watch.commits), .init("disk_waiting_ms", diskWait / 1_000_000),
            .init("clients_bytes", UInt64(clients.memory.heldBytes)),
            .init("state_bytes", disk.space.usage.stateBytes),
            .init("state_unused_bytes", disk.space.usage.unusedBytes),
            .init("state_oldest_reader_commits", disk.space.usage.oldestReaderCommits),
            .init("state_wait_p999_us", lastReport.wait), .init("free_bytes", disk.space.usage.freeBytes),
            .init("snapshot_bytes", UInt64(shelf.spools.reduce(0) { $0 + $1.bytes })),
            .init(MemberStatus.clusterVersion, UInt64(applied.clusterVersion)),
            .init(MemberStatus.logTime, driver.logTime(now: Clock.now)),
            .init("one_time_writes", UInt64(lastReport.oneTimeWrites)), .init("connections", UInt64(clients.count)),
            .init("digest_index", digests.last?.index ?? 0),
            .init("digest_low", UInt64(truncatingIfNeeded: digests.last?.digest ?? 0)),
            .init("process_id", UInt64(getpid())),
        ]
        if removedGoodbye != nil { statistics.append(.init(MemberStatus.removed, 1)) }
        return statistics + peers.offences.counts.filter { $0.count > 0 }.map { .init($0.kind.statistic, $0.count) }
    }

    private var workUnderWay: [MemberStatus.Work] {
        var work = transfers.values.sorted { $0.peer < $1.peer }.map { transfer in
            MemberStatus.Work(
                "sending a snapshot to member \(memberID(of: transfer.peer))", bytesDone: UInt64(transfer.bytes),
                of: UInt64(transfer.spool?.wholeBytes ?? 0))
        }
        if exchange.isRewriting {
            work.append(
                .init(
                    "writing the state anew", bytesDone: threads.rewriter.bytes,
                    of: disk.space.usage.stateBytes - min(disk.space.usage.stateBytes, disk.space.usage.unusedBytes)))
        }
        if scrubbing.isUnderWay { work.append(.init("reading all that is kept", bytesDone: threads.scrubber.bytes)) }
        if let bytes = incoming.bytes { work.append(.init("taking in a snapshot", bytesDone: bytes)) }
        if health.damage != nil {
            work.append(.init("taking a sound copy from the others", bytesDone: fetch?.progress.bytes ?? 0))
        }
        for peer in peers.offences.beyondLeap(now: Clock.now) {
            guard let member = core.configuration.member(peer) else { continue }
            work.append(
                .init(
                    "member \(member.id), or somebody in its name, is in a term out of reach; if it can't come back, wipe "
                        + "it, start it with --join, and run 'banyan member replace \(member.id)'", bytesDone: 0))
        }
        if diskWait > 0 {
            let seconds = "\(diskWait / 1_000_000_000).\(diskWait / 100_000_000 % 10) s"
            work.append(.init("its disk stands still: a write has waited for \(seconds)", bytesDone: 0))
        }
        for (peer, reason) in peers.refusals.current {
            work.append(.init("no connection with member \(memberID(of: peer)): \(reason)", bytesDone: 0))
        }
        if server.isStarved() {
            work.append(.init("taking in no connections: no file descriptor is free (ulimit -n)", bytesDone: 0))
        }
        if disk.space.isLow { work.append(.init("refusing puts: the disk is nearly full", bytesDone: 0)) }
        return work
    }
}
