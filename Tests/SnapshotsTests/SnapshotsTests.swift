import Deflate
import Foundation
import NIOCore
import Raft
import Synchronization
import Testing
import WireProtocol

@testable import FileTree
@testable import Snapshots

@Suite("Snapshots")
struct SnapshotsTests {
    /// A folder of its own, which goes with it.
    private final class Scratch {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("snapshot-\(UUID().uuidString)")

        init() throws { try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true) }

        deinit { try? FileManager.default.removeItem(at: folder) }

        func state(_ name: String) throws -> String {
            let path = folder.appendingPathComponent(name).path
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            return path
        }

        var file: String { folder.appendingPathComponent("snapshot").path }
    }

    private static let configuration = Configuration(
        clusterID: 0x0102, members: [Member(id: 1, peer: PeerID(0x0A), address: "a:1")])

    /// A state with an inline file, a large one, and many rows of the given size.
    private static func tree(at path: String, files: Int, bytes: Int) throws -> DurableTree {
        let tree = try DurableTree(path: path)
        var answer = ByteBuffer()
        var payload = ByteBuffer()
        configuration.write(to: &payload)
        try tree.apply(index: 1, term: 1, kind: .configuration, payload: payload, answer: &answer)
        for number in 0..<files {
            var command = ByteBuffer()
            let content = ByteBuffer(bytes: (0..<bytes).map { UInt8(truncatingIfNeeded: $0 &* number) })
            Put(path: try TreePath("/d\(number % 3)/f\(number)"), content: content, mtime: 7).write(to: &command)
            try tree.apply(
                index: UInt64(number + 2), term: 2, kind: .command, payload: command, answer: &answer)
        }
        try tree.commit()
        return tree
    }

    private static func apply(_ write: (inout ByteBuffer) -> Void, to tree: DurableTree) throws {
        var (command, answer) = (ByteBuffer(), ByteBuffer())
        write(&command)
        try tree.apply(index: tree.applied.index + 1, term: 2, kind: .command, payload: command, answer: &answer)
    }

    private static func fixture(_ name: String) -> String {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("fixtures/snapshots/\(name)").path
    }

    /// The state that the fixture holds: what `source` is, and is written as.
    private static func copy(of fixture: String, like source: DurableTree, in scratch: Scratch) throws -> DurableTree {
        let written = try pieces(of: source, in: scratch)
        let pieces = try pieces(of: Self.fixture(fixture))
        #expect(written.first == pieces.first)
        let path = try scratch.state("copy")
        #expect(try receive(pieces, into: path))
        let copy = try DurableTree(path: path)
        #expect(copy.applied == source.applied)
        return copy
    }

    private static func pieces(of tree: DurableTree, in scratch: Scratch) throws -> [ByteBuffer] {
        let view = try StateView(tree.environment)
        return try pieces(of: view, in: scratch)
    }

    private static func pieces(of view: borrowing StateView, in scratch: Scratch) throws -> [ByteBuffer] {
        let spool = try Spool(of: view, in: scratch.folder.path, reserve: 0)
        #expect(try spool.piece(0) == nil)
        spool.fill(from: view)
        var pieces: [ByteBuffer] = []
        while let piece = try spool.piece(UInt32(pieces.count)) {
            pieces.append(piece.bytes)
            if piece.isLast { return pieces }
        }
        throw SnapshotError.corrupt
    }

    @Test("what does not compress is stored, and all comes back", arguments: [0, 100, 200_000, 1 << 20])
    func storedOrCompressed(size: Int) throws {
        var random = SeededGenerator(seed: 11)
        let noise = (0..<size).map { _ in UInt8.random(in: 0...255, using: &random) }
        for (content, most) in [(noise, size + 1000), ([UInt8](repeating: 7, count: size), size / 50 + 100)] {
            let compressed = try content.withUnsafeBytes { try Deflate.compress($0) }
            #expect(compressed.count <= most)
            #expect(try compressed.withUnsafeBytes { try Deflate.decompress($0, byteCount: size) } == content)
        }
    }

    @Test("who waits for a piece is called when it is there, in whatever order it was asked for")
    func waitingForPieces() throws {
        let scratch = try Scratch()
        let tree = try Self.tree(at: scratch.state("a"), files: 8, bytes: 1 << 20)
        let view = try StateView(tree.environment)
        let spool = try Spool(of: view, in: scratch.folder.path, reserve: 0)
        let called = Mutex<[UInt32: Bool]>([:])
        for number in [5, 0, 3, 1] as [UInt32] {
            spool.whenAvailable(number) {
                let isThere = (try? spool.piece(number)) != nil
                called.withLock { $0[number] = isThere }
            }
        }
        #expect(called.withLock { $0 }.isEmpty)
        spool.fill(from: view)
        #expect(called.withLock { $0 } == [0: true, 1: true, 3: true, 5: true])
    }

    private static func pieces(of path: String) throws -> [ByteBuffer] {
        let file = try SnapshotFile(path: path)
        var pieces: [ByteBuffer] = []
        while let next = try file.next() { pieces.append(next.bytes) }
        return pieces
    }

    /// Receives the pieces as a member does; true when the snapshot was whole.
    private static func receive(
        _ pieces: [ByteBuffer], into path: String, clusterID: UInt64 = 0x0102, reserve: UInt64 = 0
    ) throws -> Bool {
        guard let header = pieces.first else { return false }
        let receiver = try SnapshotReceiver(header: header, clusterID: clusterID, into: path, reserve: reserve)
        var isWhole = false
        for piece in pieces.dropFirst() { isWhole = try receiver.receive(piece) }
        return isWhole
    }

    @Test("neither a snapshot nor the state that is built from one takes what is to stay free of the disk")
    func reserve() throws {
        let scratch = try Scratch()
        let source = try Self.tree(at: scratch.state("source"), files: 9, bytes: 900_000)
        let pieces = try Self.pieces(of: source, in: scratch)
        #expect(throws: SnapshotError.state(.store(ENOSPC))) {
            try Self.receive(pieces, into: scratch.state("copy"), reserve: .max)
        }
        let view = try StateView(source.environment)
        let spool = try Spool(of: view, in: scratch.folder.path, reserve: .max)
        spool.fill(from: view)
        #expect(throws: SnapshotError.file(ENOSPC)) { try spool.piece(1) }
    }

    @Test("a state comes out of its snapshot as it went in", arguments: [(0, 0), (40, 900), (9, 400_000)])
    func roundTrip(files: Int, bytes: Int) throws {
        let scratch = try Scratch()
        let source = try Self.tree(at: scratch.state("source"), files: files, bytes: bytes)
        let pieces = try Self.pieces(of: source, in: scratch)
        let header = try SnapshotHeader(#require(pieces.first))
        #expect(header.metadata.index == source.applied.index)
        #expect(header.metadata.configuration == Self.configuration)
        #expect(pieces.count >= 3)
        let path = try scratch.state("copy")
        #expect(try Self.receive(pieces, into: path))
        let copy = try DurableTree(path: path)
        #expect(copy.applied == source.applied)
        for number in 0..<files {
            var query = ByteBuffer()
            Query.get(try TreePath("/d\(number % 3)/f\(number)")).write(to: &query)
            var (expected, actual) = (ByteBuffer(), ByteBuffer())
            try source.answer(query, into: &expected)
            try copy.answer(query, into: &actual)
            #expect(expected == actual)
        }
    }

    @Test("writes that go on while a snapshot is taken are not in it")
    func consistentView() throws {
        let scratch = try Scratch()
        let tree = try Self.tree(at: scratch.state("source"), files: 5, bytes: 10)
        let before = tree.applied
        let view = try StateView(tree.environment)
        var answer = ByteBuffer()
        var command = ByteBuffer()
        Put(path: try TreePath("/late"), content: ByteBuffer(string: "x")).write(to: &command)
        try tree.apply(index: before.index + 1, term: 2, kind: .command, payload: command, answer: &answer)
        try tree.commit()
        let path = try scratch.state("copy")
        #expect(try Self.receive(Self.pieces(of: view, in: scratch), into: path))
        #expect(try DurableTree(path: path).applied == before)
    }

    @Test("no bit of a snapshot can change unnoticed")
    func flippedBits() throws {
        let scratch = try Scratch()
        let pieces = try Self.pieces(of: Self.tree(at: scratch.state("source"), files: 2, bytes: 30), in: scratch)
        var number = 0
        for (position, piece) in pieces.enumerated() {
            for offset in 0..<piece.readableBytes {
                var damaged = pieces
                damaged[position].setInteger(
                    (piece.getInteger(at: offset, as: UInt8.self) ?? 0) ^ (1 << UInt8(offset % 8)), at: offset)
                number += 1
                let path = try scratch.state("copy-\(number)")
                #expect(throws: SnapshotError.self, "byte \(offset) of piece \(position)") {
                    let isWhole = try Self.receive(damaged, into: path)
                    // A chunk that turned into a trailer ends the snapshot early: it is then not whole.
                    if !isWhole { throw SnapshotError.corrupt }
                }
                try FileManager.default.removeItem(atPath: path)
            }
        }
    }

    @Test("missing, repeated and swapped pieces are refused, and so is another cluster's snapshot")
    func wrongPieces() throws {
        let scratch = try Scratch()
        let pieces = try Self.pieces(of: Self.tree(at: scratch.state("source"), files: 12, bytes: 400_000), in: scratch)
        try #require(pieces.count >= 5)
        var missing = pieces
        missing.remove(at: 2)
        var repeated = pieces
        repeated.insert(pieces[1], at: 1)
        var swapped = pieces
        swapped.swapAt(1, 2)
        for (number, wrong) in [missing, repeated, swapped].enumerated() {
            let path = try scratch.state("copy-\(number)")
            #expect(throws: SnapshotError.corrupt) { try Self.receive(wrong, into: path) }
        }
        let truncated = Array(pieces.dropLast())
        let path = try scratch.state("truncated")
        #expect(try !Self.receive(truncated, into: path))
        let foreign = try scratch.state("foreign")
        #expect(throws: SnapshotError.wrongCluster) { try Self.receive(pieces, into: foreign, clusterID: 9) }
    }

    @Test("a newer format is refused by its number, and another file by its first bytes")
    func otherFormats() throws {
        let header = SnapshotHeader(
            clusterVersion: 1, metadata: SnapshotMetadata(index: 1, term: 1, configuration: Self.configuration))
        var newer = header.encoded()
        newer.setInteger(UInt16(2), at: 8)
        #expect(throws: SnapshotError.unknownFormat(2)) { try SnapshotHeader(newer) }
        #expect(throws: SnapshotError.notASnapshot) { try SnapshotHeader(ByteBuffer(string: "PK..............")) }
        #expect(throws: SnapshotError.notASnapshot) { try SnapshotHeader(ByteBuffer()) }
    }

    /// The file was written by the first version that had snapshots; every later one must read it.
    @Test("the snapshot in fixtures/snapshots is read, and is written like that")
    func golden() throws {
        let scratch = try Scratch()
        let pieces = try Self.pieces(of: Self.fixture("version-1"))
        let path = try scratch.state("copy")
        #expect(try Self.receive(pieces, into: path))
        let copy = try DurableTree(path: path)
        #expect(copy.applied.index == 4)
        #expect(copy.applied.digest.description == "651a0d59a6b6e0fa0a91ab5c6c60d66a")
        // zlib's bytes may differ between its versions; everything around them may not.
        let source = try Self.tree(at: scratch.state("source"), files: 3, bytes: 2000)
        let written = try Self.pieces(of: source, in: scratch)
        #expect(written.count == pieces.count)
        #expect(written.first == pieces.first)
        #expect(written.last?.getSlice(at: 0, length: 12) == pieces.last?.getSlice(at: 0, length: 12))
        #expect(source.applied == copy.applied)
    }

    /// Of cluster version 3: the digest by another hash, of rows from before and after.
    @Test("the snapshot of version 3 in fixtures/snapshots is read, and its digest is the one of its rows")
    func goldenDigest() throws {
        let scratch = try Scratch()
        let source = try Self.tree(at: scratch.state("source"), files: 3, bytes: 2000)
        try Self.apply({ RaiseVersion(to: 3).write(to: &$0) }, to: source)
        let put = Put(path: try TreePath("/d0/short"), content: ByteBuffer(string: "three"), mtime: 7)
        try Self.apply({ put.write(to: &$0) }, to: source)
        try source.commit()
        let copy = try Self.copy(of: "version-3", like: source, in: scratch)
        #expect(copy.applied.digest.description == "6ac98886342ef72e00c03e85eb66f23b")
    }

    /// Of cluster version 2: what clients may ask for again travels along.
    @Test("the snapshot with a session in fixtures/snapshots is read, and its client gets its first answer")
    func goldenSessions() throws {
        let scratch = try Scratch()
        let source = try Self.tree(at: scratch.state("source"), files: 1, bytes: 10)
        try Self.apply({ RaiseVersion(to: 2).write(to: &$0) }, to: source)
        try Self.apply({ OpenSession().write(to: &$0) }, to: source)
        var answer = ByteBuffer()
        var put = ByteBuffer()
        Put(path: try TreePath("/s"), content: ByteBuffer(string: "once"), mtime: 7, condition: .absent).write(to: &put)
        CommandHeader.enroll(&put, session: 4, sequence: 9, lowestUnanswered: 8)
        try source.apply(index: 5, term: 2, kind: .command, payload: put, answer: &answer)
        try source.commit()
        let copy = try Self.copy(of: "version-2", like: source, in: scratch)
        var first = ByteBuffer()
        try copy.apply(index: 6, term: 2, kind: .command, payload: put, answer: &first)
        #expect(Outcome(from: &first) == .done(revision: 5))
    }

    /// Of cluster version 4: sessions with an owner, and without, and a file from before with an id to set.
    @Test("the snapshot of version 4 in fixtures/snapshots is read, with sessions' owners, and is written like that")
    func goldenOwners() throws {
        let scratch = try Scratch()
        let source = try Self.tree(at: scratch.state("source"), files: 1, bytes: 10)
        var put = Put(path: try TreePath("/old"), content: ByteBuffer(string: "x"), mode: 0o4755, mtime: 7)
        try Self.apply({ put.write(to: &$0) }, to: source)
        try Self.apply({ RaiseVersion(to: 2).write(to: &$0) }, to: source)
        try Self.apply({ OpenSession().write(to: &$0) }, to: source)
        try Self.apply({ RaiseVersion(to: 4).write(to: &$0) }, to: source)
        try Self.apply(
            { OpenSession(owner: SessionOwner(host: 0x0102, connection: 0x0304)).write(to: &$0) }, to: source)
        put.path = try TreePath("/new")
        try Self.apply(
            {
                put.write(to: &$0)
                CommandHeader.enroll(&$0, session: 7, sequence: 2, lowestUnanswered: 1)
            }, to: source)
        try source.commit()
        let copy = try Self.copy(of: "version-4", like: source, in: scratch)
        #expect(copy.applied.digest.description == "5b36e41440b3f541d5f536b06f7aa76a")
    }
}
