import FileTree
import NIOCore
import Raft

/// An entry with its payload, as a log holds it.
struct SimulatedEntry {
    var header: EntryHeader
    var payload: ByteBuffer
}

/// A member's disk: what a power cut would leave, and what is on its way there.
///
/// Writes reach it in order and each as a whole, as commits of the log's environment do. A crash loses the rest, but one
/// that was under way may have become durable without anybody having been told.
struct SimulatedDisk {
    private enum Pending {
        case write(Write, entries: [SimulatedEntry], state: MemoryStore?, commit: Index)
        case compaction(index: Index, term: Term)
    }

    private(set) var hardState: HardState
    /// Ascending from behind `compactedIndex`.
    private(set) var entries: [SimulatedEntry]
    private(set) var compactedIndex: Index = 0
    private(set) var compactedTerm: Term = 0
    /// The state at its last commit.
    var state = MemoryStore()
    private var pending: [Pending] = []
    /// The commit index that the core had when it handed out the last write that is durable.
    private(set) var commitWhenSaved: Index = 1

    init(genesis: SimulatedEntry) {
        hardState = HardState(term: 1, vote: nil, commit: 1)
        entries = [genesis]
    }

    var lastIndex: Index { entries.last?.header.index ?? compactedIndex }

    func term(at index: Index) -> Term? {
        if index == compactedIndex { return compactedTerm }
        guard index > compactedIndex, index <= lastIndex else { return nil }
        return entries[Int(index - compactedIndex) - 1].header.term
    }

    mutating func enqueue(_ write: Write, entries: [SimulatedEntry], state: MemoryStore?, commit: Index) {
        pending.append(.write(write, entries: entries, state: state, commit: commit))
    }

    mutating func enqueueCompaction(index: Index, term: Term) {
        pending.append(.compaction(index: index, term: term))
    }

    /// Makes everything through the write of this number durable.
    mutating func complete(through number: UInt64, mutant: Mutant?) {
        while let first = pending.first {
            if case .write(let write, _, _, _) = first, write.number > number { return }
            completeFirst(mutant)
        }
    }

    private mutating func completeFirst(_ mutant: Mutant?) {
        switch pending.removeFirst() {
        case .compaction(let index, let term): compact(through: index, term: term)
        case .write(let write, let new, let newState, let commit):
            commitWhenSaved = commit
            if let snapshot = write.snapshot, let newState {
                if write.keepsTail || mutant == .conflictingTailKept {
                    entries.removeAll { $0.header.index <= snapshot.index }
                } else {
                    entries.removeAll()
                }
                (compactedIndex, compactedTerm) = (snapshot.index, snapshot.term)
                state = newState
            }
            if write.truncates { entries.removeAll { $0.header.index >= write.entries.lowerBound } }
            entries += new
            hardState = write.hardState
        }
    }

    private mutating func compact(through index: Index, term: Term) {
        guard index > compactedIndex else { return }
        entries.removeFirst(min(entries.count, Int(index - compactedIndex)))
        (compactedIndex, compactedTerm) = (index, term)
    }

    /// The power goes.
    mutating func crash(mutant: Mutant?, using generator: inout SeededGenerator) {
        for _ in 0..<Int.random(in: 0...pending.count, using: &generator) { completeFirst(mutant) }
        pending = []
    }
}
