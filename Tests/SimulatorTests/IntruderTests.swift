import Raft
import Testing

@testable import Simulator

/// Somebody speaks in the members' names. `make intruders` runs 10,000 seeds of each kind.
@Suite("Intruders")
struct IntruderTests {
    private func run(_ kind: Intruder.Kind, _ seeds: ClosedRange<UInt64>) -> Intrusions {
        var total = Intrusions()
        for seed in seeds {
            var options = Simulation.Options(seed: seed)
            (options.intruder, options.steps) = (kind, 4000)
            options.members = seed % 2 == 0 ? 5 : 3
            let report = Simulation(options).run()
            total.add(report.intrusions)
            let violation = report.violation
            #expect(
                violation == nil,
                "banyan-sim --seed \(seed) --steps 4000 --nodes \(options.members) --intruder \(kind.rawValue): \(violation ?? ("", ""))"
            )
        }
        return total
    }

    @Test("what no sound cluster could have said has no effect")
    func insane() {
        let total = run(.insane, 1...100)
        #expect(total.through.values.reduce(0, +) > 0)
        let offences: [Offence.Kind] = [
            .leap, .secondLeader, .overwritesCommitted, .answersUnsent, .unrelatedConfiguration,
        ]
        for offence in offences { #expect(total.refused[offence.rawValue] ?? 0 > 0, "\(offence)") }
    }

    @Test("after real messages with other numbers, at other times and in other names, the cluster serves again")
    func mutating() {
        let total = run(.mutating, 1...100)
        #expect(total.refused.values.reduce(0, +) > 0)
        #expect(total.through.values.reduce(0, +) > 0)
    }
}
