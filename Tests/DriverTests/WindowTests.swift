import NIOCore
import Raft
import Testing
import WireProtocol

@testable import Driver

@Suite("The window of entries")
struct WindowTests {
    private static func record(_ index: Index, _ term: Term, _ text: String = "") -> ByteBuffer {
        var record = ByteBuffer()
        let start = record.beginRecord(.command, index: index, term: term, length: text.utf8.count)
        record.writeString(text)
        record.sealRecord(at: start)
        return record
    }

    private static func window(_ range: ClosedRange<Index>, term: Term = 1) -> EntryWindow {
        var window = EntryWindow(behind: range.lowerBound - 1)
        for index in range { window.append(record(index, term)) }
        return window
    }

    private static func terms(_ window: EntryWindow) throws -> [Term] {
        try window.records(in: window.first..<window.end).map { record in
            var record = record
            return try EntryRecord(from: &record).header.term
        }
    }

    /// What a follower that holds 4 to 7 keeps when 6 to 8 of a newer term come.
    private static func overwritten(_ mutant: Mutant? = nil) throws -> [Term] {
        var window = window(4...7)
        let new = (5...8).map { EntryHeader(index: $0, term: 2, kind: .command, size: 28) }
        let bytes = new.reduce(into: ByteBuffer()) { $0.writeImmutableBuffer(record($1.index, 2)) }
        window.take(new, from: 6, in: bytes, mutant: mutant)
        return try terms(window)
    }

    @Test("records of a newer leader take the place of those that they overwrite, and no others")
    func overwriting() throws {
        #expect(try Self.overwritten() == [1, 1, 2, 2, 2])
        #expect(try Self.overwritten(.overwrittenRecordsKept) == [1, 1, 1, 1, 2])
    }

    @Test("it forgets from the front, and begins anew behind a snapshot, with or without what follows")
    func forgetting() throws {
        var window = Self.window(4...7)
        window.forget(before: 6)
        #expect(window.first == 6 && window.end == 8)
        window.forget(before: 3)
        #expect(window.first == 6)
        var kept = window
        kept.begin(behind: 6, keepsTail: true)
        #expect(kept.first == 7 && kept.end == 8)
        window.begin(behind: 6, keepsTail: false)
        #expect(window.first == 7 && window.isEmpty)
        var empty = Self.window(4...7)
        empty.truncate(from: 4)
        #expect(empty.isEmpty && empty.end == 4)
    }

    @Test("new commands become records that everybody can check, in buffers that few share")
    func commands() throws {
        var window = EntryWindow(behind: 9)
        let commands = (0..<5).map { ByteBuffer(repeating: UInt8($0), count: 100_000) }
        let sizes = window.append(commands, from: 10, term: 3) { record, command in
            record.setInteger(UInt8(7), at: command)
        }
        #expect(sizes == Array(repeating: 100_028, count: 5) && window.end == 15)
        for (offset, record) in window.records(in: 10..<15).enumerated() {
            var rest = record
            let read = try EntryRecord(from: &rest)
            #expect(read.header.index == UInt64(10 + offset) && read.header.term == 3)
            #expect(Array(read.payload.readableBytesView.prefix(2)) == [7, UInt8(offset)])
            #expect(record.storageCapacity <= 512 << 10)
        }
    }
}
