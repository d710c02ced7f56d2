import Driver
import FileTree
import NIOCore
import Raft
import WireProtocol

/// Handing leadership over: as somebody asks, and before this member ends.
extension Replica {
    func transferLeadership(_ frame: Frame, for waiter: Waiter) {
        guard let id = frame.body.getInteger(at: frame.body.readerIndex, as: UInt64.self),
            frame.body.readableBytes == 8
        else { return refuse(waiter, .malformed) }
        guard core.role == .leader else { return refuse(waiter, core.leader == nil ? .noLeader : .notLeader) }
        if id == identity.memberID { return answer(waiter) { $0.writeInteger(UInt16(0)) } }
        let wanted = core.configuration.members.first { $0.id == id }?.peer
        guard id == 0 || wanted != nil else { return answer(waiter) { $0.writeInteger(TreeError.notFound.rawValue) } }
        handOver(to: wanted) { [weak self] outcome in
            switch outcome {
            case .done: self?.answer(waiter) { $0.writeInteger(UInt16(0)) }
            case .failed: self?.refuse(waiter, .transferFailed)
            }
        }
    }

    /// Hands leadership over, to whoever is best if nobody is named; at once `done` when this member does not lead.
    func handOver(to peer: PeerID?, then settled: @escaping (TransferOutcome) -> Void) {
        guard core.role == .leader else { return settled(.done) }
        handOvers.waiters.append(settled)
        step(.transferLeadership(to: peer))
        scheduleTurn()
    }

    /// Takes no more writes, answers those that were taken, hands leadership over, and calls `settled`.
    func drain(then settled: @escaping () -> Void) {
        handOvers.draining = (Draining(term: core.term, now: core.now), settled)
        continueDraining()
        scheduleTurn()
    }

    func continueDraining() {
        guard let settled = handOvers.draining?.settled else { return }
        let standing = Draining.Standing(
            term: core.term, isLeader: core.role == .leader,
            otherVoters: core.configuration.otherVoters(than: core.id).count,
            isHandingOver: core.transferTarget != nil,
            hasWork: driver.isProposing || lastReport.applied.index < driver.handedOut,
            hasConnections: clients.count > 0)
        switch handOvers.draining?.state.next(standing, now: Clock.now) {
        case .wait, nil: break
        case .handOver: step(.transferLeadership(to: nil))
        case .end:
            handOvers.draining = nil
            settled()
        }
    }

    /// Tells those who wait how a transfer ended: the leader's own step into another role, or the end of its time.
    func settleTransfer() {
        guard !handOvers.waiters.isEmpty, core.role != .leader || core.transferTarget == nil else { return }
        let waiters = handOvers.waiters
        handOvers.waiters = []
        for settled in waiters { settled(core.role == .leader ? .failed : .done) }
        scheduleTurn()
    }
}
