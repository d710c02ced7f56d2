import Driver
import Raft
import Synchronization
import Testing

@testable import FileTree
@testable import Node

@Suite("The exchange of states")
struct StateExchangeTests {
    private static let waiter = Waiter(connection: 1, requestID: 2)

    /// What was said of a replacement, in its order; nil: it is in use.
    private final class Words: Sendable {
        private let said = Mutex<[String?]>([])
        var all: [String?] { said.withLock { $0 } }

        func replacement(_ number: UInt64, index: Index, term: Term = 1) -> StateExchange.Replacement {
            StateExchange.Replacement(
                metadata: SnapshotMetadata(
                    index: index, term: term, configuration: Configuration(clusterID: 7, members: [])),
                number: number
            ) { word in self.said.withLock { $0.append(word) } }
        }
    }

    private static func applied(_ index: Index) -> Applied {
        var applied = Applied()
        applied.index = index
        return applied
    }

    /// In words that can be compared; declined replacements are told.
    private func said(_ actions: [StateExchange.Action]) -> [String] {
        actions.map { action in
            switch action {
            case .catchUp(let number): return "catch up \(number)"
            case .name(let number): return "name \(number)"
            case .adopt(let number): return "adopt \(number)"
            case .replace(let new):
                new.settled(nil)
                return "replace \(new.number)"
            case .remove(let number): return "remove \(number)"
            case .endCopy(let copy, let failure): return "end \(copy.number) \(failure == nil ? "done" : "failed")"
            case .decline(let new, let reason):
                new.settled(reason)
                return "decline \(new.number)"
            case .scrub: return "scrub"
            }
        }
    }

    private func expect(
        _ actions: [StateExchange.Action], _ words: [String], _ comment: Comment? = nil,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(said(actions) == words, comment, sourceLocation: sourceLocation)
    }

    private func copying() -> StateExchange {
        var exchange = StateExchange(number: 1, unused: nil)
        #expect(exchange.beginCopy(for: Self.waiter, bytes: 100, durable: 50, now: 0) == 2)
        return exchange
    }

    @Test("a copy catches up, is named, adopted, and the original goes when the copy is as durable")
    func copy() {
        var exchange = copying()
        #expect(exchange.isRewriting && exchange.copied == 50 && exchange.indexNamedNext == nil)
        #expect(exchange.beginCopy(for: Self.waiter, bytes: 1, durable: 1, now: 0) == nil)
        expect(exchange.copied(2, .success(Self.applied(60)), compacted: 40, applied: 1000), ["catch up 2"])
        expect(exchange.copied(2, .success(Self.applied(900)), compacted: 40, applied: 1000), ["name 2"])
        #expect(exchange.indexNamedNext == 900 && exchange.number == 1)
        expect(exchange.named(2, durable: 950), ["adopt 2"])
        #expect(exchange.number == 2)
        expect(exchange.settle(isSettled: false, durable: 990, completedWrite: 9), [])
        expect(exchange.settle(isSettled: true, durable: 949, completedWrite: 9), [])
        expect(exchange.settle(isSettled: true, durable: 950, completedWrite: 9), ["end 2 done", "remove 1"])
        #expect(!exchange.isRewriting && exchange.indexNamedNext == nil)
    }

    @Test("a copy that the log has outrun, or that can't be made, is removed; damage of the original is looked for")
    func failedCopies() {
        var exchange = copying()
        expect(
            exchange.copied(2, .success(Self.applied(60)), compacted: 61, applied: 70), ["remove 2", "end 2 failed"])
        exchange = copying()
        expect(
            exchange.copied(2, .failure(.corruptRow(table: 1)), compacted: 0, applied: 70),
            ["remove 2", "end 2 failed", "scrub"])
        exchange = copying()
        expect(exchange.copied(2, .failure(.store(28)), compacted: 0, applied: 70), ["remove 2", "end 2 failed"])
        // What is told of it later counts no more.
        expect(exchange.copied(2, .success(Self.applied(60)), compacted: 0, applied: 70), [])
        #expect(exchange.beginCopy(for: Self.waiter, bytes: 1, durable: 1, now: 0) == 3)
    }

    @Test("another member's state waits until the log reaches it, is named, and takes the place; the old one goes then")
    func replacement() {
        let words = Words()
        var exchange = StateExchange(number: 1, unused: nil)
        let number = exchange.allot()
        let new = words.replacement(number, index: 80)
        expect(exchange.offer(new, isWanted: true, compacted: 70), [])
        #expect(exchange.isReplacing && exchange.indexNamedNext == 80)
        expect(exchange.proceed(settled: 79, term: { _ in 1 }), [])
        expect(exchange.proceed(settled: 80, term: { _ in 1 }), ["name 2"])
        expect(exchange.proceed(settled: 81, term: { _ in 1 }), [])
        expect(exchange.named(2, durable: 0), ["replace 2"])
        #expect(exchange.number == 2 && words.all == [nil])
        expect(exchange.settle(isSettled: true, durable: 0, completedWrite: 0), ["remove 1"])
        expect(exchange.settle(isSettled: true, durable: 0, completedWrite: 0), [])
    }

    @Test("a replacement that is not needed, too old or of another course is declined and removed")
    func declined() {
        let words = Words()
        var exchange = StateExchange(number: 1, unused: nil)
        expect(
            exchange.offer(words.replacement(2, index: 80), isWanted: false, compacted: 0), ["remove 2", "decline 2"])
        expect(
            exchange.offer(words.replacement(3, index: 80), isWanted: true, compacted: 81), ["remove 3", "decline 3"])
        expect(exchange.offer(words.replacement(4, index: 80), isWanted: true, compacted: 0), [])
        expect(
            exchange.offer(words.replacement(5, index: 80), isWanted: true, compacted: 0), ["remove 5", "decline 5"])
        expect(exchange.proceed(settled: 80, term: { _ in 2 }), ["remove 4", "decline 4"])
        #expect(!exchange.isReplacing && words.all.count == 4 && !words.all.contains(nil))
    }

    @Test("a replacement ends a copy, but for one that the log is about to name: that comes first")
    func replacementOfCopy() {
        let words = Words()
        var exchange = copying()
        let new = words.replacement(exchange.allot(), index: 80)
        expect(exchange.offer(new, isWanted: true, compacted: 0), ["remove 2", "end 2 failed"])

        exchange = copying()
        _ = exchange.copied(2, .success(Self.applied(60)), compacted: 0, applied: 60)
        expect(exchange.offer(new, isWanted: true, compacted: 0), [])
        #expect(exchange.isReplacing && exchange.indexNamedNext == 60)
        expect(exchange.proceed(settled: 100, term: { _ in 1 }), [])
        expect(exchange.named(2, durable: 70), ["adopt 2", "end 2 failed"])
        expect(exchange.proceed(settled: 100, term: { _ in 1 }), ["name 3"])
        expect(exchange.named(3, durable: 70), ["replace 3"])
        expect(exchange.settle(isSettled: true, durable: 0, completedWrite: 0), ["remove 1", "remove 2"])
        #expect(exchange.number == 3)

        exchange = copying()
        _ = exchange.copied(2, .success(Self.applied(60)), compacted: 0, applied: 60)
        _ = exchange.named(2, durable: 70)
        expect(exchange.offer(new, isWanted: true, compacted: 0), ["end 2 failed"])
        expect(exchange.settle(isSettled: true, durable: 99, completedWrite: 0), ["remove 1"])
    }

    /// Every course that an exchange can be in, with what a snapshot of the leader's does to it.
    @Test("a leader's snapshot takes the place of all; what the log may name stays until its write is on the disk")
    func snapshot() {
        let words = Words()
        func naming() -> StateExchange {
            var exchange = copying()
            _ = exchange.copied(2, .success(Self.applied(60)), compacted: 0, applied: 60)
            return exchange
        }
        func adopting() -> StateExchange {
            var exchange = naming()
            _ = exchange.named(2, durable: 70)
            return exchange
        }
        func awaiting() -> StateExchange {
            var exchange = StateExchange(number: 1, unused: nil)
            _ = exchange.offer(words.replacement(exchange.allot(), index: 80), isWanted: true, compacted: 0)
            return exchange
        }
        func namingWithNext() -> StateExchange {
            var exchange = naming()
            _ = exchange.offer(words.replacement(exchange.allot(), index: 80), isWanted: true, compacted: 0)
            return exchange
        }
        func namingReplacement() -> StateExchange {
            var exchange = awaiting()
            _ = exchange.proceed(settled: 80, term: { _ in 1 })
            return exchange
        }
        let courses: [(StateExchange, at: [String], behind: [String])] = [
            (StateExchange(number: 1, unused: nil), [], ["remove 1"]),
            (StateExchange(number: 1, unused: 2), [], ["remove 1", "remove 2"]),
            (copying(), ["remove 2", "end 2 failed"], ["remove 1"]),
            (naming(), ["end 2 failed"], ["remove 1", "remove 2"]),
            (namingWithNext(), ["end 2 failed", "remove 3", "decline 3"], ["remove 1", "remove 2"]),
            (adopting(), ["end 2 failed"], ["remove 1", "remove 2"]),
            (awaiting(), ["remove 2", "decline 2"], ["remove 1"]),
            (namingReplacement(), ["decline 2"], ["remove 1", "remove 2"]),
        ]
        for (number, course) in courses.enumerated() {
            var exchange = course.0
            let new = exchange.allot()
            exchange.received(new)
            expect(exchange.install(by: 8), course.at, "course \(number)")
            #expect(exchange.number == new && exchange.takeUnused() == nil)
            // What the log says of the others comes late.
            expect(exchange.named(2, durable: 0), [], "course \(number)")
            expect(exchange.settle(isSettled: true, durable: 0, completedWrite: 7), [])
            expect(exchange.settle(isSettled: false, durable: 0, completedWrite: 8), [])
            expect(
                exchange.settle(isSettled: true, durable: 0, completedWrite: 8), course.behind,
                "course \(number)")
            #expect(exchange.indexNamedNext == nil && !exchange.isRewriting && !exchange.isReplacing)
        }
        #expect(!words.all.contains(nil))
    }

    @Test("a snapshot that the core had no use for is removed, and numbers are never given twice")
    func unused() {
        var exchange = StateExchange(number: 4, unused: 5)
        #expect(exchange.allot() == 6 && exchange.lastAllotted == 6)
        exchange.received(6)
        #expect(exchange.takeUnused() == 6 && exchange.takeUnused() == nil)
        #expect(exchange.allot() == 7 && exchange.number == 4)
    }

    @Test("who waits when the member ends is told")
    func end() {
        let words = Words()
        var exchange = StateExchange(number: 1, unused: nil)
        _ = exchange.offer(words.replacement(exchange.allot(), index: 80), isWanted: true, compacted: 0)
        expect(exchange.end(), ["decline 2"])
        expect(exchange.end(), [])
    }
}
