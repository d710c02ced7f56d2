import BanyanClient
import Driver
import FileTree
import Logging
import NIOCore
import Raft
import WireProtocol

/// Looking for damage. What follows from it: see `Replica+Repair`.
extension Replica {
    /// Begins the next round of the background scrub when it is due.
    func scrubIfDue() {
        guard options.scrubInterval > 0, !isScrubbing, core.now - scrubbedAt >= options.scrubInterval else { return }
        scrub(rate: options.scrubRate) { _ in }
    }

    func verify(for waiter: Waiter) {
        verifyWaiters.append(waiter)
        verifyNext()
    }

    /// One reading for all that asked before it began, if one of them is still there.
    private func verifyNext() {
        guard !isVerifying, !verifyWaiters.isEmpty else { return }
        let waiters = verifyWaiters
        verifyWaiters = []
        isVerifying = true
        scrub(rate: nil) { [self] found in
            for waiter in waiters {
                answer(waiter) { body in
                    body.writeInteger(UInt16(0))
                    found.write(to: &body)
                }
            }
            isVerifying = false
            verifyNext()
            scheduleTurn()
        }
    }

    func scrub(rate: Int?, then told: @escaping (Verification) -> Void) {
        isScrubbing = true
        let began = core.now
        let this = NIOLoopBound((self, told), eventLoop: loop)
        // What is not committed may be replaced meanwhile.
        let (first, last) = (core.log.compactedIndex + 1, min(core.commit, core.durableIndex))
        let environment = lastReport.durableIndex > 0 ? lastReport.environment : nil
        scrubber.scrub(environment, entries: first <= last ? first...last : nil, rate: rate) { found, error in
            let (replica, told) = this.value
            guard !replica.isStopped else { return }
            // What was read may be a state that another has taken the place of meanwhile.
            let isCurrent = environment.map { replica.isCurrent($0) } ?? false
            if isCurrent, error == nil { replica.secondLookFoundNothing(since: began) }
            let checked = replica.checked(found)
            told(checked)
            replica.repairSoon(checked, isCurrent ? error : nil)
        }
    }

    /// Who asked gets the answer first.
    private func repairSoon(_ found: Verification, _ error: StateError?) {
        guard !found.damage.isEmpty else { return }
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: .milliseconds(50)) {
            if let error { this.value.stateIsDamaged(StateDamage(error)) }
            if found.damagedEntry > 0 { this.value.entryIsDamaged(found.damagedEntry) }
        }
    }

    private func checked(_ found: Verification) -> Verification {
        isScrubbing = false
        scrubbedAt = core.now
        var found = found
        // An entry that was compacted meanwhile is no loss.
        if found.damagedEntry > 0, found.damagedEntry <= core.log.compactedIndex {
            found.damage = found.damage.split(separator: "; ").filter { !$0.hasPrefix("log entry") }.joined(
                separator: "; ")
            found.damagedEntry = 0
        }
        // What a scrub can't see: a state that took another course, or that can't be opened.
        if found.damage.isEmpty, let damage { found.damage = "the state: \(damage.reason)" }
        if found.damage.isEmpty {
            logger.info(
                "scrubbed",
                metadata: [
                    "rows": "\(found.rows)", "mib": "\(found.bytes >> 20)",
                    "entries": "\(found.lastEntry - min(found.lastEntry, found.firstEntry))",
                    "seconds": "\(found.milliseconds / 1000)",
                ])
        }
        return found
    }

    // MARK: digests

    /// Remembers the state's digest at indexes that all members remember, and has them compared.
    func remember(_ digests: [(index: Index, digest: UInt128)]) {
        for digest in digests { ownDigests.append(digest) }
        while ownDigests.count > Self.digestsMax { ownDigests.removeFirst() }
        for digest in digests { compare(digest.index) }
    }

    private static let digestsMax = 16

    /// What a follower says that its state was.
    func heard(_ digest: (index: Index, digest: UInt128), from peer: PeerID) {
        // Nobody can have executed what the leader's log does not hold, or remembers another index.
        guard digest.index <= core.log.lastIndex, digest.index % StateThread.indexesBetweenDigests == 0 else {
            return report(Offence(peer: peer, term: core.term, kind: .unaskedDigest))
        }
        // A peer may have learnt from the last leader that more is committed than this one knows yet.
        guard digest.index <= core.commit else { return }
        guard peerDigests[peer]?.index ?? 0 < digest.index else { return }
        peerDigests[peer] = digest
        compare(digest.index)
    }

    /// A leader that has heard what a majority's state was at this index knows whose is wrong.
    private func compare(_ index: Index) {
        guard core.role == .leader, let own = ownDigests.first(where: { $0.index == index }) else { return }
        let voters = core.configuration.members.filter { !$0.isLearner }.map(\.peer)
        let heard = voters.compactMap {
            $0 == core.id ? own.digest : peerDigests[$0].flatMap { $0.index == index ? $0.digest : nil }
        }
        guard let agreed = heard.first(where: { digest in heard.count { $0 == digest } > voters.count / 2 }) else {
            // All have been heard, and no majority agrees: nobody can tell who is right.
            if heard.count == voters.count, heard.count > 1 { askForDigests() }
            return
        }
        agreedDigest = (index, agreed)
        if isAlarmed {
            logger.notice("a majority agrees on the state again: puts are taken", metadata: ["index": "\(index)"])
        }
        isAlarmed = false
        if own.digest != agreed { judge((index, agreed)) }
    }

    private func alarm(_ index: Index) {
        guard !isAlarmed else { return }
        isAlarmed = true
        logger.critical(
            "the members' states differ, and no majority agrees: puts are refused; save a snapshot of each, restore one",
            metadata: ["index": "\(index)"])
    }

    /// Compares what a majority had at an index, as a leader says, with what this member had there.
    func judge(_ agreed: (index: Index, digest: UInt128)) {
        guard let own = ownDigests.first(where: { $0.index == agreed.index }), own.digest != agreed.digest else {
            return
        }
        askForDigests()
    }

    private static let askingPause: Nanoseconds = 1_000_000_000

    /// Digests come in over connections that anybody may have opened. Before anything follows from one, the others are asked
    /// over connections of this member's own.
    private func askForDigests() {
        guard !isStopped, !isAskingForDigests, core.now >= askedForDigestsAt + Self.askingPause else { return }
        (isAskingForDigests, askedForDigestsAt) = (true, core.now)
        let nodes = others.map(options.moved.address)
        let this = NIOLoopBound(self, eventLoop: loop)
        let loop = loop
        Task {
            let client = BanyanClient(nodes: nodes, timeout: .seconds(5))
            let members = (try? await client.status()) ?? []
            await client.close()
            loop.execute { this.value.digestsTold(members) }
        }
    }

    private func digestsTold(_ members: [MemberReport]) {
        isAskingForDigests = false
        guard !isStopped else { return }
        let voters = core.configuration.members.filter { !$0.isLearner && $0.peer != core.id }.map(\.id)
        let told = members.filter { voters.contains($0.id) && $0.isRunning }.map {
            (index: $0.statistics["digest_index"] ?? 0, digest: $0.statistics["digest_low"] ?? 0)
        }
        let verdict = DigestVerdict(
            of: ownDigests.map { ($0.index, UInt64(truncatingIfNeeded: $0.digest)) }, told,
            isVoter: core.configuration.isVoter(core.id), voters: voters.count)
        switch verdict {
        case .sound, .unknown: break
        case .wrong(let index):
            stateIsDamaged(
                StateDamage(
                    kind: .wrong, reason: "the state has another digest than the majority's: at index \(index)"))
        case .disagreement(let index):
            if core.role == .leader { alarm(index) }
        }
    }
}
