import Raft
import Testing

@testable import Node

@Suite("Draining")
struct DrainingTests {
    private let start: Nanoseconds = 5_000_000_000
    private let leader = Draining.Standing(
        term: 7, isLeader: true, otherVoters: 2, isHandingOver: false, hasWork: false, hasConnections: true)

    @Test("a leader hands over, then answers what it took up, then refuses for a moment, and ends")
    func order() {
        var draining = Draining(term: 7, now: start)
        var member = leader
        member.hasWork = true
        #expect(draining.next(member, now: start) == .handOver)
        member.isHandingOver = true
        #expect(draining.next(member, now: start + 1) == .wait)
        (member.isLeader, member.isHandingOver) = (false, false)
        #expect(draining.next(member, now: start + 2) == .wait)
        member.hasWork = false
        #expect(draining.next(member, now: start + 3) == .wait)
        #expect(draining.next(member, now: start + 3 + Draining.farewell - 1) == .wait)
        #expect(draining.next(member, now: start + 3 + Draining.farewell) == .end)
    }

    @Test("nobody is waited for beyond a second")
    func deadline() {
        var draining = Draining(term: 7, now: start)
        var member = leader
        member.isHandingOver = true
        #expect(draining.next(member, now: start + Draining.timeMax - 1) == .wait)
        #expect(draining.next(member, now: start + Draining.timeMax) == .end)
        // The farewell is a part of that second.
        member.isLeader = false
        var late = Draining(term: 7, now: start)
        #expect(late.next(member, now: start + Draining.timeMax - 5) == .wait)
        #expect(late.next(member, now: start + Draining.timeMax) == .end)
    }

    @Test("a lone member, and one to whom nobody is connected, end at once")
    func alone() {
        var member = leader
        (member.otherVoters, member.hasConnections) = (0, false)
        var draining = Draining(term: 7, now: start)
        #expect(draining.next(member, now: start) == .end)
    }

    @Test("where all are told to end, the lead goes round once")
    func allAtOnce() {
        // Each is handed the lead in turn, and hands it on.
        var members = (0..<3).map { _ in Draining(term: 7, now: start) }
        var member = leader
        var handedOver = 0
        for round in 0..<10 {
            guard members[round % 3].next(member, now: start + 1) == .handOver else { break }
            handedOver += 1
            member.term += 1
        }
        #expect(handedOver == 3)
    }
}
