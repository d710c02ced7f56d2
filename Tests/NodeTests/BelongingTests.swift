import Raft
import Testing

@testable import Node

@Suite("Whether a member belongs to its cluster")
struct BelongingTests {
    @Test("its own log lets it go once, and takes it in again; a newcomer that reads the past was never let go")
    func ownLog() {
        var belonging = Belonging()
        #expect(!belonging.settled(isMember: false) && belonging.verdict(now: 0) == nil)
        #expect(belonging.settled(isMember: true) == false)
        #expect(belonging.settled(isMember: false) == true)
        #expect(!belonging.settled(isMember: false) && belonging.verdict(now: 0) == .removed(nil))
        #expect(!belonging.settled(isMember: true) && belonging.verdict(now: 0) == nil)
    }

    @Test("another's word counts when it lasts, and ends with a leader or with a greeting of whoever said it")
    func word() {
        let start: Nanoseconds = 9_000_000_000
        let later = start + Belonging.disownedMin
        var belonging = Belonging()
        #expect(belonging.disowned(by: PeerID(2), "gone", now: start) == true)
        #expect(belonging.disowned(by: PeerID(3), "gone, too", now: start + 1) == false)
        #expect(belonging.verdict(now: later - 1) == nil)
        #expect(
            belonging.verdict(now: later) == .seemsRemoved(.init(peer: PeerID(3), reason: "gone, too", since: start)))
        belonging.welcomed(by: PeerID(2))
        #expect(belonging.verdict(now: later) != nil)
        belonging.welcomed(by: PeerID(3))
        #expect(belonging.verdict(now: later) == nil)
        #expect(belonging.disowned(by: PeerID(2), "gone", now: later) == true)
        belonging.led()
        #expect(belonging.verdict(now: 2 * later) == nil)
    }
}
