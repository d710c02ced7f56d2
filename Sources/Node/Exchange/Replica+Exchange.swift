import CrashPoints
import Driver
import FileTree
import Logging
import NIOCore
import Raft
import WireProtocol

/// Another state takes the place of the member's: what `StateExchange` decides is done here.
///
/// Writing the state anew gives its file's empty pages back to the disk. A copy is made of the last commit, and catches up with
/// the log; the log then names the copy as the member's state, and the state thread goes on with it. Until then the old
/// one counts, and a member that ends in between starts with either: the log keeps what each lacks.
extension Replica {
    /// - Parameter waiter: gets a `StateRewrite` when it is done.
    func rewriteState(for waiter: Waiter) {
        let usage = disk.space.usage
        guard lastReport.durableIndex > 0, isStateSettled, !exchange.isRewriting, !exchange.isReplacing else {
            return refuse(waiter, .busy)
        }
        // Beside the old one, without its empty pages.
        let needed = usage.stateBytes - usage.unusedBytes
        // Now, and not as of the last commit: room may have come since, or gone.
        guard lastReport.environment.freeDiskBytes >= needed + disk.space.reserve else {
            return refuse(waiter, .diskFull)
        }
        let number = exchange.beginCopy(
            for: waiter, bytes: usage.stateBytes, durable: lastReport.durableIndex, now: Clock.now)
        guard let number else { return refuse(waiter, .busy) }
        logger.info("writing the state anew", metadata: ["mib": "\(needed >> 20)"])
        let this = NIOLoopBound(self, eventLoop: loop)
        threads.rewriter.copy(lastReport.environment, to: number, rate: options.scrubRate) {
            this.value.copied(number, $0)
        }
    }

    private func copied(_ number: UInt64, _ result: Result<Applied, StateError>) {
        guard !isStopped else { return }
        perform(
            exchange.copied(number, result, compacted: core.log.compactedIndex, applied: core.applied))
    }

    /// Another member's state is there.
    func offer(_ replacement: StateExchange.Replacement) {
        let isWanted = !isStopped && health.damage != nil
        perform(exchange.offer(replacement, isWanted: isWanted, compacted: core.log.compactedIndex))
        continueReplacing()
    }

    /// Lets the log name a replacement once the log reaches it.
    func continueReplacing() {
        perform(exchange.proceed(settled: min(core.commit, core.durableIndex), term: { core.log.term(at: $0) }))
    }

    /// Lets go of states that another took the place of.
    func settleExchange() {
        perform(
            exchange.settle(
                isSettled: isStateSettled, durable: lastReport.durableIndex, completedWrite: driver.completedWrite))
    }

    func perform(_ actions: [StateExchange.Action]) {
        for action in actions {
            let this = NIOLoopBound(self, eventLoop: loop)
            let loop = loop
            switch action {
            case .catchUp(let number):
                threads.rewriter.catchUp(number, through: core.applied) { this.value.copied(number, $0) }
            case .name(let number):
                threads.logWriter.switchState(to: number) { loop.execute { this.value.named(number) } }
            case .adopt(let number):
                threads.state.send(.adopt(path: DataDirectory.statePath(in: directory, number)))
            case .replace(let new): use(new)
            case .remove(let number): threads.reader.removeState(number)
            case .endCopy(let copy, let failure): tell(copy, failure)
            case .decline(let new, let reason): new.settled(reason)
            case .scrub: scrub(rate: nil) { _ in }
            }
        }
    }

    private func named(_ number: UInt64) {
        guard !isStopped else { return }
        performActions()
        perform(exchange.named(number, durable: lastReport.durableIndex))
    }

    /// The replacement is the member's state, and the log is executed again from there on.
    private func use(_ new: StateExchange.Replacement) {
        // It may lack what these must not miss, until then.
        sendReads()
        step(.stateReplaced(new.metadata.index))
        threads.state.send(.replace(path: DataDirectory.statePath(in: directory, new.number)))
        dropSpools()
        stateIsSound()
        new.settled(nil)
        scheduleTurn()
    }

    private func tell(_ copy: StateExchange.Copy, _ failure: String?) {
        let after = failure == nil ? UInt64(lastReport.environment.usedBytes) : copy.bytesBefore
        let result = StateRewrite(
            bytesBefore: copy.bytesBefore, bytesAfter: after,
            milliseconds: (Clock.now - copy.began) / 1_000_000, failure: failure ?? "")
        if let failure {
            logger.warning("the state was not written anew", metadata: ["reason": "\(failure)"])
        } else {
            CrashPoint.rewriteAdopted.reach()
            logger.info(
                "the state was written anew",
                metadata: [
                    "mib_before": "\(result.bytesBefore >> 20)", "mib_after": "\(result.bytesAfter >> 20)",
                    "seconds": "\(result.milliseconds / 1000)",
                ])
        }
        answer(copy.waiter) { body in
            body.writeInteger(UInt16(0))
            result.write(to: &body)
        }
        scheduleTurn()
    }
}
