import Foundation
import NIOCore
import Raft
import Testing

@testable import FileTree

@Suite("The overlay store")
struct OverlayStoreTests {
    private static func withFolder(_ body: (String) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("overlay-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder.path)
    }

    private static func rows(_ store: borrowing some OrderedStore & ~Copyable, from key: [UInt8]) throws -> [[UInt8]] {
        var rows: [[UInt8]] = []
        try store.scan(from: key) { key, row in
            rows.append(key.withUnsafeBytes { Array($0) })
            rows.append(row.withUnsafeBytes { Array($0) })
            return rows.count < 120
        }
        return rows
    }

    private static func row(_ store: borrowing some OrderedStore & ~Copyable, _ key: [UInt8]) throws -> [UInt8]? {
        try store.read(key) { row in
            guard let row else { return nil }
            return row.withUnsafeBytes { Array($0) }
        }
    }

    @Test("whatever is changed, flushed and opened again, it reads as the store in memory does", arguments: 1...5)
    func agreesWithMemory(seed: UInt64) throws {
        try Self.withFolder { path in
            var generator = SeededGenerator(seed: seed)
            var memory = MemoryStore()
            var committed = memory
            for _ in 0..<4 {
                var store = try OverlayStore(StateEnvironment(path: path))
                for step in 0..<3000 {
                    // Few keys, of several lengths, so that buffers, tombstones and LMDB's rows overlap.
                    let number = UInt16.random(in: 0..<700, using: &generator)
                    let key =
                        [UInt8(truncatingIfNeeded: number % 7), UInt8(number >> 2 & 0xFF)]
                        + [UInt8](repeating: 3, count: Int(number % 3))
                    let weigh = { (row: RawSpan) in StateDigest.row(key: key.span.bytes, row: row, clusterVersion: 3) }
                    switch Int.random(in: 0..<20, using: &generator) {
                    case 0..<11:
                        let fill = UInt8.random(in: 0...255, using: &generator)
                        let write = { (row: UnsafeMutableRawBufferPointer) in
                            _ = row.initializeMemory(as: UInt8.self, repeating: fill)
                        }
                        let weights = try store.put(key, byteCount: Int(fill) + 1, weigh: weigh, fill: write)
                        let expected = try memory.put(key, byteCount: Int(fill) + 1, weigh: weigh, fill: write)
                        #expect(weights == expected)
                    case 11..<16:
                        let weight = try store.delete(key, weigh: weigh)
                        #expect(try weight == memory.delete(key, weigh: weigh))
                    case 16: #expect(try Self.row(store, key) == Self.row(memory, key), "step \(step)")
                    case 17: #expect(try Self.rows(store, from: key) == Self.rows(memory, from: key), "step \(step)")
                    case 18 where !store.isFlushing && step % 5 == 0:
                        try store.commit()
                        committed = memory
                    default: _ = try store.endFlush(waiting: step % 3 == 0)
                    }
                }
                _ = try store.endFlush(waiting: true)
                if Bool.random(using: &generator) {
                    try store.commit()
                    committed = memory
                    _ = try store.endFlush(waiting: true)
                }
                // The store ends here: what was handed to the flusher is written, what was not is lost.
                memory = committed
            }
            let store = try OverlayStore(StateEnvironment(path: path))
            #expect(try Self.rows(store, from: [0]) == Self.rows(memory, from: [0]))
        }
    }

    private static func apply(_ encode: (inout ByteBuffer) -> Void, to tree: DurableTree) throws -> Outcome? {
        var (command, answer) = (ByteBuffer(), ByteBuffer())
        encode(&command)
        try tree.apply(index: tree.applied.index + 1, term: 1, kind: .command, payload: command, answer: &answer)
        return Outcome(from: &answer)
    }

    @Test("commands that change many rows are flushed by their rows")
    func flushByRows() throws {
        try Self.withFolder { path in
            let tree = try DurableTree(path: path)
            func apply(_ encode: (inout ByteBuffer) -> Void) throws { _ = try Self.apply(encode, to: tree) }
            let files = DurableTree.flushRows + 1
            for number in 0..<files {
                let put = Put(path: try TreePath("/d/\(number)"), content: ByteBuffer())
                try apply { put.write(to: &$0) }
            }
            try tree.commit()
            let delete = Delete(path: try TreePath("/d"), isRecursive: true)
            try apply { delete.write(to: &$0) }
            let deleted = tree.applied.index
            while tree.applied.orphans > 0 {
                try apply { Reclaim().write(to: &$0) }
                // No time passes: nothing is flushed for its age.
                _ = try tree.keepUp(now: 0)
            }
            // The flush that began ends on its own thread.
            let end = ContinuousClock.now + .seconds(60)
            while tree.durable.index < deleted, ContinuousClock.now < end {
                sched_yield()
                _ = try tree.keepUp(now: 0)
            }
            #expect(tree.durable.index > deleted, "\(files) rows were not flushed")
        }
    }

    @Test("members of a cluster begin to flush at different commands, far from each other")
    func flushesTakeTurns() throws {
        let period = UInt64(DurableTree.flushCommands)
        var begun: [Index] = []
        for member: UInt64 in 1...5 {
            try Self.withFolder { path in
                let tree = try DurableTree(path: path, member: member)
                var answer = ByteBuffer()
                while tree.durable.index == 0 {
                    try tree.apply(
                        index: tree.applied.index + 1, term: 1, kind: .noOperation, payload: ByteBuffer(),
                        answer: &answer)
                    // No time passes: nothing is flushed for its age.
                    _ = try tree.keepUp(now: 0)
                }
                begun.append(tree.durable.index)
            }
        }
        #expect(begun.allSatisfy { $0 <= period })
        for (position, index) in begun.enumerated() {
            for other in begun[..<position] {
                let distance = max(index, other) - min(index, other)
                #expect(min(distance, period - distance) >= period / 9, "\(begun)")
            }
        }
    }

    @Test("the digest goes by another hash for rows that fill a buffer, are being written, and are written")
    func digestByVersion() throws {
        try Self.withFolder { path in
            let tree = try DurableTree(path: path)
            func apply(_ encode: (inout ByteBuffer) -> Void) throws {
                #expect(try Self.apply(encode, to: tree) == .done(revision: tree.applied.index))
            }
            func put(_ names: Range<Int>, _ content: String) throws {
                for name in names {
                    let put = Put(path: try TreePath("/\(name)"), content: ByteBuffer(string: content))
                    try apply { put.write(to: &$0) }
                }
            }
            // A snapshot has one.
            var configuration = ByteBuffer()
            configuration.writeString("any")
            var answer = ByteBuffer()
            try tree.apply(index: 1, term: 1, kind: .configuration, payload: configuration, answer: &answer)
            try put(0..<100, "written")
            try put(0..<9, String(repeating: "z", count: 2000))
            try tree.commit()
            try put(50..<150, "being written")
            for name in 0..<5 {
                let delete = Delete(path: try TreePath("/\(name)"))
                try apply { delete.write(to: &$0) }
            }
            // It is older than a flush may be.
            _ = try tree.keepUp(now: 0)
            _ = try tree.keepUp(now: DurableTree.flushAgeMax)
            try put(100..<200, "filling")
            for name in 5..<60 {
                let delete = Delete(path: try TreePath("/\(name)"))
                try apply { delete.write(to: &$0) }
            }
            let before = tree.applied.digest
            try apply { RaiseVersion(to: 3).write(to: &$0) }
            #expect(tree.applied.digest != before)
            try put(90..<110, "changed later")
            try tree.commit()
            var audit = StateAudit()
            let view = try StateView(tree.environment)
            try view.forEach { key, row throws(StateError) in try audit.add(key: key, row: row) }
            #expect(try audit.finish() == tree.applied)
        }
    }

    @Test("rows in memory keep the order of bytes through splits and removals", arguments: 1...3)
    func sortedRows(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var rows = SortedRows<Int>()
        var model: [[UInt8]: Int] = [:]
        for step in 0..<6000 {
            let number = Int.random(in: 0..<2000, using: &generator)
            // Some share what is compared first, some are the start of others.
            let key =
                [UInt8](repeating: 7, count: number % 3 * 8) + [UInt8(number >> 8), UInt8(number & 0xFF)]
                + [UInt8](repeating: 0, count: number % 2)
            if Int.random(in: 0..<3, using: &generator) > 0 {
                #expect(rows[key] == model.updateValue(step, forKey: key))
                rows.set(key, step)
            } else {
                rows.remove(key)
                model[key] = nil
            }
        }
        var found: [[UInt8]] = []
        var position = rows.start
        while let row = rows[position] {
            found.append(row.key)
            #expect(row.value == model[row.key])
            position = rows.position(after: position)
        }
        #expect(found == model.keys.sorted { $0.lexicographicallyPrecedes($1) })
        #expect(rows.count == model.count)
    }
}
