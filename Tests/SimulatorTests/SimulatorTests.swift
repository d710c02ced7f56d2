import Raft
import Testing

@testable import Simulator

@Suite("The simulator")
struct SimulatorTests {
    @Test("300 seeds break no invariant", arguments: [(1, 3), (101, 3), (201, 5)])
    func noViolation(first: UInt64, members: Int) throws {
        var begun: Set<Fault> = []
        for seed in first..<first + 100 {
            var options = Simulation.Options(seed: seed)
            (options.members, options.steps) = (members, 4000)
            let report = Simulation(options).run()
            let violation = report.violation
            #expect(
                violation == nil, "banyan-sim --seed \(seed) --steps 4000 --nodes \(members): \(violation ?? ("", ""))")
            begun.formUnion(report.faults.keys)
        }
        // With three voters leaders do not alternate: a majority hears both.
        #expect(begun.union([.alternatingLeaders]) == Set(Fault.allCases))
    }

    /// With how many members each planted fault is looked for, and within how many seeds it must be noticed: about four
    /// times what it took when this was written.
    private static func hunt(_ mutant: Mutant) -> (members: Int, seedsMax: UInt64) {
        switch mutant {
        case .oldTermCommitted, .contextReused: (5, 5000)
        case .leaseKeptAfterPause: (3, 4000)
        case .conflictingTailKept: (3, 1000)
        case .completionByIndexAndTerm: (5, 2000)
        case .changeBeforeNoOperation: (4, 200)
        case .configurationNotUndone, .appliedBeforeSync: (3, 400)
        default: (3, 40)
        }
    }

    @Test("each planted fault is noticed", arguments: Mutant.allCases)
    func mutants(mutant: Mutant) throws {
        let (members, seedsMax) = Self.hunt(mutant)
        for seed in 1...seedsMax {
            var options = Simulation.Options(seed: seed)
            (options.mutant, options.members) = (mutant, members)
            if Simulation(options).run().violation != nil { return }
        }
        Issue.record("\(mutant.rawValue) was not noticed in \(seedsMax) seeds")
    }

    @Test("a failing run shrinks to a shorter one with fewer faults, which fails alike each time")
    func shrinking() throws {
        var options = Simulation.Options(seed: 3)
        options.mutant = .unconfirmedRead
        let seed = try #require(
            (1...100 as ClosedRange<UInt64>).first { seed in
                options.seed = seed
                return Simulation(options).run().violation != nil
            })
        options.seed = seed
        let shrunk = Shrinking.shrink(options)
        #expect(shrunk.without.count > options.without.count)
        #expect(shrunk.steps < options.steps)
        let (first, second) = (Simulation(shrunk).run(), Simulation(shrunk).run())
        #expect(first.violation != nil)
        #expect(first.violation?.detail == second.violation?.detail)
    }

    @Test("a seed gives the same run each time, to the last line of its trace")
    func determinism() {
        var options = Simulation.Options(seed: 7)
        options.isTraced = true
        let (first, second) = (Simulation(options).run(), Simulation(options).run())
        #expect(first.trace.count > 300)
        #expect(first.trace == second.trace)
    }
}
