import ArgumentParser
import BanyanClient
import Console

struct LeaderCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "leader", abstract: "Show which member leads, or hand leadership over.",
        subcommands: [Show.self, Transfer.self])

    private struct Leader: Encodable {
        let id: UInt64
        let address: String
        let term: UInt64
    }

    /// Prints who leads; while nobody does, it asks again until `end`.
    private static func show(
        _ cluster: ClusterOptions, _ client: BanyanClient, until end: ContinuousClock.Instant
    ) async throws {
        var leader: MemberReport?
        var members: [MemberReport] = []
        while leader == nil {
            do {
                members = try await client.status(within: min(.seconds(1), max(.milliseconds(100), end - .now)))
            } catch let error as BanyanError {
                guard case .unreachable = error, ContinuousClock.now < end else { throw error }
            }
            leader = members.filter { $0.role == "leader" }.max { $0.term < $1.term }
            if leader == nil {
                guard ContinuousClock.now < end else { break }
                try await Task.sleep(for: .milliseconds(20))
            }
        }
        guard let leader else {
            throw BanyanError.noQuorum(
                members.map { member in
                    !member.isRunning
                        ? "member \(member.id) at \(member.address) can't be reached"
                        : "member \(member.id) does not lead"
                }.joined(separator: "; "))
        }
        try cluster.show(
            Leader(id: leader.id, address: leader.address, term: leader.term),
            "member \(leader.id) on \(leader.address) leads in term \(leader.term)")
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show which member leads.")

        @OptionGroup var cluster: ClusterOptions

        func run() async throws {
            let end = ContinuousClock.now + cluster.timeout.duration
            try await cluster.withClient("leader") { try await LeaderCommand.show(cluster, $0, until: end) }
        }
    }

    struct Transfer: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Hand leadership over, without the gap of an election.",
            discussion: "For maintenance of the machine that leads. No request fails: those that come meanwhile wait.")

        @OptionGroup var cluster: ClusterOptions
        @Argument(help: "The member that shall lead; without it, the one whose log is longest.") var id: UInt64?

        func run() async throws {
            let end = ContinuousClock.now + cluster.timeout.duration
            try await cluster.withClient(id.map { "member \($0)" } ?? "leader") { client in
                try await client.transferLeadership(to: id)
                try await LeaderCommand.show(cluster, client, until: end)
            }
        }
    }
}
