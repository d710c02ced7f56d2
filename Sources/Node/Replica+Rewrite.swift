import CrashPoints
import Driver
import FileTree
import NIOCore
import Raft
import WireProtocol

/// Writing the state anew while it is in use, so that its file holds no empty pages any more.
///
/// A copy is made of the last commit, and catches up with the log; the log then names the copy as the member's state, and
/// the state thread goes on with it. Until then the old one counts, and a member that ends in between starts with either:
/// the log keeps what each lacks.
extension Replica {
    struct Rewriting {
        let waiter: Waiter
        /// The copy's directory, and that of the state it is made from.
        let number: UInt64
        let original: UInt64
        let began = Clock.now
        let bytesBefore: UInt64
        /// What the copy has, durably, or will have at the least.
        var copied: Index
        /// What the original has when the copy takes its place: the copy's own flushes come up to it soon.
        var adoptedAt: Index?
        /// Once the log may name the copy, it can't be given up.
        var isDecided = false
        var isBeingNamed: Bool { isDecided && adoptedAt == nil }
    }

    private static let overtaken =
        "more was written meanwhile than the log may hold back; try again in a quieter time"

    /// So many entries may be left when the copy takes the state's place: requests wait while they are executed.
    private static let entriesBehindMax: Index = 256

    /// - Parameter waiter: gets a `StateRewrite` when it is done.
    func rewriteState(for waiter: Waiter) {
        guard rewriting == nil, replacement == nil, lastReport.durableIndex > 0, isStateSettled else {
            return refuse(waiter, .busy)
        }
        // Beside the old one, without its empty pages.
        let needed = usage.stateBytes - usage.unusedBytes
        // Now, and not as of the last commit: room may have come since, or gone.
        guard lastReport.environment.freeDiskBytes >= needed + space.reserve else { return refuse(waiter, .diskFull) }
        lastStateNumber += 1
        let number = lastStateNumber
        rewriting = Rewriting(
            waiter: waiter, number: number, original: stateNumber, bytesBefore: usage.stateBytes,
            copied: lastReport.durableIndex)
        logger.info("writing the state anew", metadata: ["mib": "\(needed >> 20)"])
        let this = NIOLoopBound(self, eventLoop: loop)
        rewriter.copy(lastReport.environment, to: number, rate: options.scrubRate) { this.value.rewritten(number, $0) }
    }

    /// The copy is there, or has come closer to the state that is in use.
    private func rewritten(_ number: UInt64, _ result: Result<Applied, StateError>) {
        guard !isStopped, let copied = rewriting?.copied, rewriting?.number == number else { return }
        switch result {
        case .failure(let error):
            // The log may have gone on without the copy, and lack what the copy needs next.
            guard core.log.compactedIndex <= copied else { return endRewriting(Self.overtaken) }
            endRewriting("\(error)")
            // What is wrong with the copy is wrong with what it was made from; of a full disk nothing follows.
            if !error.isFull { scrub(rate: nil as Int?) { _ in } }
        case .success(let applied):
            rewriting?.copied = applied.index
            guard core.log.compactedIndex <= applied.index else { return endRewriting(Self.overtaken) }
            guard core.applied > applied.index + Self.entriesBehindMax else { return nameCopy(number) }
            let this = NIOLoopBound(self, eventLoop: loop)
            rewriter.catchUp(number, through: core.applied) {
                this.value.rewritten(number, $0)
            }
        }
    }

    private func nameCopy(_ number: UInt64) {
        rewriting?.isDecided = true
        let this = NIOLoopBound(self, eventLoop: loop)
        let loop = loop
        logWriter.switchState(to: number) {
            loop.execute { this.value.copyIsNamed(number) }
        }
    }

    private func copyIsNamed(_ number: UInt64) {
        // A snapshot that was installed meanwhile has taken the place of both.
        guard !isStopped, rewriting?.number == number else { return }
        stateNumber = number
        rewriting?.adoptedAt = lastReport.durableIndex
        stateThread.send(.adopt(path: DataDirectory.statePath(in: directory, number)))
    }

    /// Ends the rewriting once the copy is in use, and as durable as the original was.
    func finishRewriting() {
        guard let rewriting, let adoptedAt = rewriting.adoptedAt, lastReport.durableIndex >= adoptedAt,
            isStateSettled, stateNumber == rewriting.number
        else { return }
        CrashPoint.rewriteAdopted.reach()
        reader.removeState(rewriting.original)
        endRewriting(nil)
    }

    /// A snapshot takes the state's place: the copy is of no use.
    func abandonRewriting() {
        guard let rewriting else { return }
        if rewriting.isDecided { formerStates += [rewriting.original, rewriting.number] }
        endRewriting("a snapshot has taken the state's place")
    }

    private func endRewriting(_ failure: String?) {
        guard let rewriting else { return }
        self.rewriting = nil
        let after = failure == nil ? UInt64(lastReport.environment.usedBytes) : rewriting.bytesBefore
        let result = StateRewrite(
            bytesBefore: rewriting.bytesBefore, bytesAfter: after,
            milliseconds: (Clock.now - rewriting.began) / 1_000_000, failure: failure ?? "")
        if let failure {
            if !rewriting.isDecided { reader.removeState(rewriting.number) }
            logger.warning("the state was not written anew", metadata: ["reason": "\(failure)"])
        } else {
            logger.info(
                "the state was written anew",
                metadata: [
                    "mib_before": "\(result.bytesBefore >> 20)", "mib_after": "\(result.bytesAfter >> 20)",
                    "seconds": "\(result.milliseconds / 1000)",
                ])
        }
        answer(rewriting.waiter) { body in
            body.writeInteger(UInt16(0))
            result.write(to: &body)
        }
        scheduleTurn()
    }
}
