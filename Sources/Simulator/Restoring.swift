import Driver
import FileTree
import NIOCore
import Raft

/// Clusters that begin with this one's tree while it goes on: no revision may ever stand for two things.
extension Simulation {
    /// The simulation begins at the end of 2025.
    private static let wallTimeAtStart: Int64 = 1_767_139_200_000_000_000

    /// Somebody makes a new cluster of one from a backup that was made now, or some time ago, or of another such cluster; and
    /// writes to it.
    func restore() throws {
        guard let source = members.indices.filter({ members[$0].isRunning }).randomElement(using: &generator) else {
            return
        }
        backups.append(members[source].disk.state)
        guard var backup = backups.randomElement(using: &generator) else { return }
        var tree = try FileTree(store: backup)
        let last = tree.applied
        // On some machines nobody set the clock.
        let wallTime = Int.random(in: 0..<4, using: &generator) == 0 ? 0 : Self.wallTimeAtStart + Int64(time)
        guard last.index > 0,
            let base = FirstRevision.base(after: last.index, wallTime: wallTime, random: generator.next())
        else { return }
        let index = mutant == .revisionRepeatedAfterRestore ? last.index : base.index
        try tree.move(to: index)
        backup = tree.committed
        let alone = Configuration(
            clusterID: generator.next() | 1, members: [Member(id: 1, peer: PeerID(1), address: "1")])
        var disk = SimulatedDisk(joining: alone)
        disk.begin(alone, state: backup, behind: index, last.term)
        let revisions = try write(to: disk)
        trace("restored behind \(index): revisions \(revisions)")
        try invariants.gaveElsewhere(revisions)
        if backups.count > 4 { backups.removeFirst() }
    }

    /// Runs a cluster of one until it has answered some writes, at once.
    private func write(to disk: SimulatedDisk) throws -> ClosedRange<Index> {
        let member = SimulatedMember(position: 0, disk: disk, limits: Limits(), wallClockOffset: 0, mutant: nil)
        // What it executes is compared with nobody's.
        var invariants = Invariants(members: 1, isIdle: true)
        var now: Nanoseconds = 1_000_000_000
        var given: [Index] = []
        func perform(_ first: SimulatedMember.Requests) throws {
            var requests = first
            while !requests.writes.isEmpty || !requests.executions.isEmpty || !requests.answers.isEmpty {
                var next = SimulatedMember.Requests()
                if let write = requests.writes.last { next = try member.saved(write, now: now, &invariants) }
                for range in requests.executions {
                    next.merge(try member.execute(range, now: now, &invariants))
                }
                for case .result(_, let index, _) in requests.answers.map(\.answer) { given.append(index) }
                requests = next
            }
        }
        try perform(try member.start(seed: generator.next(), now: now, &invariants))
        for _ in 0..<300 where given.count < 3 {
            now += 10_000_000
            try perform(try member.tick(now: now, &invariants))
            guard member.role == .leader else { continue }
            var command = ByteBuffer()
            let path = try TreePath("/restored")
            Put(path: path, content: ByteBuffer(string: "\(given.count)")).write(to: &command)
            let waiter = Waiter(client: 0, request: given.count)
            try perform(try member.write(command, for: waiter, now: now, &invariants))
        }
        guard let first = given.min(), let last = given.max(), given.count >= 3 else {
            throw Invariants.Violation(
                invariant: "a restored cluster serves", detail: "\(given.count) writes were answered in 3 s")
        }
        return first...last
    }
}
