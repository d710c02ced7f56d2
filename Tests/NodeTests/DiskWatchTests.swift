import Testing

@testable import Node

@Suite("A disk that stands still")
struct DiskWatchTests {
    @Test("it is told once when a write is late, once when the disk works again, and at each hand-over")
    func told() {
        var watch = DiskWatch()
        let second: UInt64 = 1_000_000_000
        #expect(watch.look(oldestWriteBegan: nil, gaveWayAt: 0, now: second).isEmpty)
        #expect(watch.look(oldestWriteBegan: second, gaveWayAt: 0, now: 2 * second - 1).isEmpty)
        #expect(watch.look(oldestWriteBegan: second, gaveWayAt: 0, now: 2 * second) == [.standsStill])
        #expect(watch.look(oldestWriteBegan: second, gaveWayAt: 0, now: 3 * second).isEmpty)
        #expect(watch.look(oldestWriteBegan: second, gaveWayAt: 3, now: 3 * second) == [.handedOver])
        #expect(
            watch.look(oldestWriteBegan: nil, gaveWayAt: 3, now: 21 * second) == [.worksAgain(after: 20 * second)])
        // The next write is late, too.
        #expect(
            watch.look(oldestWriteBegan: 30 * second, gaveWayAt: 33, now: 33 * second) == [.standsStill, .handedOver])
        #expect(
            watch.look(oldestWriteBegan: 34 * second, gaveWayAt: 33, now: 35 * second)
                == [.worksAgain(after: 5 * second), .standsStill])
    }
}
