import ArgumentParser
import BanyanClient
import Console
import Foundation

struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show each member: role, term, indexes, the digest of its tree, its disk.",
        discussion: """
            Members with the same applied index have the same digest. "state" is the file of a member's tree; what of it is \
            "unused" holds nothing and is used for later writes ('banyan compact' gives it back to the disk); "free" is what \
            may still be written; "clients" is what it holds in memory for all of them. A "removed" member still runs, and belongs to the cluster no more: stop it. What a "starting" one waits for stands below. Work under way, such as a snapshot on its way to a member, stands below the table, and what somebody should look at: a disk that waits, a member in a term that nobody believes, \
            what was refused because no sound member sends it; --json \
            has more figures.
            """)

    private struct Status: Encodable { let members: [Row] }

    private struct Row: Encodable {
        let id: UInt64
        let address: String
        let role: String
        let term: UInt64
        let commitIndex: UInt64
        let appliedIndex: UInt64
        let digest: String
        let statistics: [String: UInt64]
        let workUnderWay: [Work]

        enum CodingKeys: String, CodingKey {
            case id, address, role, term, digest
            case commitIndex = "commit_index"
            case appliedIndex = "applied_index"
            case statistics
            case workUnderWay = "work_under_way"
        }
    }

    private struct Work: Encodable {
        let description: String
        let bytesDone: UInt64
        let bytes: UInt64?

        enum CodingKeys: String, CodingKey {
            case description, bytes
            case bytesDone = "bytes_done"
        }
    }

    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        let members = try await cluster.withClient("status") { try await $0.status() }
        let rows = members.map { member in
            Row(
                id: member.id, address: member.address, role: member.role, term: member.term,
                commitIndex: member.commitIndex, appliedIndex: member.appliedIndex, digest: member.digest,
                statistics: member.statistics,
                workUnderWay: member.workUnderWay.map {
                    Work(description: $0.description, bytesDone: $0.bytesDone, bytes: $0.bytes)
                })
        }
        let table = rows.map { (row: Row) -> [String] in
            let figures =
                ["unreachable", "starting"].contains(row.role)
                ? ["-", "-", "-", "-"]
                : ["\(row.term)", "\(row.commitIndex)", "\(row.appliedIndex)", row.digest]
            return ["\(row.id)", row.address, row.role] + figures + Self.disk(row.statistics)
        }
        let work = rows.flatMap { row in row.workUnderWay.map { "member \(row.id): \(Self.text($0))" } }
        let warnings = members.flatMap { MemberWarnings.lines(of: $0.id, $0.statistics) }
        try cluster.show(
            Status(members: rows),
            ([Self.aligned([Self.columns] + table)] + work + warnings).joined(separator: "\n"))
        if !members.contains(where: { $0.role == "leader" }) {
            throw CommandFailure("status: no member leads; a majority must run", exitCode: 5)
        }
    }

    private static let columns = [
        "id", "address", "role", "term", "commit", "applied", "digest", "state", "unused", "free",
        "clients",
    ]

    private static func disk(_ statistics: [String: UInt64]) -> [String] {
        guard let bytes = statistics["state_bytes"], let unused = statistics["state_unused_bytes"],
            let free = statistics["free_bytes"]
        else { return ["", "", "", ""] }
        return [
            ByteSize(bytes: bytes).rounded,
            "\(bytes == 0 ? 0 : Int(100 * Double(min(unused, bytes)) / Double(bytes))) %",
            ByteSize(bytes: free).rounded, statistics["clients_bytes"].map { ByteSize(bytes: $0).rounded } ?? "",
        ]
    }

    private static func text(_ work: Work) -> String {
        let done = work.bytesDone == 0 ? "" : ", \(ByteSize(bytes: work.bytesDone).rounded)"
        return work.description + done + (work.bytes.map { " of \(ByteSize(bytes: $0).rounded)" } ?? "")
    }

    static func aligned(_ rows: [[String]]) -> String {
        let widths = (0..<(rows.first?.count ?? 0)).map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            zip(row, widths).map { $0.padding(toLength: $1, withPad: " ", startingAt: 0) }.joined(separator: "  ")
        }.joined(separator: "\n")
    }
}
