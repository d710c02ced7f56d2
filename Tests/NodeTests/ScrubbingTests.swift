import Driver
import Raft
import Testing

@testable import Node

@Suite("Rounds of scrubbing")
struct ScrubbingTests {
    @Test("a round is due so long after the last, while none is under way; never, when there are to be none")
    func due() {
        var scrubbing = Scrubbing(now: 100)
        #expect(scrubbing.isDue(interval: 0, now: 1 << 60) == false)
        #expect(!scrubbing.isDue(interval: 50, now: 149) && scrubbing.isDue(interval: 50, now: 150))
        scrubbing.begins()
        #expect(!scrubbing.isDue(interval: 50, now: 500) && scrubbing.isUnderWay)
        scrubbing.ended(now: 500)
        #expect(!scrubbing.isDue(interval: 50, now: 549) && scrubbing.isDue(interval: 50, now: 550))
    }

    @Test("a round answers who asked before it began, and the next those who asked meanwhile and are there still")
    func rounds() {
        func waiter(_ number: UInt64) -> Waiter { Waiter(connection: number, requestID: 0) }
        var scrubbing = Scrubbing(now: 0)
        #expect(scrubbing.nextRound() == [])
        scrubbing.ask(waiter(1))
        scrubbing.ask(waiter(2))
        #expect(scrubbing.nextRound() == [waiter(1), waiter(2)])
        scrubbing.ask(waiter(3))
        scrubbing.ask(waiter(4))
        #expect(scrubbing.nextRound() == [])
        scrubbing.closed(3)
        scrubbing.answered()
        #expect(scrubbing.nextRound() == [waiter(4)])
        scrubbing.answered()
        #expect(scrubbing.nextRound() == [])
    }
}
