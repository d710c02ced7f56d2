import Raft
import Testing

@testable import Driver

@Suite("Reclaiming")
struct ReclaimStepsTests {
    @Test("a step is followed by a rest as long as it took, and time without work is none")
    func pace() {
        var steps = ReclaimSteps()
        var due: [Nanoseconds] = []
        func ask(_ hasOrphans: Bool, applied: Index, at now: Nanoseconds) {
            if steps.isDue(hasOrphans, applied: applied, now: now) { due.append(now) }
        }
        ask(false, applied: 5, at: 90)
        ask(true, applied: 5, at: 100)
        // Proposed, at index 6, and not executed.
        ask(true, applied: 5, at: 110)
        steps.index = 6
        ask(true, applied: 5, at: 120)
        // It took 30.
        for now in [130, 159, 160] { ask(true, applied: 6, at: Nanoseconds(now)) }
        steps.index = 7
        // The next one took 10; what comes a day later does not wait for a day.
        ask(false, applied: 7, at: 170)
        ask(true, applied: 7, at: 86_400_000)
        #expect(due == [100, 160, 86_400_000])
    }
}
