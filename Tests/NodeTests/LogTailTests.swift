import Testing

@testable import Node

@Suite("The log's tail")
struct LogTailTests {
    @Test("it keeps so many entries, and never gives up what the durable state lacks")
    func entries() {
        var tail = LogTail(entriesMax: 100, lastIndex: 0)
        tail.append(through: 1000, bytes: 1000)
        #expect(tail.compactionPoint(durable: 1000, compacted: 0, needed: nil) == 900)
        #expect(tail.compactionPoint(durable: 500, compacted: 0, needed: nil) == 500)
        #expect(tail.compactionPoint(durable: 1000, compacted: 899, needed: nil) == nil)
        #expect(tail.compactionPoint(durable: 1000, compacted: 0, needed: 300) == 300)
    }

    @Test("it keeps no more than so many bytes, and more for a peer that is being brought level, within a bound")
    func bytes() {
        var tail = LogTail(entriesMax: 1000, bytesMax: 10 << 20, heldBytesMax: 50 << 20, lastIndex: 0)
        for index in 1...100 { tail.append(through: UInt64(index), bytes: 1 << 20) }
        #expect(tail.compactionPoint(durable: 100, compacted: 0, needed: 0) == 50)
        #expect(tail.compactionPoint(durable: 100, compacted: 50, needed: 70) == 70)
        #expect(tail.compactionPoint(durable: 100, compacted: 70, needed: 0) == nil)
        #expect(tail.compactionPoint(durable: 100, compacted: 70, needed: nil) == 90)
    }

    @Test("a truncated tail no longer counts")
    func truncation() {
        var tail = LogTail(entriesMax: 10, lastIndex: 0)
        for index in 1...100 { tail.append(through: UInt64(index), bytes: 1) }
        tail.truncate(from: 61)
        #expect(tail.compactionPoint(durable: 60, compacted: 0, needed: nil) == 50)
    }
}
