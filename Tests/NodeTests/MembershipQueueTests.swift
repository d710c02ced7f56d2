import Driver
import Raft
import Testing

@testable import Node

@Suite("The queue of membership changes")
struct MembershipQueueTests {
    private func waiter(_ number: UInt64) -> Waiter { Waiter(connection: number, requestID: number) }

    private func log(isJoint: Bool = false, at index: Index) -> LogView {
        let configuration = Configuration(
            clusterID: 1, members: [Member(id: 1, peer: PeerID(1), address: "a:1")],
            outgoingVoters: isJoint ? [PeerID(2)] : [])
        return LogView(
            compactedIndex: index, compactedTerm: 1, entries: [],
            configurations: [IndexedConfiguration(index: index, configuration: configuration)])
    }

    @Test("so many addresses are asked at once, and no more")
    func probes() {
        var queue = MembershipQueue()
        for _ in 0..<MembershipQueue.probesMax { #expect(queue.beginProbe() == true) }
        #expect(queue.beginProbe() == false)
        queue.endProbe()
        #expect(queue.beginProbe() && !queue.beginProbe())
    }

    @Test("a change is looked at again until it is proposed, and answered once it is committed and no longer joint")
    func course() {
        var queue = MembershipQueue()
        queue.wait(.init(changes: [.remove(PeerID(2))], waiter: waiter(1), round: 3, since: 5))
        #expect(queue.takeWaiting().map(\.waiter) == [waiter(1)] && queue.takeWaiting().isEmpty)
        queue.propose(waiter(1), at: 10)
        queue.propose(waiter(2), at: 12)
        #expect(queue.settle(log(at: 10), commit: 9) == [])
        #expect(queue.settle(log(isJoint: true, at: 10), commit: 10) == [])
        #expect(queue.settle(log(at: 10), commit: 10) == [waiter(1)])
        #expect(queue.settle(log(at: 12), commit: 11) == [])
        #expect(queue.abandon() == [waiter(2)] && queue.abandon() == [])
    }
}
