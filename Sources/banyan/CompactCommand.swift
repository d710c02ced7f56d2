import ArgumentParser
import BanyanClient
import Console

struct CompactCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compact",
        abstract: "Have members write their states anew, without unused pages, while they serve.",
        discussion: """
            What was deleted leaves unused pages in a member's file, which later writes fill: see "unused" of 'banyan status'. \
            This gives them back to the disk. Members go one at a time, the leader last, and nobody has to stop. There must be \
            room for the new file beside the old one.
            """)

    private struct Report: Encodable { let members: [Row] }

    private struct Row: Encodable {
        let id: UInt64
        let address: String
        let bytesBefore: UInt64
        let bytesAfter: UInt64
        let seconds: Double

        enum CodingKeys: String, CodingKey {
            case id, address, seconds
            case bytesBefore = "bytes_before"
            case bytesAfter = "bytes_after"
        }
    }

    @OptionGroup var cluster: ClusterOptions
    @Argument(help: "The members.") var ids: [UInt64] = []
    @Flag(help: "All members.") var all = false

    func validate() throws {
        if ids.isEmpty != all { throw ValidationError("name the members, or say --all") }
    }

    func run() async throws {
        var rows: [Row] = []
        var failure: CommandFailure?
        for id in try await order() {
            let report: CompactionReport
            do {
                report = try await cluster.withClient("member \(id)") { try await $0.compact(id) }
                if !report.failure.isEmpty {
                    throw CommandFailure("member \(id): its old state is still in use: \(report.failure)")
                }
            } catch let error as CommandFailure where all {
                // One that is down is no reason to leave out the others.
                Console.complain("banyan", error.message)
                failure = CommandFailure("not all members were compacted", exitCode: error.exitCode)
                continue
            }
            let took = Double(Int(report.seconds * 10)) / 10
            if !cluster.json {
                let (before, after) = (
                    ByteSize(bytes: report.bytesBefore).rounded, ByteSize(bytes: report.bytesAfter).rounded
                )
                try Console.print("member \(id): \(before) before, \(after) now, in \(took) s")
            }
            rows.append(
                Row(
                    id: id, address: report.address, bytesBefore: report.bytesBefore, bytesAfter: report.bytesAfter,
                    seconds: report.seconds))
        }
        if cluster.json { try cluster.show(Report(members: rows), "") }
        if let failure { throw failure }
    }

    /// The leader last.
    private func order() async throws -> [UInt64] {
        let members = try await cluster.withClient("compact") { try await $0.status() }
        let leader = members.first { $0.role == "leader" }?.id
        let chosen = all ? members.map(\.id) : ids
        return chosen.filter { $0 != leader } + chosen.filter { $0 == leader }
    }
}
