import DequeModule
import FileTree
import NIOCore
import Raft

/// Commands on their way into a leader's log, and who waits for what they come to.
struct Proposals {
    /// Whose command it is.
    enum Proposer {
        case waiter(Waiter)
        /// The leader's own: a step of reclaiming, or a newer cluster version.
        case reclaiming, raising
    }

    struct Offer {
        var command: ByteBuffer
        var proposer: Proposer
        /// When nobody waits any more, in nanoseconds.
        var deadline: Nanoseconds
    }

    /// Not proposed yet.
    private(set) var offers: [Offer] = []
    /// Proposed by this leader and not yet handed out to be executed, in the order of the log.
    private var underWay: Deque<(index: Index, waiter: Waiter)> = []

    var isEmpty: Bool { offers.isEmpty && underWay.isEmpty }
    var count: Int { offers.count + underWay.count }

    mutating func offer(_ offer: Offer) { offers.append(offer) }

    mutating func takeOffers() -> [Offer] {
        defer { offers = [] }
        return offers
    }

    /// Takes out those that nobody waits for any more.
    mutating func expire(now: Nanoseconds) -> [Waiter] {
        let late = offers.filter { $0.deadline < now }
        if !late.isEmpty { offers.removeAll { $0.deadline < now } }
        return late.compactMap(\.waiter)
    }

    mutating func proposed(_ waiter: Waiter, at index: Index) { underWay.append((index, waiter)) }

    /// Who waits for these entries, which are about to be executed.
    mutating func takeWaiters(_ range: Range<Index>) -> [Waiter?] {
        guard !underWay.isEmpty else { return [] }
        precondition(
            underWay.first.map { $0.index >= range.lowerBound } ?? true,
            "a command was executed, and whoever waits for it was not told")
        return range.map { underWay.first?.index == $0 ? underWay.removeFirst().waiter : nil }
    }

    /// All that are under way: nobody knows what comes of them.
    mutating func abandon() -> [Waiter] {
        defer { underWay = [] }
        return underWay.map(\.waiter)
    }
}

extension Proposals.Offer {
    /// A leader's own step of emptying an unlinked directory.
    static var reclaim: Self {
        var command = ByteBuffer()
        Reclaim().write(to: &command)
        return Self(command: command, proposer: .reclaiming, deadline: .max)
    }

    /// A leader's own word that a newer cluster version is in force.
    static func raise(to version: UInt16) -> Self {
        var command = ByteBuffer()
        RaiseVersion(to: version).write(to: &command)
        return Self(command: command, proposer: .raising, deadline: .max)
    }

    var waiter: Waiter? {
        if case .waiter(let waiter) = proposer { waiter } else { nil }
    }
}
