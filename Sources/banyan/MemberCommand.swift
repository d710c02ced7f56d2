import ArgumentParser
import BanyanClient
import Console
import WireProtocol

struct MemberCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "member", abstract: "Show or change who belongs to the running cluster.",
        discussion: """
            A cluster grows by one: on the new machine start
              banyand --data DIR --id 4 --cluster 1=H:P,2=H:P,3=H:P,4=H:P --join
            and then say
              banyan member add 4 H:P
            It receives everything first, and votes once it has caught up. A member whose directory was lost comes back with \
            an empty one, the same --id and --cluster, and --join, and
              banyan member replace 2
            Each change waits for the one before it. One whose new majority can't be reached now is refused.
            """,
        subcommands: [List.self, Add.self, Promote.self, Remove.self, Replace.self, SetAddress.self])

    private struct Row: Encodable {
        let id: UInt64
        let address: String
        let role: String
        let directory: String

        init(_ member: MemberRecord) {
            id = member.id
            address = member.address
            role = member.isLearner ? "learner" : "voter"
            directory = String(member.incarnation, radix: 16)
        }
    }

    fileprivate static func check(_ address: String) throws {
        let parsed: Address
        do throws(Address.Fault) { parsed = try Address(parsing: address) } catch {
            throw ValidationError("'\(address)' is no address of a member: \(error)")
        }
        if parsed.isWildcard {
            throw ValidationError(
                "'\(address)' is no address of a member: it stands for all of a machine's; give one that the others and "
                    + "the clients can connect to")
        }
    }

    private struct Rows: Encodable { let members: [Row] }

    private static func show(_ cluster: ClusterOptions, _ client: BanyanClient) async throws {
        let rows = try await client.members().map(Row.init)
        let table = rows.map { ["\($0.id)", $0.address, $0.role, $0.directory] }
        try cluster.show(
            Rows(members: rows), StatusCommand.aligned([["id", "address", "role", "directory"]] + table))
    }

    /// Lets the learner vote as soon as it has caught up.
    private static func promote(_ ids: [UInt64], _ cluster: ClusterOptions, _ client: BanyanClient) async throws {
        let end = ContinuousClock.now + cluster.timeout.duration
        while true {
            // What begins at the end still gets a moment.
            let left = max(.milliseconds(500), end - .now)
            do { return try await client.change(ids.map { .promote($0) }, within: left) } catch BanyanError.notCaughtUp
            {
                guard ContinuousClock.now < end else { throw BanyanError.notCaughtUp }
                try await Task.sleep(for: .milliseconds(50))
            }
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show the members, as the leader knows them.")

        @OptionGroup var cluster: ClusterOptions

        func run() async throws {
            try await cluster.withClient("members") { try await MemberCommand.show(cluster, $0) }
        }
    }

    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take in a member that was started with --join.",
            discussion: """
                It becomes a learner, and votes once it has caught up. If the --timeout ends before that, it stays a \
                learner: 'banyan member promote' goes on.
                """)

        @OptionGroup var cluster: ClusterOptions
        @Argument(help: "The id that it was started with.") var id: UInt64
        @Argument(help: "Where it listens, as host:port.") var address: String
        @Flag(help: "Leave it a learner: it answers reads, and does not vote.") var learner = false

        func validate() throws {
            guard id > 0 else { throw ValidationError("a member's id is at least 1") }
            try MemberCommand.check(address)
        }

        func run() async throws {
            try await cluster.withClient("member \(id)") { client in
                try await client.change(.add(id, address: address))
                if !learner { try await MemberCommand.promote([id], cluster, client) }
                try await MemberCommand.show(cluster, client)
            }
        }
    }

    struct Promote: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let learners vote, once they have caught up; several at once.")

        @OptionGroup var cluster: ClusterOptions
        @Argument(help: "The learners.") var ids: [UInt64]

        func run() async throws {
            try await cluster.withClient("member \(ids.map(String.init).joined(separator: ", "))") { client in
                try await MemberCommand.promote(ids, cluster, client)
                try await MemberCommand.show(cluster, client)
            }
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let members go; several at once. One that leads hands over first.",
            discussion: "Afterwards its process can be stopped, and its directory deleted.")

        @OptionGroup var cluster: ClusterOptions
        @Argument(help: "The members.") var ids: [UInt64]

        func run() async throws {
            try await cluster.withClient("member \(ids.map(String.init).joined(separator: ", "))") { client in
                try await client.change(ids.map { .remove($0) })
                try await MemberCommand.show(cluster, client)
            }
        }
    }

    struct Replace: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take a member back whose directory was lost.",
            discussion: """
                Start it first, with an empty --data, its old --id and --cluster, and --join. It becomes a learner, and votes once it \
                has caught up.
                """)

        @OptionGroup var cluster: ClusterOptions
        @Argument(help: "The member.") var id: UInt64
        @Argument(help: "Where it listens, if not where it did before.") var address: String?

        func validate() throws { if let address { try MemberCommand.check(address) } }

        func run() async throws {
            try await cluster.withClient("member \(id)") { client in
                try await client.change(.replace(id, address: address))
                try await MemberCommand.promote([id], cluster, client)
                try await MemberCommand.show(cluster, client)
            }
        }
    }

    struct SetAddress: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "set-address", abstract: "Record that a member has moved.",
            discussion: "Start it at the new address first (banyand --data DIR --listen HOST:PORT).")

        @OptionGroup var cluster: ClusterOptions
        @Argument(help: "The member.") var id: UInt64
        @Argument(help: "Where it listens now, as host:port.") var address: String

        func validate() throws { try MemberCommand.check(address) }

        func run() async throws {
            try await cluster.withClient("member \(id)") { client in
                try await client.change(.setAddress(id, address: address))
                try await MemberCommand.show(cluster, client)
            }
        }
    }
}
