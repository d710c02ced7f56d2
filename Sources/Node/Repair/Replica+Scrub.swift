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
        guard scrubbing.isDue(interval: options.scrubInterval, now: core.now) else { return }
        scrub(rate: options.scrubRate) { _ in }
    }

    func verify(for waiter: Waiter) {
        scrubbing.ask(waiter)
        verifyNext()
    }

    /// One reading for all that asked before it began.
    private func verifyNext() {
        let waiters = scrubbing.nextRound()
        guard !waiters.isEmpty else { return }
        scrub(rate: nil) { [self] found in
            for waiter in waiters {
                answer(waiter) { body in
                    body.writeInteger(UInt16(0))
                    found.write(to: &body)
                }
            }
            scrubbing.answered()
            verifyNext()
            scheduleTurn()
        }
    }

    func scrub(rate: Int?, then told: @escaping (Verification) -> Void) {
        scrubbing.begins()
        let began = core.now
        let this = NIOLoopBound((self, told), eventLoop: loop)
        // What is not committed may be replaced meanwhile.
        let (first, last) = (core.log.compactedIndex + 1, min(core.commit, core.durableIndex))
        let environment = lastReport.durableIndex > 0 ? lastReport.environment : nil
        threads.scrubber.scrub(environment, entries: first <= last ? first...last : nil, rate: rate) { found, error in
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
        scrubbing.ended(now: core.now)
        var found = found
        // An entry that was compacted meanwhile is no loss.
        if found.damagedEntry > 0, found.damagedEntry <= core.log.compactedIndex {
            found.damage = found.damage.split(separator: "; ").filter { !$0.hasPrefix("log entry") }.joined(
                separator: "; ")
            found.damagedEntry = 0
        }
        // What a scrub can't see: a state that took another course, or that can't be opened.
        if found.damage.isEmpty, let damage = health.damage { found.damage = "the state: \(damage.reason)" }
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
    func remember(_ digests: [DigestVote.Digest]) {
        tellAgreement(self.digests.remember(digests, electorate))
    }

    /// What a follower says that its state was.
    func heard(_ digest: DigestVote.Digest, from peer: PeerID) {
        // Nobody can have executed what the leader's log does not hold, or remembers another index.
        guard digest.index <= core.log.lastIndex, digest.index % StateThread.indexesBetweenDigests == 0 else {
            return report(Offence(peer: peer, term: core.term, kind: .unaskedDigest))
        }
        // A peer may have learnt from the last leader that more is committed than this one knows yet.
        guard digest.index <= core.commit else { return }
        tellAgreement(digests.heard(digest, from: peer, electorate))
    }

    /// Compares what a majority had at an index, as a leader says, with what this member had there.
    func judge(_ agreed: DigestVote.Digest) {
        digests.judge(agreed)
        askForDigests()
    }

    private var electorate: DigestVote.Electorate? {
        core.role == .leader ? DigestVote.Electorate(leader: core.id, voters: core.configuration.voters) : nil
    }

    private func tellAgreement(_ index: Index?) {
        if let index {
            logger.notice("a majority agrees on the state again: puts are taken", metadata: ["index": "\(index)"])
        }
        askForDigests()
    }

    private func askForDigests() {
        guard !isStopped, digests.askNow(now: core.now) else { return }
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
        guard !isStopped else { return }
        let voters = core.configuration.members.filter { !$0.isLearner && $0.peer != core.id }.map(\.id)
        let told = members.filter { voters.contains($0.id) && $0.isRunning }.map {
            (index: $0.statistics["digest_index"] ?? 0, digest: $0.statistics["digest_low"] ?? 0)
        }
        let outcome = digests.answered(
            told, isVoter: core.configuration.isVoter(core.id), others: voters.count, isLeader: core.role == .leader)
        switch outcome {
        case .nothing: break
        case .wrong(let index):
            stateIsDamaged(
                StateDamage(
                    kind: .wrong, reason: "the state has another digest than the majority's: at index \(index)"))
        case .alarm(let index):
            logger.critical(
                "the members' states differ, and no majority agrees: puts are refused; save a snapshot of each, restore one",
                metadata: ["index": "\(index)"])
        }
    }
}
