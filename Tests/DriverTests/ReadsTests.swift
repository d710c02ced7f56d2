import NIOCore
import Testing

@testable import Driver
@testable import Raft

@Suite("Reads on their way")
struct ReadsTests {
    private static func batch(
        _ reads: [String], deadline: Nanoseconds = 1000, isLease: Bool = false, at now: Nanoseconds
    )
        -> Reads.Batch
    {
        Reads.Batch(
            reads: reads.map { name in
                PendingRead(
                    kind: .linearizable, waiter: Waiter(connection: 1, requestID: 1), query: ByteBuffer(string: name),
                    deadline: deadline)
            }, isLease: isLease, askedAt: now)
    }

    private static func names(_ reads: [PendingRead]) -> [String] { reads.map { String(buffer: $0.query) } }

    private static func served(_ resolution: Reads.Resolution) -> [String]? {
        if case .serve(let reads) = resolution { names(reads) } else { nil }
    }

    @Test("a read waits for its answer, and then until everything up to that is handed out")
    func waiting() {
        var reads = Reads(context: 5)
        let first = reads.ask(Self.batch(["a", "b"], at: 1))
        let second = reads.ask(Self.batch(["c"], at: 2))
        #expect(first != second && reads.count == 3)
        #expect(Self.served(reads.resolve(ReadState(context: second, index: 7), handedOut: 7)) == ["c"])
        #expect(Self.served(reads.resolve(ReadState(context: first, index: 9), handedOut: 8)) == nil)
        #expect(reads.handedOut(8).isEmpty)
        #expect(Self.names(reads.handedOut(9)) == ["a", "b"] && reads.count == 0)
        // An answer to nothing that was asked.
        #expect(Self.served(reads.resolve(ReadState(context: 99, index: 1), handedOut: 9)) == nil)
    }

    @Test("without an index they are refused, those by lease with another word")
    func refused() {
        var reads = Reads(context: 0)
        for isLease in [false, true] {
            let context = reads.ask(Self.batch(["a"], isLease: isLease, at: 1))
            guard
                case .refuse(let refused, let reason) = reads.resolve(
                    ReadState(context: context, index: nil), handedOut: 0)
            else {
                Issue.record("it was not refused")
                continue
            }
            #expect(Self.names(refused) == ["a"] && reason == (isLease ? .noLease : .noLeader))
        }
    }

    @Test("what was confirmed a moment ago is fresh for as long")
    func freshness() {
        var reads = Reads(context: 0)
        #expect(!reads.isFresh(1_000_000, now: 5, handedOut: 10) && reads.isFresh(0, now: 5, handedOut: 10))
        let context = reads.ask(Self.batch(["a"], at: 100))
        _ = reads.resolve(ReadState(context: context, index: 10), handedOut: 10)
        #expect(reads.isFresh(50, now: 150, handedOut: 10))
        #expect(!reads.isFresh(50, now: 151, handedOut: 10))
        #expect(!reads.isFresh(50, now: 150, handedOut: 9))
    }

    @Test("whoever waits no longer is taken out, wherever it waits")
    func expiry() {
        var reads = Reads(context: 0)
        let waits = reads.ask(Self.batch(["a"], deadline: 10, at: 1))
        _ = reads.resolve(ReadState(context: waits, index: 5), handedOut: 4)
        _ = reads.ask(Self.batch(["b"], deadline: 20, at: 1))
        #expect(reads.expire(now: 10).isEmpty)
        #expect(Self.names(reads.expire(now: 11)) == ["a"])
        #expect(Self.names(reads.expire(now: 21)) == ["b"] && reads.count == 0)
        #expect(reads.handedOut(9).isEmpty)
    }

    @Test("a planted fault asks twice under one context, and the answer to the first question serves the second")
    func reused() {
        for (mutant, isServed) in [(nil, false), (Mutant.contextReused, true)] {
            var reads = Reads(context: 3)
            let first = reads.ask(Self.batch(["a"], at: 1), mutant: mutant)
            _ = reads.ask(Self.batch(["b"], at: 2), mutant: mutant)
            let early = Self.served(reads.resolve(ReadState(context: first, index: 1), handedOut: 1))
            #expect((early == ["b"]) == isServed)
        }
    }
}
