import DequeModule
import Raft

/// Reads on their way to an index that they may not miss: each batch asks the core under a context of its own, and waits then
/// until everything up to the answer is handed out to be executed (section 6.4 of the thesis).
struct Reads {
    struct Batch {
        var reads: [PendingRead]
        let isLease: Bool
        let askedAt: Nanoseconds
    }

    /// What comes of an answer.
    enum Resolution {
        case serve([PendingRead])
        case refuse([PendingRead], ReadRefusal)
        case waits
    }

    private var lastContext: UInt64
    private var asked: [UInt64: Batch] = [:]
    private var waiting: Deque<(index: Index, batch: Batch)> = []
    /// The last confirmed read index, and when it was asked for: what bounded stale reads go by.
    private var fresh: (index: Index, askedAt: Nanoseconds)?

    /// - Parameter context: where contexts begin. Another in each life of the process, so that an answer to an earlier one's
    ///   question fits none.
    init(context: UInt64) { lastContext = context }

    var count: Int { asked.values.reduce(0) { $0 + $1.reads.count } + waiting.reduce(0) { $0 + $1.batch.reads.count } }

    /// - Returns: the context to ask the core under.
    mutating func ask(_ batch: Batch, mutant: Mutant? = nil) -> UInt64 {
        if mutant != .contextReused { lastContext += 1 }
        asked[lastContext] = batch
        return lastContext
    }

    mutating func resolve(_ state: ReadState, handedOut: Index) -> Resolution {
        guard let batch = asked.removeValue(forKey: state.context) else { return .waits }
        guard let index = state.index else {
            return .refuse(batch.reads, batch.isLease ? .noLease : .noLeader)
        }
        if batch.askedAt > fresh?.askedAt ?? 0 { fresh = (index, batch.askedAt) }
        if index <= handedOut { return .serve(batch.reads) }
        waiting.append((index, batch))
        return .waits
    }

    /// The reads that wait for nothing more, now that everything up to `index` is handed out.
    mutating func handedOut(_ index: Index) -> [PendingRead] {
        var ready: [PendingRead] = []
        while let next = waiting.first, next.index <= index {
            ready += next.batch.reads
            waiting.removeFirst()
        }
        return ready
    }

    /// Whether what was handed out is no older than `age`, by what is known; any age will do where it is 0.
    func isFresh(_ age: Nanoseconds, now: Nanoseconds, handedOut: Index) -> Bool {
        age == 0 || fresh.map { now - min(now, $0.askedAt) <= age && $0.index <= handedOut } ?? false
    }

    /// Those whose clients wait no longer.
    mutating func expire(now: Nanoseconds) -> [PendingRead] {
        guard !asked.isEmpty || !waiting.isEmpty else { return [] }
        var late: [PendingRead] = []
        func keep(_ batch: inout Batch) {
            late += batch.reads.filter { $0.deadline < now }
            batch.reads.removeAll { $0.deadline < now }
        }
        for context in asked.keys.sorted() {
            guard var batch = asked[context] else { continue }
            keep(&batch)
            asked[context] = batch.reads.isEmpty ? nil : batch
        }
        for position in waiting.indices { keep(&waiting[position].batch) }
        waiting.removeAll { $0.batch.reads.isEmpty }
        return late
    }
}
