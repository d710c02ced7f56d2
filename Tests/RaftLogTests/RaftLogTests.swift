import Foundation
import LMDB
import NIOCore
import Synchronization
import Testing
import WireProtocol

@testable import Raft
@testable import RaftLog

@Suite("The durable log")
struct RaftLogTests {
    private static let configuration = Configuration(
        clusterID: 7, members: [Member(id: 1, peer: PeerID(10), address: "a:1")])

    /// What a writer reported.
    private final class Outcomes: Sendable {
        let completed = Mutex<[UInt64]>([])
        let failures = Mutex<[LMDBError]>([])
    }

    /// A log in a folder of its own, which goes with it.
    private final class Scratch {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("log-\(UUID().uuidString)")
        let outcomes = Outcomes()
        private var number: UInt64 = 0

        init() throws {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            try open().found(
                Identity(memberID: 1, incarnation: 10, founders: "1=a:1"), genesis: RaftLogTests.configuration)
        }

        deinit { try? FileManager.default.removeItem(at: folder) }

        func open() throws -> LogStore { try LogStore(path: folder.path) }

        /// Does `work` with a writer and waits until all of it is on the disk.
        func write(_ work: (LogWriter) -> Void) throws {
            let store = try open()
            let recovered = try store.recover()
            let outcomes = outcomes
            let writer = LogWriter(
                store: store, row: recovered.row, lastIndex: recovered.log.lastIndex,
                completed: { number in outcomes.completed.withLock { $0.append(number) } },
                failed: { error in outcomes.failures.withLock { $0.append(error) } })
            work(writer)
            writer.close()
            #expect(outcomes.failures.withLock { $0 } == [])
        }

        func request(
            _ entries: Range<Index>, term: Term, commit: Index = 1, truncates: Bool = false, snapshot: Index? = nil,
            keepsTail: Bool = false
        ) -> LogWriter.Request {
            number += 1
            var write = Write(
                number: number, hardState: HardState(term: term, vote: nil, commit: commit), entries: entries)
            write.truncates = truncates
            write.keepsTail = keepsTail
            write.snapshot = snapshot.map {
                SnapshotMetadata(index: $0, term: term, configuration: RaftLogTests.configuration)
            }
            let records = entries.map { index in
                var record = ByteBuffer()
                let start = record.beginRecord(.command, index: index, term: term, length: 4)
                record.writeInteger(UInt32(truncatingIfNeeded: index))
                record.sealRecord(at: start)
                return record
            }
            return LogWriter.Request(write: write, records: records, stateNumber: snapshot == nil ? nil : 5)
        }

        func indexes(from first: Index) throws -> [Index] {
            var found: [Index] = []
            try open().scan(from: first, through: 0) { entry, _ in
                found.append(entry.header.index)
                return true
            }
            return found
        }
    }

    @Test("what was written is recovered: entries, terms, hard state, identity")
    func recovery() throws {
        let scratch = try Scratch()
        try scratch.write { writer in
            writer.send(scratch.request(2..<5, term: 2))
            writer.send(scratch.request(5..<8, term: 3, commit: 6))
        }
        #expect(scratch.outcomes.completed.withLock { $0.last } == 2)
        let store = try scratch.open()
        let recovered = try store.recover()
        #expect(recovered.row.hardState == HardState(term: 3, vote: nil, commit: 6))
        #expect(recovered.log.lastIndex == 7)
        #expect((1...7).map { recovered.log.term(at: $0) } == [1, 2, 2, 2, 3, 3, 3])
        #expect(recovered.log.configuration == Self.configuration)
        let identity = try store.identity()
        #expect(identity?.genesis == Self.configuration)
        #expect(identity?.founders == "1=a:1")
    }

    @Test("a conflicting tail is replaced, with its end")
    func truncation() throws {
        let scratch = try Scratch()
        try scratch.write { writer in
            writer.send(scratch.request(2..<10, term: 2))
            writer.send(scratch.request(4..<6, term: 3, truncates: true))
        }
        let log = try scratch.open().recover().log
        #expect(log.lastIndex == 5)
        #expect((1...5).map { log.term(at: $0) } == [1, 2, 2, 3, 3])
    }

    @Test("a compacted prefix is absent at once and erased in bounded steps")
    func compaction() throws {
        let scratch = try Scratch()
        let count = UInt64(LogWriter.erasedEntriesMax) * 2
        try scratch.write { $0.send(scratch.request(2..<count + 2, term: 2)) }
        try scratch.write { writer in
            writer.compact(behind: SnapshotMetadata(index: count, term: 2, configuration: Self.configuration))
        }
        let recovered = try scratch.open().recover()
        #expect(recovered.log.compactedIndex == count)
        #expect(recovered.log.lastIndex == count + 1)
        #expect(recovered.row.compactedTerm == 2)
        // One transaction has erased its share and no more; the next goes on, after a restart too.
        #expect(try scratch.open().firstKept() == UInt64(LogWriter.erasedEntriesMax) + 1)
        for index in count + 2..<count + 4 {
            try scratch.write { $0.send(scratch.request(index..<index + 1, term: 2)) }
        }
        #expect(try scratch.open().firstKept() == count + 1)
    }

    @Test("a log that goes on far beyond its end lets go of what it had in steps, and of nothing else")
    func farSnapshot() throws {
        let scratch = try Scratch()
        let far: UInt64 = 228_000_000_000_000
        try scratch.write { $0.send(scratch.request(2..<10, term: 2)) }
        try scratch.write { $0.send(scratch.request(10..<10, term: 2, commit: far, snapshot: far)) }
        #expect(try scratch.open().firstKept() == nil)
        try scratch.write { $0.send(scratch.request(far + 1..<far + 4, term: 2)) }
        let log = try scratch.open().recover().log
        #expect(log.compactedIndex == far && log.lastIndex == far + 3)
        #expect(try scratch.open().firstKept() == far + 1)
    }

    @Test("a new cluster's log begins behind its state, and keeps nothing of the old one's")
    func beginning() throws {
        let scratch = try Scratch()
        try scratch.write { $0.send(scratch.request(2..<10, term: 1 << 40)) }
        let far: UInt64 = 228_000_000_000_000
        let identity = Identity(memberID: 1, incarnation: 11, founders: "1=a:1")
        let alone = Configuration(clusterID: 8, members: [Member(id: 1, peer: PeerID(11), address: "a:1")])
        try scratch.open().begin(
            identity, behind: SnapshotMetadata(index: far, term: 2, configuration: alone), stateNumber: 9)
        let recovered = try scratch.open().recover()
        #expect(recovered.row.hardState == HardState(term: 3, vote: nil, commit: far + 1))
        #expect(recovered.row.stateNumber == 9)
        #expect(recovered.log.compactedIndex == far && recovered.log.lastIndex == far + 1)
        #expect(recovered.log.configuration == alone)
        #expect(try scratch.open().firstKept() == far + 1)
        #expect(try scratch.open().identity()?.genesis == alone)
    }

    @Test("a snapshot switches state, bounds and commit index in one commit, and keeps the tail only if told to")
    func snapshotSwitch() throws {
        for keepsTail in [true, false] {
            let scratch = try Scratch()
            try scratch.write { writer in
                writer.send(scratch.request(2..<10, term: 2))
                writer.send(scratch.request(10..<10, term: 2, commit: 6, snapshot: 6, keepsTail: keepsTail))
            }
            let recovered = try scratch.open().recover()
            #expect(recovered.row.stateNumber == 5)
            #expect(recovered.log.compactedIndex == 6)
            #expect(recovered.row.hardState.commit == 6)
            #expect(recovered.log.lastIndex == (keepsTail ? 9 : 6))
        }
        // A snapshot beyond the end of the log leaves a gap that nobody sees.
        let scratch = try Scratch()
        try scratch.write { writer in
            writer.send(scratch.request(2..<4, term: 2))
            writer.send(scratch.request(4..<4, term: 2, commit: 100, snapshot: 100))
            writer.send(scratch.request(101..<103, term: 2, commit: 100))
        }
        #expect(try scratch.indexes(from: 101) == [101, 102])
        #expect(try scratch.open().recover().log.lastIndex == 102)
    }

    @Test("the hard state's row never changes, and an older program's is read", arguments: [nil, 0x0A0B] as [Index?])
    func goldenHardState(lastIndex: Index?) throws {
        var row = HardStateRow(hardState: HardState(term: 0x0102, vote: PeerID(0x0304), commit: 0x0506))
        (row.compactedIndex, row.compactedTerm, row.stateNumber, row.lastIndex) = (0x0405, 0x0101, 7, lastIndex)
        let name = lastIndex == nil ? "hard-state-without-end.hex" : "hard-state.hex"
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("fixtures/log/\(name)")
        let golden = try String(contentsOf: file, encoding: .utf8).filter { !$0.isWhitespace }
        var bytes = ByteBuffer()
        row.write(to: &bytes)
        #expect(bytes.readableBytesView.map { String(format: "%02x", $0) }.joined() == golden)
        #expect(HardStateRow(from: &bytes) == row)
    }

    @Test("a log begins behind a snapshot once nothing behind that is damaged, and keeps what goes on from it")
    func repair() throws {
        let damaged = { () throws -> Scratch in
            let scratch = try Scratch()
            try scratch.write { $0.send(scratch.request(2..<10, term: 2, commit: 8)) }
            let store = try scratch.open()
            var transaction = try store.environment.beginWrite()
            let key = LogStore.key(5)
            try transaction.delete(key.span.bytes, in: store.entries)
            try transaction.commit()
            return scratch
        }
        let repair = { (scratch: Scratch, index: Index, term: Term, isOwn: Bool) in
            try scratch.open().repair(
                with: SnapshotMetadata(index: index, term: term, configuration: Self.configuration), stateNumber: 3,
                isOwn: isOwn)
        }
        let scratch = try damaged()
        #expect(try !repair(scratch, 4, 2, false), "the damage is behind it")
        #expect(try !repair(scratch, 4, 2, true), "the damage is behind it")
        #expect(try !repair(scratch, 5, 2, false), "nobody knows whether the tail goes on from it")
        #expect(throws: LogError.corruptEntry(5)) { try scratch.open().recover() }
        #expect(try repair(scratch, 5, 2, true), "the state is this log's own")
        var recovered = try scratch.open().recover()
        #expect(recovered.log.compactedIndex == 5 && recovered.log.lastIndex == 9)
        #expect(recovered.row.hardState.commit == 8 && recovered.row.stateNumber == 3)

        let joining = try damaged()
        #expect(try repair(joining, 6, 2, false))
        recovered = try joining.open().recover()
        #expect(recovered.log.lastIndex == 9 && recovered.row.hardState.commit == 8)

        let diverged = try damaged()
        #expect(try repair(diverged, 6, 3, false), "the tail is of another leader's")
        recovered = try diverged.open().recover()
        #expect(recovered.log.lastIndex == 6 && recovered.row.hardState == HardState(term: 3, vote: nil, commit: 6))
        #expect(try diverged.indexes(from: 7) == [])
    }

    @Test("a log that contradicts its cluster begins behind a snapshot that lies beyond the contradiction")
    func contradicted() throws {
        let repair = { (scratch: Scratch, index: Index, term: Term) in
            try scratch.open().repair(
                with: SnapshotMetadata(index: index, term: term, configuration: Self.configuration), stateNumber: 3,
                replacesCommitted: true)
        }
        let scratch = try Scratch()
        try scratch.write { $0.send(scratch.request(2..<10, term: 2, commit: 8)) }
        #expect(try !repair(scratch, 6, 2), "up to there the two agree")
        #expect(try scratch.open().recover().log.lastIndex == 9)
        #expect(try repair(scratch, 7, 3), "what is committed behind it is nothing that the cluster decided")
        let recovered = try scratch.open().recover()
        #expect(recovered.log.compactedIndex == 7 && recovered.log.lastIndex == 7)
        #expect(recovered.row.hardState == HardState(term: 3, vote: nil, commit: 7))

        // A forged snapshot lay far beyond everything: the log goes back.
        let beyond = try Scratch()
        try beyond.write { $0.send(beyond.request(2..<10, term: 2, commit: 8)) }
        #expect(try repair(beyond, 1 << 50, 3))
        #expect(
            try !beyond.open().repair(
                with: SnapshotMetadata(index: 9, term: 4, configuration: Self.configuration), stateNumber: 4))
        #expect(try repair(beyond, 9, 4))
        let back = try beyond.open().recover()
        #expect(back.log.compactedIndex == 9 && back.log.lastIndex == 9)
        #expect(back.row.hardState == HardState(term: 4, vote: nil, commit: 9))

        let sound = try Scratch()
        try sound.write { $0.send(sound.request(2..<10, term: 2, commit: 8)) }
        #expect(try repair(sound, 8, 2), "there is no contradiction at all")
        #expect(try sound.open().recover().log.lastIndex == 9)
    }

    @Test("a damaged or missing entry, a damaged hard state and another format are told apart, and nothing is cut off")
    func damage() throws {
        let change = { (scratch: Scratch, body: (inout WriteTransaction, LogStore) throws -> Void) in
            let store = try scratch.open()
            var transaction = try store.environment.beginWrite()
            try body(&transaction, store)
            try transaction.commit()
        }
        let flipped = try Scratch()
        try flipped.write { $0.send(flipped.request(2..<6, term: 2)) }
        try change(flipped) { transaction, store in
            let key = LogStore.key(4)
            var bytes = try transaction.get(key.span.bytes, in: store.entries)?.withUnsafeBytes { Array($0) } ?? []
            bytes[bytes.count - 1] ^= 1
            try transaction.put(key.span.bytes, bytes.span.bytes, in: store.entries)
        }
        #expect(throws: LogError.corruptEntry(4)) { try flipped.open().recover() }

        let missing = try Scratch()
        try missing.write { $0.send(missing.request(2..<6, term: 2, commit: 5)) }
        try change(missing) { transaction, store in
            let key = LogStore.key(5)
            try transaction.delete(key.span.bytes, in: store.entries)
        }
        #expect(throws: LogError.corruptEntry(5)) { try missing.open().recover() }

        // Whatever a commit index covers: the log knows where it ended.
        let short = try Scratch()
        try short.write { $0.send(short.request(2..<6, term: 2)) }
        try change(short) { transaction, store in
            for index in 4..<6 as Range<Index> {
                let key = LogStore.key(index)
                try transaction.delete(key.span.bytes, in: store.entries)
            }
        }
        #expect(throws: LogError.corruptEntry(4)) { try short.open().recover() }
        #expect(throws: LogError.corruptEntry(4)) { try short.open().scan(from: 2, through: 5) { _, _ in true } }

        let unknown = try Scratch()
        try unknown.write { $0.send(unknown.request(2..<6, term: 2)) }
        try change(unknown) { transaction, store in
            var record = ByteBuffer()
            let start = record.beginRecord(.configuration, index: 4, term: 2, length: 1)
            record.writeInteger(UInt8(9))
            record.sealRecord(at: start)
            let (key, bytes) = (LogStore.key(4), Array(record.readableBytesView))
            try transaction.put(key.span.bytes, bytes.span.bytes, in: store.entries)
        }
        #expect(throws: LogError.corruptEntry(4)) { try unknown.open().recover() }

        // A row that an older program wrote does not say where the log ends.
        let old = try Scratch()
        try old.write { $0.send(old.request(2..<6, term: 2, commit: 3)) }
        try change(old) { transaction, store in
            var row = try store.damaged().row
            row.lastIndex = nil
            try store.write(row, &transaction)
        }
        #expect(try old.open().recover().log.lastIndex == 5)

        let unreadable = try Scratch()
        try change(unreadable) { transaction, store in
            let (key, row) = (Array("hard".utf8), [UInt8](repeating: 1, count: 53))
            try transaction.put(key.span.bytes, row.span.bytes, in: store.meta)
        }
        #expect(throws: LogError.unreadableHardState) { try unreadable.open().recover() }

        let newer = try Scratch()
        try change(newer) { transaction, store in
            try store.writeMeta("identity", ByteBuffer(bytes: [0, 9] + Array(repeating: 0, count: 18)), &transaction)
        }
        #expect(throws: LogError.unknownFormat) { try newer.open().identity() }
    }
}
