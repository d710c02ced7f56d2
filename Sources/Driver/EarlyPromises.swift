import Raft

/// Planted faults in the holding of promises: which of them leave before their writes are on the disk.
struct EarlyPromises {
    private let mutant: Mutant
    /// The terms of the entries that writes under way bring, and of those that reached the disk at any time.
    private var underWay: [(write: UInt64, terms: [Index: Term])] = []
    private var saved: [Index: Term] = [:]

    /// Nil for a fault of something else.
    init?(_ mutant: Mutant?) {
        switch mutant {
        case .acknowledgedBeforeSync?, .voteNotSaved?, .completionByIndexAndTerm?: self.mutant = mutant ?? .voteNotSaved
        default: return nil
        }
    }

    mutating func handedOut(_ write: Write, _ log: LogView) {
        guard mutant == .completionByIndexAndTerm else { return }
        let terms = write.entries.compactMap { index in log.term(at: index).map { (index, $0) } }
        underWay.append((write.number, Dictionary(uniqueKeysWithValues: terms)))
    }

    mutating func completed(_ write: UInt64) {
        while let first = underWay.first, first.write <= write {
            saved.merge(first.terms) { $1 }
            underWay.removeFirst()
        }
    }

    func releases(_ message: Message, _ log: LogView) -> Bool {
        switch message.body {
        // An entry that was overwritten and came back has the index and the term of the one that was there before.
        case .appendResponse(.accepted(let match)) where mutant == .completionByIndexAndTerm:
            log.term(at: match).map { saved[match] == $0 } ?? false
        case .appendResponse: mutant == .acknowledgedBeforeSync
        case .vote, .voteResponse: mutant == .voteNotSaved
        default: false
        }
    }
}
