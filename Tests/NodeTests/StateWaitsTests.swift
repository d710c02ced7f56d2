import Testing

@testable import Node

@Suite("Waiting for the state thread")
struct StateWaitsTests {
    @Test("the wait of 999 of 1,000 requests is told once in ten seconds in which there were any")
    func percentile() {
        let second: UInt64 = 1_000_000_000
        var waits = StateWaits(now: second)
        waits.record(9990, waited: 5_000_000)
        waits.record(10, waited: 8_000_000_000)
        waits.record(0, waited: 9_000_000_000)
        #expect(waits.percentile(now: 10 * second) == nil)
        // Two digits of it count.
        #expect(waits.percentile(now: 11 * second).map { $0 / 100 } == 50)
        #expect(waits.percentile(now: 21 * second) == nil)
        waits.record(1, waited: 7_000_000)
        #expect(waits.percentile(now: 30 * second) == nil)
        #expect(waits.percentile(now: 31 * second).map { $0 / 100 } == 70)
    }
}
