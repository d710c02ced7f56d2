import BanyanClient
import Foundation
import Testing

/// What stood before an attack, and must stand behind it.
struct Witness {
    /// `make attacks`: all variants, all rounds.
    static let isLong = ProcessInfo.processInfo.environment["BANYAN_ATTACKS"] != nil

    /// How the members stand to each other.
    struct Standing: Equatable, CustomStringConvertible {
        var terms: Set<UInt64>
        var roles: [UInt64: String]

        init(_ members: [MemberReport]) {
            let running = members.filter { $0.isRunning }
            terms = Set(running.map(\.term))
            roles = Dictionary(uniqueKeysWithValues: running.map { ($0.id, $0.role) })
        }

        var isSettled: Bool {
            terms.count == 1 && roles.values.contains("leader") && !roles.values.contains("candidate")
        }
        var description: String {
            "terms \(terms.sorted()), "
                + roles.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
        }
    }

    let client: BanyanClient
    private let cluster: TestCluster
    private let processes: [Int: Int32]
    private let membership: [MemberRecord]

    private static let files: [(path: String, content: [UInt8])] = (0..<8).map { number in
        ("/acknowledged/\(number)", Array("content of \(number)".utf8))
    }

    /// Of the members that run now.
    init(of cluster: TestCluster) async throws {
        self.cluster = cluster
        client = cluster.client(timeout: .seconds(10))
        for file in Self.files { _ = try await client.put(file.path, file.content) }
        membership = try await client.members()
        processes = try Dictionary(
            uniqueKeysWithValues: (1...cluster.ports.count).filter(cluster.isRunning).map {
                ($0, try cluster.processID($0))
            })
    }

    func standing() async throws -> Standing {
        var standing = Standing(try await client.status())
        _ = await cluster.condition {
            standing = Standing(try await client.status())
            return standing.isSettled && standing.roles.count == processes.count
        }
        return standing
    }

    /// The attack changes nothing at all. A busy machine may hold an election by itself: one that the attack brings about
    /// comes each time.
    ///
    /// - Parameter attack: says what it forges, knowing how the members stand. It must have had its effect when it returns.
    func expectNoEffect(of name: String, _ attack: () async throws -> Void) async throws {
        var changes: [String] = []
        for _ in 0..<3 {
            let before = try await standing()
            try await attack()
            try await expectService(after: name)
            let after = try await standing()
            if after == before { return }
            changes.append("from \(before) to \(after)")
        }
        Issue.record("\(name) changed how members stand, each time: \(changes.joined(separator: "; "))")
    }

    /// No member has ended; membership and acknowledged files are as before; a write succeeds.
    func expectService(after name: String) async throws {
        do {
            _ = try await client.put("/after", Array(name.utf8))
            #expect(try await client.members() == membership, "\(name) changed the membership")
            try await expectFiles(after: name)
        } catch { Issue.record("after \(name): \(error)") }
        expectProcesses(after: name)
    }

    /// The lead may have changed hands and terms may have risen; but everything comes back by itself, at once.
    func expectRecovery(after name: String) async throws {
        let ended = ContinuousClock.now
        let isBack = await cluster.condition { try await client.put("/after", Array(name.utf8)) > 0 }
        let gap = ContinuousClock.now - ended
        #expect(isBack, "no write succeeds after \(name)")
        if Self.isLong { #expect(gap < .seconds(5), "the first write after \(name) took \(gap)") }
        var found: [MemberRecord] = []
        let isWhole = await cluster.condition {
            found = try await client.members()
            return found == membership
        }
        #expect(isWhole, "\(name) changed the membership for good: \(found)")
        try await expectFiles(after: name)
        var agree = await cluster.condition(within: .seconds(5)) { try await membersAgree() }
        if !agree {
            // Whose state differs is found where all compare theirs, and is brought level.
            try await writeToNextDigest()
            agree = await cluster.condition {
                _ = try await client.put("/after", [1])
                return try await membersAgree()
            }
        }
        if !agree {
            let members = try await client.status().map {
                "\($0.id) \($0.role) term \($0.term) applied \($0.appliedIndex) \($0.digest.prefix(8))"
            }
            let logs = processes.keys.sorted().map { "member \($0): " + ((try? cluster.log($0).suffix(2000)) ?? "") }
            Issue.record(
                "members differ after \(name): \(members.joined(separator: "; "))\n\(logs.joined(separator: "\n"))")
        }
        expectProcesses(after: name)
    }

    private func membersAgree() async throws -> Bool {
        let members = try await client.status().filter { $0.isRunning }
        return members.count == processes.count && Set(members.map { "\($0.appliedIndex) \($0.digest)" }).count == 1
    }

    /// Members remember their states' digests at the multiples of this index.
    private static let indexesBetweenDigests: UInt64 = 4096

    /// - Returns: that index.
    @discardableResult
    func writeToNextDigest() async throws -> UInt64 {
        let last = try await client.status().map(\.appliedIndex).max() ?? 0
        let next = (last / Self.indexesBetweenDigests + 1) * Self.indexesBetweenDigests
        let client = client
        try await withThrowingTaskGroup(of: Void.self) { group in
            for writer in 0..<64 as Range<UInt64> {
                group.addTask {
                    for _ in 0...(next - last) / 64 { _ = try await client.put("/filling/\(writer)", [1]) }
                }
            }
            try await group.waitForAll()
        }
        return next
    }

    private func expectFiles(after name: String) async throws {
        for file in Self.files {
            #expect(try await client.get(file.path).content == file.content, "\(file.path) after \(name)")
        }
    }

    private func expectProcesses(after name: String) {
        for (id, process) in processes where (try? cluster.processID(id)) != process {
            let end = (try? cluster.log(id).suffix(800)) ?? ""
            Issue.record("member \(id) has ended after \(name): \(end)")
        }
    }
}
