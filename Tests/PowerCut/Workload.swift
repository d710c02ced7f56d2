import CPowerCut
import FileTree
import Foundation
import NIOCore
import Node
import Raft
import RaftLog
import Snapshots
import Synchronization
import WireProtocol

/// A member's storage at work, without a network: it appends, truncates, compacts, executes, takes in snapshots, writes its
/// state anew, repairs its log, and begins a new cluster, while the file layer below remembers in which order bytes went to
/// the disk.
final class Workload {
    /// At this many remembered operations, everything up to this index was acknowledged, and the vote of this term given.
    private(set) var acknowledged: [(position: Int, index: Index, term: Term)] = []
    /// The state's digest after each index.
    private(set) var digests: [Index: StateDigest] = [:]
    let root: String

    private let scratch: String
    private var generator: SeededGenerator
    private let directory: DataDirectory
    /// Nil once it is closed.
    private var writer: LogWriter?
    private(set) var repairs = 0
    private let progress = Progress()
    private var tree: DurableTree
    /// What the other members have: the same commands, executed beside.
    private let others: DurableTree
    private let configuration: Configuration
    private var records: [Index: ByteBuffer] = [:]
    private var lastIndex: Index = 1
    private var commit: Index = 1
    private var compacted: Index = 0
    private var term: Term = 1
    private var number: UInt64 = 0
    private var stateNumber: UInt64 = 1
    private var time: Nanoseconds = 0

    /// What the log writer's thread says of its work.
    private final class Progress: Sendable {
        let write = Atomic<UInt64>(0)
        let hasFailed = Atomic(false)
        let switched = Atomic<UInt64>(0)
        let completed = DispatchSemaphore(value: 0)
    }

    /// - Parameter scratch: an empty directory.
    init(seed: UInt64, scratch: String) throws {
        generator = SeededGenerator(seed: seed)
        self.scratch = scratch
        root = scratch + "/member"
        try FileManager.default.createDirectory(atPath: scratch + "/others", withIntermediateDirectories: true)
        powercut_record(scratch)
        directory = try DataDirectory(path: root)
        configuration = Configuration(clusterID: 7, members: [Member(id: 1, peer: PeerID(9), address: "a:1")])
        try directory.store.found(
            Identity(memberID: 1, incarnation: 9, founders: "1=a:1"), genesis: configuration)
        tree = try DurableTree(path: directory.prepareState(1))
        others = try DurableTree(path: scratch + "/others")
        let recovered = try directory.store.recover()
        writer = Self.writer(of: directory.store, recovered, progress)
        var payload = ByteBuffer()
        configuration.write(to: &payload)
        records[1] = Self.record(.configuration, index: 1, term: 1, payload)
        try execute(through: 1)
        acknowledge()
    }

    private static func writer(
        of store: LogStore, _ recovered: LogStore.Recovered, _ progress: Progress
    ) -> LogWriter {
        LogWriter(
            store: store, row: recovered.row, lastIndex: recovered.log.lastIndex,
            completed: { write in
                progress.write.store(write, ordering: .releasing)
                progress.completed.signal()
            },
            failed: { _ in
                progress.hasFailed.store(true, ordering: .releasing)
                progress.completed.signal()
            })
    }

    /// Works until so many operations were remembered.
    func run(operations: Int) throws {
        while powercut_count() < operations {
            switch Int.random(in: 0..<100, using: &generator) {
            case 0: try installSnapshot(keepingTail: false)
            case 6: try installSnapshot(keepingTail: true)
            case 5: try rewriteState()
            case 7..<10: try repairLog()
            case 1..<5: try overwriteTail()
            default: try append(count: Int.random(in: 1...80, using: &generator))
            }
            compact()
            time += UInt64.random(in: 0...200_000_000, using: &generator)
            _ = try tree.keepUp(now: time)
        }
        try tree.commit()
    }

    deinit { writer?.close() }

    private static func record(_ kind: EntryKind, index: Index, term: Term, _ payload: ByteBuffer) -> ByteBuffer {
        var record = ByteBuffer()
        let start = record.beginRecord(kind, index: index, term: term, length: payload.readableBytes)
        record.writeImmutableBuffer(payload)
        record.sealRecord(at: start)
        return record
    }

    private func command() throws -> ByteBuffer {
        var command = ByteBuffer()
        let path = try TreePath(
            "/d\(Int.random(in: 0..<9, using: &generator))/f\(Int.random(in: 0..<40, using: &generator))")
        if Int.random(in: 0..<200, using: &generator) == 0 {
            // From the first on, the digest goes by another hash.
            RaiseVersion(to: Applied.clusterVersionMax).write(to: &command)
        } else if Int.random(in: 0..<8, using: &generator) == 0 {
            Delete(path: path).write(to: &command)
        } else {
            // Some in their row, some in chunks, a few over many pages.
            let size = [0, 100, 900, 3000, 40_000].randomElement(using: &generator) ?? 0
            let byte = UInt8.random(in: 0...255, using: &generator)
            Put(path: path, content: ByteBuffer(repeating: byte, count: size)).write(to: &command)
        }
        CommandHeader.stamp(&command, at: 0, logTime: lastIndex, wallTime: 5)
        return command
    }

    // MARK: the log

    /// Whom this member votes for.
    static func vote(in term: Term) -> PeerID { PeerID(9 + term % 3) }

    private var hardState: HardState { HardState(term: term, vote: Self.vote(in: term), commit: commit) }

    private func write(_ entries: Range<Index>, truncates: Bool = false) {
        number += 1
        writer?.send(
            .init(
                write: Write(number: number, hardState: hardState, truncates: truncates, entries: entries),
                records: entries.compactMap { records[$0] }))
    }

    private func add(_ count: Int) throws -> Range<Index> {
        let first = lastIndex + 1
        for _ in 0..<count {
            lastIndex += 1
            records[lastIndex] = Self.record(.command, index: lastIndex, term: term, try command())
        }
        return first..<lastIndex + 1
    }

    private func append(count: Int) throws {
        write(try add(count))
        // Writes pile up at times, and are written in one transaction then.
        if Int.random(in: 0..<3, using: &generator) > 0 { try commitEverything() }
    }

    /// A new leader takes back what was never committed.
    private func overwriteTail() throws {
        guard lastIndex > commit else { return }
        let first = commit + 1 + UInt64.random(in: 0..<lastIndex - commit, using: &generator)
        lastIndex = first - 1
        term += 1
        write(try add(Int.random(in: 1...10, using: &generator)), truncates: true)
        try commitEverything()
    }

    private func commitEverything() throws {
        try waitForWrites()
        commit = lastIndex
        acknowledge()
        try execute(through: commit)
    }

    private func waitForWrites() throws {
        let number = number
        try wait { $0.write.load(ordering: .acquiring) >= number }
    }

    private func wait(until isDone: (Progress) -> Bool) throws {
        while !isDone(progress) {
            progress.completed.wait()
            if progress.hasFailed.load(ordering: .acquiring) { throw StartError("the log can't be written") }
        }
    }

    private func acknowledge() { acknowledged.append((powercut_count(), commit, number > 0 ? term : 0)) }

    private func compact() {
        let point = tree.durable.index
        guard point > compacted + 100 else { return }
        compacted = point - UInt64.random(in: 0...50, using: &generator)
        guard let record = records[compacted], let term = record.getInteger(at: 16, as: UInt64.self) else { return }
        writer?.compact(behind: SnapshotMetadata(index: compacted, term: term, configuration: configuration))
    }

    // MARK: the state

    private func execute(through last: Index) throws {
        try execute(on: others, through: last) { digests[others.applied.index] = others.applied.digest }
        try execute(on: tree, through: last) {}
    }

    private func execute(on tree: DurableTree, through last: Index, then: () -> Void) throws {
        while tree.applied.index < last, var record = records[tree.applied.index + 1] {
            let entry = try EntryRecord(from: &record)
            var answer = ByteBuffer()
            try tree.apply(
                index: entry.header.index, term: entry.header.term, kind: entry.header.kind, payload: entry.payload,
                answer: &answer)
            then()
        }
    }

    /// A copy of what is durable takes the state's place: what it lacks is executed again.
    private func rewriteState() throws {
        guard tree.durable.index > 0 else { return }
        try commitEverything()
        stateNumber += 1
        let path = DataDirectory.statePath(in: root, stateNumber)
        _ = try RewriteThread.copy(tree.environment, to: path, reserve: 0)
        let (progress, number) = (progress, stateNumber)
        writer?.switchState(to: number) {
            progress.switched.store(number, ordering: .releasing)
            progress.completed.signal()
        }
        try wait { $0.switched.load(ordering: .acquiring) == number }
        tree = try DurableTree(path: path)
        try execute(on: tree, through: commit) {}
        DataDirectory.removeStates(in: root) { $0 < number }
    }

    /// The log is opened anew, and begins behind the state, as if an entry before were damaged. What the log has
    /// behind that stays.
    private func repairLog() throws {
        try commitEverything()
        try tree.commit()
        write(try add(Int.random(in: 0...5, using: &generator)))
        try waitForWrites()
        writer?.close()
        writer = nil
        let own = SnapshotMetadata(index: tree.applied.index, term: tree.applied.term, configuration: configuration)
        guard try directory.store.repair(with: own, stateNumber: stateNumber, isOwn: true) else {
            throw StartError("a log without damage can't be repaired")
        }
        compacted = own.index
        writer = Self.writer(of: directory.store, try directory.store.recover(), progress)
        repairs += 1
    }

    /// The disk operations of a restore, and what it restores: the state's digest at its last index, which only the
    /// configuration of the new cluster follows.
    struct Restoration {
        var file: String
        var root: String
        var operations: Range<Int>
        var index: Index
        var digest: StateDigest
    }

    /// A new cluster begins with what the others have.
    func restore() throws -> Restoration {
        // Nothing else may write meanwhile.
        try commitEverything()
        let spool = try spoolOfOthers()
        var bytes = Data()
        var number: UInt32 = 0
        while let piece = try spool.piece(number) {
            bytes.append(contentsOf: piece.bytes.readableBytesView)
            if piece.isLast { break }
            number += 1
        }
        let (file, root) = (scratch + "/backup", scratch + "/restored")
        try bytes.write(to: URL(fileURLWithPath: file))
        let begin = powercut_count()
        _ = try Restore.restore(file, to: root, id: 1, address: Address(host: "a", port: 1))
        return Restoration(
            file: file, root: root, operations: begin..<powercut_count(), index: others.applied.index,
            digest: others.applied.digest)
    }

    private func spoolOfOthers() throws -> Spool {
        try others.commit()
        let view = try StateView(others.environment)
        let spool = try Spool(of: view, in: scratch, reserve: 0)
        spool.fill(from: view)
        return spool
    }

    /// The others send this member their state: they went on without it, or they have what its log has, which goes on behind.
    private func installSnapshot(keepingTail: Bool) throws {
        try commitEverything()
        let count = Int.random(in: 1...30, using: &generator)
        if keepingTail {
            write(try add(count))
            try waitForWrites()
        } else {
            term += 1
            commit = try add(count).upperBound - 1
            try execute(on: others, through: commit) { digests[others.applied.index] = others.applied.digest }
        }
        let spool = try spoolOfOthers()
        stateNumber += 1
        let path = DataDirectory.statePath(in: root, stateNumber)
        try DataDirectory.makeDirectory(path)
        guard let header = try spool.piece(0) else { throw StartError("a snapshot without a header") }
        let metadata: SnapshotMetadata
        do {
            let receiver = try SnapshotReceiver(
                header: header.bytes, clusterID: configuration.clusterID, into: path, reserve: 0)
            var number: UInt32 = 1
            while let piece = try spool.piece(number), try !receiver.receive(piece.bytes) { number += 1 }
            metadata = receiver.header.metadata
        }
        try DataDirectory.sync(path)
        try DataDirectory.sync(root)
        number += 1
        writer?.send(
            .init(
                write: Write(
                    number: number, hardState: hardState, snapshot: metadata, keepsTail: keepingTail,
                    entries: lastIndex + 1..<lastIndex + 1),
                records: [], stateNumber: stateNumber))
        try waitForWrites()
        acknowledge()
        compacted = metadata.index
        tree = try DurableTree(path: path)
        DataDirectory.removeStates(in: root) { $0 < stateNumber }
    }
}
