/// Makes a failing run short enough to be read: without the kinds of faults that it does not need, and with fewer steps.
package enum Shrinking {
    /// A run without some kind of fault takes another course; so many others are tried that differ in nothing but chance.
    private static let relatedSeeds: UInt64 = 40

    /// - Parameter options: of a run that breaks an invariant.
    package static func shrink(_ options: Simulation.Options) -> Simulation.Options {
        var best = options
        best.isTraced = false
        for fault in Fault.allCases {
            var simpler = best
            simpler.without.insert(fault)
            best = failing(simpler) ?? best
        }
        while best.steps > 50 {
            var shorter = best
            shorter.steps = min(Simulation(best).run().steps, best.steps / 4 * 3)
            guard let failing = failing(shorter) else { break }
            best = failing
        }
        best.isTraced = options.isTraced
        return best
    }

    private static func failing(_ options: Simulation.Options) -> Simulation.Options? {
        var tried = options
        for offset in 0...relatedSeeds {
            tried.seed = options.seed &+ offset &* 1_000_003
            if Simulation(tried).run().violation != nil { return tried }
        }
        return nil
    }
}
