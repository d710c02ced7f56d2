import Raft

/// A run in which nothing is left to chance but the small delays: for what must happen in one situation, or must not.
///
/// The clients go on as in any run. At the end all is calm, and the cluster must agree.
package struct Scenario: Sendable {
    package enum Whose: Sendable {
        /// Of whoever leads at that moment, and of so many others.
        case leader(others: Int)
        /// Of so many that do not lead.
        case followers(Int)
        case all
    }

    package enum Step: Sendable {
        case stallDisks(Whose, Nanoseconds)
        /// Processes end, and start again after that time.
        case crash(Whose, Nanoseconds)
        /// What goes to a member is not delivered for that time, nor what it says.
        case isolate(Whose, Nanoseconds)
    }

    package var length: Nanoseconds
    package var delay: ClosedRange<Nanoseconds> = 100_000...2_000_000
    package var diskDelay: ClosedRange<Nanoseconds> = 50_000...2_000_000
    /// Bytes of entries a second from one member to another.
    package var bandwidth: UInt64? = 1 << 40
    package var limits = Limits()
    package var steps: [(at: Nanoseconds, step: Step)] = []
    /// How long a client thinks between two operations, at most.
    package var thinkingTime: Nanoseconds = 100_000_000

    package init(length: Nanoseconds) { self.length = length }
}

extension Simulation {
    func take(_ step: Scenario.Step) throws {
        switch step {
        case .stallDisks(let whose, let length): for member in positions(of: whose) { stallDisk(member, for: length) }
        case .crash(let whose, let length): for member in positions(of: whose) { crash(member, for: length) }
        case .isolate(let whose, let length): for member in positions(of: whose) { isolate(member, for: length) }
        }
    }

    private func positions(of whose: Scenario.Whose) -> [Int] {
        let others = members.indices.filter { $0 != leader }
        return switch whose {
        case .leader(let count): [leader].compactMap { $0 } + others.prefix(count)
        case .followers(let count): Array(others.prefix(count))
        case .all: Array(members.indices)
        }
    }
}
