import NIOCore
import Raft

/// What the core wants done becomes actions: with the records of its entries, promises when their writes are done, reads when
/// they miss nothing.
extension Driver {
    /// What is to be done for all that came since the last time, in this order.
    package mutating func takeActions() -> [Action] {
        collect()
        defer { actions = [] }
        return actions
    }

    mutating func collect() {
        let output = core.takeOutput()
        if let write = output.write { save(write) }
        for message in output.messages { actions.append(.send(message, records: records(of: message))) }
        promises.hold(output.messagesAfterWrite)
        releasePromises()
        if let range = output.apply { handOut(range) }
        for state in output.readStates {
            switch reads.resolve(state, handedOut: handedOut) {
            case .serve(let reads): actions.append(.serve(reads))
            case .refuse(let reads, let refusal): actions.append(.refuse(reads, refusal))
            case .waits: break
            }
        }
        for request in output.entriesToRead { actions.append(.readEntries(request)) }
        for peer in output.snapshotsToSend { actions.append(.sendSnapshot(peer)) }
        for offence in output.offences { actions.append(.report(offence)) }
        window.forget(before: core.log.windowFirst)
        checkInvariants()
    }

    private mutating func save(_ write: Write) {
        if let snapshot = write.snapshot {
            window.begin(behind: snapshot.index, keepsTail: write.keepsTail)
            handedOut = max(handedOut, snapshot.index)
        }
        early?.handedOut(write, core.log)
        actions.append(.save(write, records: window.records(in: write.entries)))
        if write.snapshot != nil { serveReads() }
    }

    private func records(of message: Message) -> [ByteBuffer] {
        guard case .append(let append) = message.body, let first = append.entries.first?.index else { return [] }
        return window.lookUp(first..<first + UInt64(append.entries.count))
    }

    mutating func releasePromises() {
        for message in promises.release() { actions.append(.promise(message)) }
        guard let early else { return }
        for message in promises.release(where: { early.releases($0, core.log) }) { actions.append(.promise(message)) }
    }

    private mutating func handOut(_ range: ClosedRange<Index>) {
        handedOut = range.upperBound
        let inMemory = max(range.lowerBound, window.first)
        if range.lowerBound < inMemory {
            actions.append(.replay(range.lowerBound...min(inMemory - 1, range.upperBound)))
        }
        if inMemory <= range.upperBound {
            let entries = inMemory..<range.upperBound + 1
            actions.append(
                .execute(
                    first: inMemory, records: window.records(in: entries), waiters: proposals.takeWaiters(entries)))
        }
        serveReads()
    }

    private mutating func serveReads() {
        let ready = reads.handedOut(handedOut)
        if !ready.isEmpty { actions.append(.serve(ready)) }
    }

    // MARK: invariants

    /// What it holds more of than it may, in words: bounds far above what a sound cluster makes it hold.
    package var exceededBound: String? {
        if let exceeded = core.exceededBound { return exceeded }
        let held = [("promises", promises.count), ("reads", reads.count), ("writes", proposals.count)]
        return held.first { $0.1 > 10_000 }.map { "\($0.1) \($0.0)" }
    }

    /// Stands after each output was taken, in release builds as well.
    private func checkInvariants() {
        window.checkEnd(of: core.log)
        precondition(
            handedOut <= core.commit && core.applied <= handedOut,
            "executed to \(core.applied), handed out to \(handedOut), committed to \(core.commit): what was never decided is executed"
        )
    }
}
