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
        #expect(begun == Set(Fault.allCases))
    }

    /// Within how many seeds each planted fault must be noticed: about four times what it took when this was written.
    private static func seedsMax(_ mutant: Mutant) -> UInt64 {
        switch mutant {
        case .oldTermCommitted, .conflictingTailKept: 2000
        default: 100
        }
    }

    @Test("each planted fault is noticed", arguments: Mutant.allCases)
    func mutants(mutant: Mutant) throws {
        for seed in 1...Self.seedsMax(mutant) {
            var options = Simulation.Options(seed: seed)
            options.mutant = mutant
            if Simulation(options).run().violation != nil { return }
        }
        Issue.record("\(mutant.rawValue) was not noticed in \(Self.seedsMax(mutant)) seeds")
    }

    @Test("a seed gives the same run each time, to the last line of its trace")
    func determinism() {
        var options = Simulation.Options(seed: 7)
        options.isTraced = true
        let (first, second) = (Simulation(options).run(), Simulation(options).run())
        #expect(first.trace.count > 500)
        #expect(first.trace == second.trace)
    }
}

@Suite("The checker of histories")
struct LinearizabilityTests {
    private static func operation(
        _ kind: Operation.Kind, _ outcome: Operation.Outcome, _ invoked: UInt64, _ returned: UInt64?, client: Int = 0
    ) -> Operation {
        Operation(client: client, file: 0, kind: kind, invoked: invoked, returned: returned, outcome: outcome)
    }

    @Test("good histories have an order")
    func good() {
        let put = Self.operation(.put(1), .done, 1, 4)
        let histories: [[Operation]] = [
            [], [put, Self.operation(.get, .value(1), 5, 6)],
            // Reads beside a put may see it or not, in the order of their moments.
            [put, Self.operation(.get, .value(0), 2, 3, client: 1), Self.operation(.get, .value(1), 3, 5, client: 2)],
            // An unknown put may happen late, or never.
            [
                Self.operation(.put(1), .unknown, 1, nil), Self.operation(.get, .value(0), 2, 3, client: 1),
                Self.operation(.get, .value(1), 4, 5, client: 1),
            ],
            [Self.operation(.put(1), .unknown, 1, nil), Self.operation(.get, .value(0), 9, 10, client: 1)],
            [
                put, Self.operation(.compareAndSet(1, 2), .done, 5, 8),
                Self.operation(.compareAndSet(1, 3), .refused, 5, 8, client: 1), Self.operation(.get, .value(2), 9, 10),
            ],
            [put, Self.operation(.delete, .done, 5, 6), Self.operation(.delete, .refused, 7, 8)],
        ]
        for history in histories { #expect(Linearizability.check(history) == .linearizable, "\(history)") }
    }

    @Test("bad histories have none")
    func bad() {
        let put = Self.operation(.put(1), .done, 1, 2)
        let histories: [[Operation]] = [
            // A stale read.
            [put, Self.operation(.get, .value(0), 3, 4)],
            // A value that was never written.
            [put, Self.operation(.get, .value(9), 3, 4)],
            // A value that comes back.
            [
                put, Self.operation(.put(2), .done, 3, 4), Self.operation(.get, .value(2), 5, 6),
                Self.operation(.get, .value(1), 7, 8),
            ],
            // Two clients win the same comparison.
            [
                put, Self.operation(.compareAndSet(1, 2), .done, 3, 6),
                Self.operation(.compareAndSet(1, 3), .done, 3, 6, client: 1),
            ],
            // Seen, and then unseen.
            [
                Self.operation(.put(1), .unknown, 1, nil), Self.operation(.get, .value(1), 2, 3, client: 1),
                Self.operation(.get, .value(0), 4, 5, client: 1),
            ],
            [put, Self.operation(.delete, .refused, 3, 4)],
        ]
        for history in histories { #expect(Linearizability.check(history) == .violated, "\(history)") }
    }
}
