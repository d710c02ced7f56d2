import FileTree
import NIOCore
import Raft
import WireProtocol

/// An entry with its payload, as a log holds it.
struct SimulatedEntry {
    var header: EntryHeader
    var payload: ByteBuffer
    /// What the payload of a configuration's entry says.
    var configuration: Configuration?

    init(header: EntryHeader, payload: ByteBuffer, configuration: Configuration? = nil) {
        (self.header, self.payload, self.configuration) = (header, payload, configuration)
    }

    init(record: ByteBuffer) throws(ProtocolError) {
        var record = record
        let read = try EntryRecord(from: &record, isChecked: true)
        (header, payload) = (read.header, read.payload)
        var bytes = payload
        configuration = header.kind == .configuration ? Configuration(from: &bytes) : nil
    }

    var record: ByteBuffer { EntryRecord.bytes(header.kind, index: header.index, term: header.term, payload) }

    static func payload(_ configuration: Configuration) -> ByteBuffer {
        var payload = ByteBuffer()
        configuration.write(to: &payload)
        return payload
    }
}

/// A member's disk: what a power cut would leave, and what is on its way there.
///
/// Writes reach it in order and each as a whole, as commits of the log's environment do. A crash loses the rest, but one
/// that was under way may have become durable without anybody having been told.
struct SimulatedDisk {
    private enum Pending {
        case write(Write, entries: [SimulatedEntry], state: MemoryStore?, commit: Index)
        case compaction(SnapshotMetadata)
    }

    private(set) var hardState: HardState
    /// Ascending from behind `compactedIndex`.
    private(set) var entries: [SimulatedEntry]
    private(set) var compactedIndex: Index = 0
    private(set) var compactedTerm: Term = 0
    /// The configuration in force there.
    private(set) var base: Configuration
    /// Entries whose bits flipped: their checksums show it to whoever reads them.
    private(set) var damaged: Set<Index> = []
    /// The state at its last commit.
    var state = MemoryStore()
    private var pending: [Pending] = []
    /// The commit index that the core had when it handed out the last write that is durable.
    private(set) var commitWhenSaved: Index = 1

    /// A founder's, after the first entry of a new cluster was stored.
    init(genesis: SimulatedEntry, _ configuration: Configuration) {
        hardState = HardState(term: 1, vote: nil, commit: 1)
        entries = [genesis]
        base = configuration
    }

    /// A newcomer's: everything comes from the others.
    init(joining configuration: Configuration) {
        hardState = HardState()
        entries = []
        base = configuration
        commitWhenSaved = 0
    }

    /// The configurations that a log starts again from.
    var configurations: [IndexedConfiguration] {
        let later = entries.compactMap { entry in
            entry.configuration.map { IndexedConfiguration(index: entry.header.index, configuration: $0) }
        }
        return [IndexedConfiguration(index: compactedIndex, configuration: base)] + later
    }

    mutating func damage(_ index: Index) { damaged.insert(index) }

    /// The lowest index that a write under way takes entries away from.
    var pendingTruncation: Index? {
        pending.compactMap { pending in
            if case .write(let write, _, _, _) = pending, write.truncates { write.entries.lowerBound } else { nil }
        }.min()
    }

    var lastIndex: Index { entries.last?.header.index ?? compactedIndex }

    func term(at index: Index) -> Term? { index == compactedIndex ? compactedTerm : entry(index)?.header.term }

    func entry(_ index: Index) -> SimulatedEntry? {
        guard index > compactedIndex, index <= lastIndex else { return nil }
        return entries[Int(index - compactedIndex) - 1]
    }

    mutating func enqueue(_ write: Write, entries: [SimulatedEntry], state: MemoryStore?, commit: Index) {
        pending.append(.write(write, entries: entries, state: state, commit: commit))
    }

    mutating func enqueueCompaction(_ metadata: SnapshotMetadata) { pending.append(.compaction(metadata)) }

    /// Makes everything through the write of this number durable.
    mutating func complete(through number: UInt64, mutant: Mutant?) {
        while let first = pending.first {
            if case .write(let write, _, _, _) = first, write.number > number { return }
            completeFirst(mutant)
        }
    }

    private mutating func completeFirst(_ mutant: Mutant?) {
        switch pending.removeFirst() {
        case .compaction(let metadata): compact(behind: metadata)
        case .write(let write, let new, let newState, let commit):
            commitWhenSaved = commit
            if let snapshot = write.snapshot, let newState {
                if write.keepsTail || mutant == .conflictingTailKept {
                    entries.removeAll { $0.header.index <= snapshot.index }
                } else {
                    entries.removeAll()
                }
                (compactedIndex, compactedTerm, base) = (snapshot.index, snapshot.term, snapshot.configuration)
                state = newState
                damaged.removeAll()
            }
            if write.truncates {
                entries.removeAll { $0.header.index >= write.entries.lowerBound }
                damaged = damaged.filter { $0 < write.entries.lowerBound }
            }
            entries += new
            hardState = write.hardState
        }
    }

    private mutating func compact(behind metadata: SnapshotMetadata) {
        guard metadata.index > compactedIndex else { return }
        entries.removeFirst(min(entries.count, Int(metadata.index - compactedIndex)))
        (compactedIndex, compactedTerm, base) = (metadata.index, metadata.term, metadata.configuration)
        damaged = damaged.filter { $0 > metadata.index }
    }

    /// Becomes that of a new cluster's only member, with what is there.
    mutating func startOver(alone configuration: Configuration) {
        let payload = SimulatedEntry.payload(configuration)
        let term = (entries.last?.header.term ?? compactedTerm) + 1
        let header = EntryHeader(
            index: lastIndex + 1, term: term, kind: .configuration, size: UInt32(28 + payload.readableBytes))
        entries.append(SimulatedEntry(header: header, payload: payload, configuration: configuration))
        hardState = HardState(term: term, vote: nil, commit: header.index)
        commitWhenSaved = header.index
    }

    /// Becomes that of a new cluster's only member, with this state, whose log begins behind `index`.
    mutating func begin(_ configuration: Configuration, state: MemoryStore, behind index: Index, _ term: Term) {
        (self.state, compactedIndex, compactedTerm, base) = (state, index, term, configuration)
        startOver(alone: configuration)
    }

    /// The power goes. `isFull`: there was no room for what was under way.
    mutating func crash(mutant: Mutant?, isFull: Bool, using generator: inout SeededGenerator) {
        if !isFull { for _ in 0..<Int.random(in: 0...pending.count, using: &generator) { completeFirst(mutant) } }
        pending = []
    }
}
