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
