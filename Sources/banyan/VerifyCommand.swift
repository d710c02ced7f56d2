import ArgumentParser
import BanyanClient
import Console
import Foundation

struct VerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Have every member read all that it keeps, and report what is damaged.",
        discussion: """
            Each member reads its log and its whole state, and checks every checksum, every content's hash and the state's \
            digest; states at the same index are compared. A member that finds damage takes a sound copy from the others by \
            itself. The same goes on in the background: see 'banyand --help' for its rate. It reads \
            what is on the disk: the effect of the last second's writes may still be in the log alone. Exit code 1: something \
            is damaged; 5: a member could not be asked.
            """)

    private struct Report: Encodable { let members: [Row] }

    private struct Row: Encodable {
        let id: UInt64
        let address: String
        let index: UInt64
        let digest: String
        let rows: UInt64
        let bytes: UInt64
        let entries: UInt64
        let seconds: Double
        let damage: String
        /// Why nothing is known of it.
        let obstacle: String?
        let role: String

        var cells: [String] {
            guard let obstacle else {
                return [
                    "\(id)", address, "\(rows)", "\(bytes >> 20) MiB", "\(entries)",
                    "\(Double(Int(seconds * 10)) / 10) s",
                    "\(index)", digest, damage.isEmpty ? "sound" : "DAMAGED: \(damage)",
                ]
            }
            return ["\(id)", address, "-", "-", "-", "-", "-", "-", "not read: \(obstacle)"]
        }
    }

    @OptionGroup var cluster: ClusterOptions

    func run() async throws {
        let found = try await cluster.withClient("verify") { try await $0.verify() }
        // Those at one index must be alike; nobody knows here who is right.
        let digests = Dictionary(grouping: found.filter { $0.damage.isEmpty && $0.obstacle == nil }, by: \.index)
        let rows = found.map { member in
            let differs = member.obstacle == nil && Set(digests[member.index]?.map(\.digest) ?? []).count > 1
            return Row(
                id: member.id, address: member.address, index: member.index, digest: member.digest, rows: member.rows,
                bytes: member.bytes, entries: member.entries, seconds: member.seconds,
                damage: differs ? "the members' states at index \(member.index) differ" : member.damage,
                obstacle: member.obstacle, role: member.role)
        }
        try cluster.show(
            Report(members: rows),
            StatusCommand.aligned(
                [["id", "address", "rows", "read", "entries", "took", "index", "digest", "result"]] + rows.map(\.cells))
        )
        if rows.contains(where: { !$0.damage.isEmpty }) { throw ExitCode.failure }
        if rows.contains(where: { $0.obstacle != nil && $0.role != "removed" }) { throw ExitCode(5) }
    }
}
