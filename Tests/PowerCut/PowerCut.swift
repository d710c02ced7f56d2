import ArgumentParser
import CPowerCut
import FileTree
import Foundation
import NIOCore
import Node
import Raft
import RaftLog
import WireProtocol

/// Cuts the power of a member's storage at random moments, and starts it again from what a disk would have kept.
@main
struct PowerCut: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "banyan-powercut",
        abstract: "Cut the power of a member's storage at random moments, and recover from what the disk kept.",
        discussion: """
            Whatever was not synced is lost or torn, sector by sector. After each cut the member must start, have every \
            entry that was acknowledged, and a state whose digest is right. A restore that was cut short must be \
            possible again, and one that was over must be whole.
            """)

    @Option(help: "How often to cut and recover.") var recoveries = 1000
    @Option(help: "Repeats the choices of an earlier run.") var seed = UInt64.random(in: 1...UInt64(1 << 32))

    @Flag(help: "Nothing is durable when a file's sync says so: shows that the check can fail.") var lyingDisk = false

    @Flag(help: "Cut restores from a snapshot file alone.") var restores = false

    @Flag(help: "Let the disk refuse writes or syncs from a random moment on, instead of cutting the power.")
    var fullDisk = false

    @Option(help: "Where to work, and to leave what a disk kept when a recovery failed.") var folder: String?

    mutating func run() throws {
        print("seed \(seed)")
        let folder = folder.map { URL(fileURLWithPath: $0) } ?? FileManager.default.temporaryDirectory
        let scratch = folder.resolvingSymlinksInPath().path + "/powercut-\(getpid())"
        try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: scratch) }
        if fullDisk { return try fillDisk(in: scratch) }
        let workload = try Workload(seed: seed, scratch: scratch)
        try workload.run(operations: max(4000, recoveries * 12))

        var generator = SeededGenerator(seed: seed &+ 1)
        if !restores { try cutMember(workload, scratch, &generator) }
        try cutRestores(workload.restore(), scratch, &generator)
    }

    private func cutMember(_ workload: Workload, _ scratch: String, _ generator: inout SeededGenerator) throws {
        let count = powercut_count()
        guard let start = workload.acknowledged.first?.position else { throw StartError("nothing was acknowledged") }
        let cuts = (0..<recoveries).map { _ in Int.random(in: start..<count, using: &generator) }.sorted()
        var disk = Disk(root: workload.root, isLying: lyingDisk)
        var performed = 0
        var replayed: UInt64 = 0
        for (turn, cut) in cuts.enumerated() {
            while performed <= cut {
                disk.perform(powercut_get(performed))
                performed += 1
            }
            let target = scratch + "-\(turn)"
            try FileManager.default.createDirectory(atPath: target, withIntermediateDirectories: true)
            try disk.cut(into: target, &generator)
            let promised = workload.acknowledged.last { $0.position <= cut }
            do {
                replayed += try recover(
                    target, acknowledged: promised?.index ?? 0, term: promised?.term ?? 0, digests: workload.digests)
            } catch {
                print("recovery after operation \(cut) of \(count): \(error); what the disk kept: \(target)")
                throw ExitCode.failure
            }
            try FileManager.default.removeItem(atPath: target)
        }
        print(
            "\(recoveries) recoveries at \(Set(cuts).count) moments of \(count) disk operations: nothing lost; "
                + "\(workload.acknowledged.last?.index ?? 0) entries acknowledged, \(workload.repairs) repairs, "
                + "\(replayed / UInt64(max(1, recoveries))) entries replayed at a recovery in the mean")
    }

    private static let endsCut = 40

    /// A restore that the power cuts short can be repeated; one that was over is whole.
    private func cutRestores(
        _ restoration: Workload.Restoration, _ scratch: String, _ generator: inout SeededGenerator
    ) throws {
        let operations = restoration.operations
        // Most write the state's rows. What comes before and behind, the making of files and the switch, is cut at each.
        let random = (0..<max(1, recoveries / 10)).map { _ in Int.random(in: operations, using: &generator) }
        let cuts = (random + operations.prefix(Self.endsCut) + operations.suffix(Self.endsCut)).sorted()
        var disk = Disk(root: restoration.root, isLying: lyingDisk)
        var performed = operations.lowerBound
        var repeated = 0
        // The last one is cut when all is done.
        for (turn, cut) in (cuts + [operations.upperBound]).enumerated() {
            while performed < operations.upperBound, performed <= cut {
                disk.perform(powercut_get(performed))
                performed += 1
            }
            if cut == operations.upperBound { disk.settle() }
            let target = "\(scratch)-restored-\(turn)"
            try FileManager.default.createDirectory(atPath: target, withIntermediateDirectories: true)
            try disk.cut(into: target, &generator)
            do {
                let isMade = try DataDirectory(path: target).store.identity() != nil
                if !isMade {
                    guard cut < operations.upperBound else { throw StartError("what was restored is gone") }
                    _ = try Restore.restore(restoration.file, to: target, id: 1, address: Address(host: "a", port: 1))
                    repeated += 1
                }
                // Behind the state comes the configuration of the new cluster.
                let base = try DataDirectory(path: target).store.recover().log.compactedIndex
                guard base > restoration.index else { throw StartError("revisions come back: they begin at \(base)") }
                let digests = [base: restoration.digest, base + 1: restoration.digest]
                _ = try recover(target, acknowledged: base + 1, term: 0, digests: digests)
            } catch {
                print("restore cut at \(cut) of \(operations): \(error); what the disk kept: \(target)")
                throw ExitCode.failure
            }
            try FileManager.default.removeItem(atPath: target)
        }
        guard repeated > 0, repeated <= cuts.count else {
            throw StartError(
                "\(repeated) of \(cuts.count + 1) restores were repeated: the cuts missed what they were for")
        }
        print("\(cuts.count + 1) restores cut short or just done: \(repeated) repeated, the others whole")
    }

    /// A disk that is full, or fails, in the midst of the work: what was acknowledged stays, and nothing else was.
    private func fillDisk(in scratch: String) throws {
        var generator = SeededGenerator(seed: seed &+ 1)
        var acknowledged: Index = 0
        for turn in 0..<recoveries {
            let folder = "\(scratch)/\(turn)"
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            let (last, term, digests) = try work(in: folder, seed: seed &+ UInt64(turn), &generator)
            acknowledged += last
            do { _ = try recover(folder + "/member", acknowledged: last, term: term, digests: digests) } catch {
                throw StartError("turn \(turn): \(error)")
            }
            try FileManager.default.removeItem(atPath: folder)
        }
        print("\(recoveries) disks that refused: nothing lost; \(acknowledged) entries acknowledged before")
    }

    private func work(
        in folder: String, seed: UInt64, _ generator: inout SeededGenerator
    ) throws -> (Index, Term, [Index: StateDigest]) {
        let workload = try Workload(seed: seed, scratch: folder)
        let start = powercut_count()
        let error = Bool.random(using: &generator) ? ENOSPC : EIO
        powercut_fail(start + Int.random(in: 20...1200, using: &generator), error)
        defer { powercut_fail(0, 0) }
        do { try workload.run(operations: start + 100_000) } catch {
            let promised = workload.acknowledged.last
            return (promised?.index ?? 0, promised?.term ?? 0, workload.digests)
        }
        throw StartError("a disk that refuses everything was not noticed")
    }

    /// Starts from `path` as a member does, and answers with how many entries were executed again.
    private func recover(
        _ path: String, acknowledged: Index, term: Term, digests: [Index: StateDigest]
    ) throws -> UInt64 {
        let directory = try DataDirectory(path: path)
        guard try directory.store.identity()?.genesis != nil else { throw StartError("the identity is gone") }
        let recovered = try directory.store.recover()
        guard recovered.log.lastIndex >= acknowledged else {
            throw StartError("the log ends at \(recovered.log.lastIndex), \(acknowledged) was acknowledged")
        }
        let hardState = recovered.row.hardState
        guard hardState.term >= term, term == 0 || hardState.vote == Workload.vote(in: hardState.term) else {
            throw StartError("the term is \(hardState.term), and \(term) was promised; the vote may be another")
        }
        let tree = try DurableTree(path: directory.prepareState(recovered.row.stateNumber))
        let durable = tree.applied
        guard durable.index >= recovered.log.compactedIndex, durable.index <= recovered.log.lastIndex else {
            throw StartError(
                "the state is at \(durable.index), the log from \(recovered.log.compactedIndex) to \(recovered.log.lastIndex)"
            )
        }
        if durable.index > 0, durable.digest != digests[durable.index] {
            throw StartError("the state at \(durable.index) has another digest")
        }
        var failure: (any Error)?
        try directory.store.scan(from: durable.index + 1, through: acknowledged) { entry, _ in
            guard entry.header.index <= acknowledged else { return false }
            var answer = ByteBuffer()
            do {
                try tree.apply(
                    index: entry.header.index, term: entry.header.term, kind: entry.header.kind, payload: entry.payload,
                    answer: &answer)
            } catch { failure = error }
            return failure == nil
        }
        if let failure { throw failure }
        let last = max(acknowledged, durable.index)
        guard tree.applied.index == last, tree.applied.digest == digests[last] else {
            throw StartError("the state at \(tree.applied.index) is not what was acknowledged at \(last)")
        }
        return tree.applied.index - durable.index
    }
}
