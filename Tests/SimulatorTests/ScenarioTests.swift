import Histories
import Raft
import Testing

@testable import Simulator

private let second: Nanoseconds = 1_000_000_000

private func run(
    _ scenario: Scenario, members: Int = 3, seed: UInt64 = 1, mutant: Mutant? = nil
) -> Simulation.Report {
    var options = Simulation.Options(seed: seed)
    (options.members, options.scenario, options.mutant) = (members, scenario, mutant)
    return Simulation(options).run()
}

extension Simulation.Report {
    /// Whether a write that began in that time was acknowledged in it.
    fileprivate func wrote(in time: ClosedRange<Nanoseconds>) -> Bool {
        history.contains { operation in
            operation.kind != .get && operation.outcome == .done && operation.invoked >= time.lowerBound
                && operation.returned.map { $0 <= time.upperBound } ?? false
        }
    }
}

@Suite("Disks that stand still")
struct StalledDiskTests {
    @Test(
        "while the leader's disk stands still another member leads, and writes commit within seconds",
        arguments: [3, 5])
    func leader(members: Int) {
        var scenario = Scenario(length: 30 * second)
        scenario.steps = [(3 * second, .stallDisks(.leader(others: 0), 20 * second))]
        for seed in 1...5 as ClosedRange<UInt64> {
            let report = run(scenario, members: members, seed: seed)
            #expect(report.violation == nil, "seed \(seed)")
            #expect(report.elections == 2, "seed \(seed)")
            #expect(report.wrote(in: 3 * second...8 * second), "seed \(seed)")
        }
    }

    @Test("a leader hands over beside a member that is down, too")
    func oneDown() {
        var scenario = Scenario(length: 30 * second)
        scenario.steps = [
            (2 * second, .crash(.followers(1), 25 * second)),
            (3 * second, .stallDisks(.leader(others: 0), 20 * second)),
        ]
        let report = run(scenario, members: 5)
        #expect(report.violation == nil)
        #expect(report.wrote(in: 3 * second...8 * second))
    }

    @Test(
        "with no majority of working disks beside its own a leader stays, and serves as soon as there is one",
        arguments: [
            [(3 as UInt64, Scenario.Step.stallDisks(.leader(others: 1), 10 * second))],
            [(3 as UInt64, Scenario.Step.stallDisks(.all, 10 * second))],
            [
                (2 as UInt64, Scenario.Step.crash(.followers(1), 25 * second)),
                (3 as UInt64, Scenario.Step.stallDisks(.leader(others: 0), 10 * second)),
            ],
        ])
    func none(steps: [(UInt64, Scenario.Step)]) {
        var scenario = Scenario(length: 30 * second)
        scenario.steps = steps.map { ($0 * second, $1) }
        let report = run(scenario)
        #expect(report.violation == nil)
        #expect(report.elections == 1)
        #expect(!report.wrote(in: 4 * second...13 * second))
        #expect(report.wrote(in: 13 * second...16 * second))
    }

    @Test("followers' disks that stand still, fewer than half, keep nobody waiting")
    func followers() {
        var scenario = Scenario(length: 20 * second)
        scenario.steps = [(3 * second, .stallDisks(.followers(2), 10 * second))]
        let report = run(scenario, members: 5)
        #expect(report.violation == nil)
        #expect(report.elections == 1)
        #expect(report.wrote(in: 4 * second...5 * second))
    }

    @Test("on disks that take 300 ms a sync the leader stays for five minutes")
    func slow() {
        var scenario = Scenario(length: 300 * second)
        scenario.diskDelay = 290_000_000...300_000_000
        let report = run(scenario)
        #expect(report.violation == nil)
        #expect(report.elections == 1)
        #expect(report.entriesSent > 500)
        #expect(report.entriesSentAgain == 0)
    }

    @Test("disks that stand still for 900 ms change no leader")
    func short() {
        var scenario = Scenario(length: 40 * second)
        let whose: [Scenario.Whose] = [.leader(others: 0), .leader(others: 1), .all, .followers(2)]
        scenario.steps = whose.enumerated().map { (UInt64($0 + 1) * 5 * second, .stallDisks($1, 900_000_000)) }
        let report = run(scenario)
        #expect(report.violation == nil)
        #expect(report.elections == 1)
    }
}

@Suite("Slow links")
struct SlowLinkTests {
    /// A member lacks so much that its link takes seconds for it.
    private static var behind: Scenario {
        var scenario = Scenario(length: 40 * second)
        scenario.bandwidth = 20_000
        scenario.thinkingTime = 20_000_000
        scenario.steps = [(3 * second, .isolate(.followers(1), 10 * second))]
        return scenario
    }

    @Test("a member that catches up over a slow link is sent each entry once, and becomes level")
    func behind() {
        let report = run(Self.behind)
        #expect(report.violation == nil)
        #expect(report.elections == 1)
        #expect(report.entriesSent > 1000)
        #expect(report.entriesSentAgain * 100 <= report.entriesSent)
    }

    @Test("over 200 ms of round trip nothing is sent twice")
    func far() {
        var scenario = Scenario(length: 60 * second)
        scenario.delay = 95_000_000...105_000_000
        let report = run(scenario)
        #expect(report.violation == nil)
        #expect(report.elections == 1)
        #expect(report.entriesSent > 200)
        #expect(report.entriesSentAgain == 0)
    }
}
