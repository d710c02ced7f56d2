import CLMDB
import Foundation
import Testing

@testable import LMDB

@Suite("LMDB")
struct LMDBTests {
    /// An environment in a folder of its own, which goes with it.
    private final class Scratch {
        let folder: URL
        let environment: Environment
        let database: Database

        init() throws {
            folder = FileManager.default.temporaryDirectory.appendingPathComponent("lmdb-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            environment = try Environment(path: folder.path, mapSize: 1 << 26, databases: 2)
            database = try environment.database("test")
        }

        deinit { try? FileManager.default.removeItem(at: folder) }

        func put(_ pairs: [(String, String)], append: Bool = false) throws(LMDBError) {
            var transaction = try environment.beginWrite()
            for (key, value) in pairs {
                let (key, value) = (Array(key.utf8), Array(value.utf8))
                try transaction.put(key.span.bytes, value.span.bytes, in: database, append: append)
            }
            try transaction.commit()
        }

        func get(_ key: String) throws -> String? {
            let transaction = try environment.beginRead()
            let key = Array(key.utf8)
            guard let value = try transaction.get(key.span.bytes, in: database) else { return nil }
            return value.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
        }
    }

    @Test("what went wrong first in a transaction is what is reported, with what was being done")
    func firstError() throws {
        let scratch = try Scratch()
        let (key, large) = (Array("k".utf8), [UInt8](repeating: 1, count: 1 << 27))
        var transaction = try scratch.environment.beginWrite()
        var errors: [LMDBError] = []
        for _ in 0..<3 {
            do throws(LMDBError) { try transaction.put(key.span.bytes, large.span.bytes, in: scratch.database) } catch {
                errors.append(error)
            }
        }
        do throws(LMDBError) { try transaction.commit() } catch { errors.append(error) }
        #expect(errors == [.mapFull, .mapFull, .mapFull, .mapFull])
        #expect(errors.allSatisfy { $0.operation == "a row was written" }, "\(errors)")
    }

    @Test("the table of readers has room of its own on the disk before it is mapped")
    func readersRoom() throws {
        let scratch = try Scratch()
        var status = stat()
        #expect(stat(scratch.folder.appendingPathComponent("lock.mdb").path, &status) == 0)
        #expect(status.st_size >= 8192 && status.st_blocks * 512 >= 8192)
    }

    @Test("an error of the disk's names itself")
    func namedErrors() {
        #expect(
            LMDBError(code: ENOSPC, operation: "it committed").description
                == "the disk is full while it committed: No space left on device")
        #expect(LMDBError(code: EDQUOT).isFull && !LMDBError(code: EIO).isFull && !LMDBError.mapFull.isFull)
    }

    @Test("a list of free pages that is damaged is said to be, and ends nobody")
    func damagedFreeList() throws {
        let scratch = try Scratch()
        let text = String(repeating: "x", count: 1500)
        try scratch.put((0..<200).map { ("\($0)", text) })
        try scratch.put((0..<200).map { ("\($0)", text + "y") })
        let whole = try scratch.environment.reusableBytes()
        #expect(whole > 100 << 12)
        // A count, and so many page numbers in descending order.
        let file = scratch.folder.appendingPathComponent("data.mdb")
        var data = try Data(contentsOf: file)
        var flipped = 0
        for offset in stride(from: 0, to: data.count - 8, by: 2) {
            let word = { (position: Int) in
                data.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset + 8 * position, as: Int.self) }
            }
            let count = word(0)
            guard (20..<400).contains(count), offset + 8 * count < data.count - 8,
                (1..<count).allSatisfy({ word($0) > word($0 + 1) }), word(1) < 10_000, word(count) > 1
            else { continue }
            data[offset + 7] ^= 0x40
            flipped += 1
        }
        try #require(flipped > 0)
        let folder = scratch.folder.appendingPathComponent("damaged")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try data.write(to: folder.appendingPathComponent("data.mdb"))
        let damaged = try Environment(path: folder.path, mapSize: 1 << 26, databases: 2)
        #expect(throws: LMDBError(code: MDB_CORRUPTED)) { try damaged.reusableBytes() }
    }

    @Test("what was committed is read back, what was not is gone with its transaction")
    func commitAndAbort() throws {
        let scratch = try Scratch()
        try scratch.put([("kept", "1")])
        do {
            var transaction = try scratch.environment.beginWrite()
            let key = Array("lost".utf8)
            try transaction.put(key.span.bytes, key.span.bytes, in: scratch.database)
        }
        #expect(try scratch.get("kept") == "1")
        #expect(try scratch.get("lost") == nil)
    }

    @Test("a file that half fills its map gets a larger one when it is opened")
    func mapGrowth() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("lmdb-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        /// Writes MiB after MiB, and answers with how many there was room for.
        func fill(_ prefix: String) throws -> Int {
            let environment = try Environment(path: folder.path, mapSize: 8 << 20, databases: 2)
            let database = try environment.database("test")
            let value = [UInt8](repeating: 7, count: 1 << 20)
            for number in 0..<12 {
                do throws(LMDBError) {
                    var transaction = try environment.beginWrite()
                    try transaction.put(Array("\(prefix)\(number)".utf8).span.bytes, value.span.bytes, in: database)
                    try transaction.commit()
                } catch {
                    return number
                }
            }
            return 12
        }
        let first = try fill("a")
        #expect((5..<8).contains(first))
        #expect(try fill("b") == 12)
        let environment = try Environment(path: folder.path, mapSize: 8 << 20, databases: 2)
        let database = try environment.database("test")
        let transaction = try environment.beginRead()
        #expect(try transaction.count(database) == first + 12)
    }

    @Test("an environment knows when its file is no longer the one under its name")
    func inPlace() throws {
        let scratch = try Scratch()
        try scratch.put([("a", "1")])
        #expect(scratch.environment.isInPlace)
        try FileManager.default.removeItem(at: scratch.folder)
        #expect(!scratch.environment.isInPlace)
    }

    @Test("the oldest reader is known by the commits since its view")
    func oldestReader() throws {
        let scratch = try Scratch()
        try scratch.put([("a", "1")])
        #expect(scratch.environment.oldestReaderCommits == 0)
        let reader = try scratch.environment.beginRead()
        try scratch.put([("b", "1")])
        try scratch.put([("c", "1")])
        #expect(scratch.environment.oldestReaderCommits == 2)
        #expect(try reader.count(scratch.database) == 1)
    }

    @Test("a cursor goes through the keys in the order of their bytes")
    func cursorOrder() throws {
        let scratch = try Scratch()
        try scratch.put([("b", "2"), ("a", "1"), ("c", String(repeating: "3", count: 9000))])
        let transaction = try scratch.environment.beginRead()
        var found: [String] = []
        var cursor = try transaction.cursor(scratch.database)
        let from = Array("aa".utf8)
        var isThere = try cursor.seek(from.span.bytes)
        while isThere {
            found.append(cursor.key.withUnsafeBytes { String(decoding: $0, as: UTF8.self) })
            isThere = try cursor.next()
        }
        #expect(found == ["b", "c"])
    }

    @Test("appending a smaller key is an error that carries LMDB's code")
    func appendOrder() throws {
        let scratch = try Scratch()
        #expect(throws: LMDBError.keyExists) { try scratch.put([("b", ""), ("a", "")], append: true) }
    }

    @Test("a reader keeps its view while a writer goes on")
    func readersView() throws {
        let scratch = try Scratch()
        try scratch.put([("k", "old")])
        let transaction = try scratch.environment.beginRead()
        try scratch.put([("k", "new")])
        let key = Array("k".utf8)
        let seen = try transaction.get(key.span.bytes, in: scratch.database)?.withUnsafeBytes { Array($0) }
        #expect(seen == Array("old".utf8))
        #expect(try scratch.get("k") == "new")
    }
}
