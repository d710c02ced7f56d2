import ArgumentParser
import Deflate
import FileTree
import Foundation
import NIOCore
import Raft
import WireProtocol

/// The inner loops alone, in one thread and without a disk, each for a number of times that makes its instructions countable:
/// see `make instructions`.
struct MicroBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "micro", abstract: "Time the inner loops: core, frames, checksums, tree, listing, snapshot chunk.")

    @Option(help: "One of them alone.") var only: String?
    @Option(help: "How often it is done; by default for about a second.") var count: Int?
    @Flag(help: "Print their names.") var list = false

    private static let all: [(name: String, unit: String, make: @Sendable () throws -> () throws -> Void)] = [
        ("core-round", "64 entries proposed, replicated to two followers and committed, by three cores", coreRound),
        ("frame-codec", "a put of 256 bytes written as a frame and read back", frameCodec),
        ("record-seal", "an entry of 300 bytes sealed with its checksum and checked", recordSeal),
        ("apply-put", "a put of 256 bytes executed over 10,000 files in memory", applyPut),
        ("get", "a file of 256 bytes read", get),
        ("list", "a directory of 100 files listed, by its rows", listing),
        ("list-again", "the same, unchanged since it was listed before", listingAgain),
        ("snapshot-chunk", "a MiB of rows compressed and inflated", snapshotChunk),
    ]

    func run() throws {
        if list { return print(Self.all.map(\.name).joined(separator: "\n")) }
        guard Self.all.contains(where: { only ?? $0.name == $0.name }) else {
            throw ValidationError("--only is one of those that --list prints")
        }
        for (name, unit, make) in Self.all where only ?? name == name {
            let work = try make()
            if let count {
                for _ in 0..<count { try work() }
                continue
            }
            // Twice as often until it takes long enough.
            var times = 1
            var elapsed = try timed { try work() }
            while elapsed < 0.5 {
                times *= 2
                elapsed = try timed { for _ in 0..<times { try work() } }
            }
            let nanoseconds = elapsed / Double(times) * 1e9
            print(
                name.padding(toLength: 16, withPad: " ", startingAt: 0) + String(format: "%10.0f ns   ", nanoseconds)
                    + unit)
        }
    }

    // MARK: the loops

    private static func coreRound() throws -> () throws -> Void {
        var cluster = CoreCluster()
        cluster.elect()
        return { cluster.round(entries: 64) }
    }

    private static func frameCodec() throws -> () throws -> Void {
        var command = ByteBuffer()
        try Put(path: TreePath("/load/d7/f1234"), content: ByteBuffer(repeating: 7, count: 256)).write(to: &command)
        var buffer = ByteBuffer()
        return {
            buffer.clear()
            buffer.writeFrame(.write, requestID: 7, deadlineMilliseconds: 5000) { $0.writeImmutableBuffer(command) }
            guard let frame = try buffer.readFrame(bodyBytesMax: Frame.bodyBytesMax),
                frame.body.readableBytes == command.readableBytes
            else { throw BenchmarkError("the frame does not come back") }
        }
    }

    private static func recordSeal() throws -> () throws -> Void {
        let payload = ByteBuffer(repeating: 7, count: 300)
        return {
            var record = ByteBufferAllocator().buffer(capacity: 400)
            let start = record.beginRecord(.command, index: 5, term: 1, length: payload.readableBytes)
            record.writeImmutableBuffer(payload)
            record.sealRecord(at: start)
            guard try EntryRecord(from: &record).header.index == 5 else { throw BenchmarkError("another record") }
        }
    }

    private static func tree(files: Int) throws -> FileTree<MemoryStore> {
        var tree = try FileTree(store: MemoryStore())
        // As a leader does in a new cluster.
        var raise = ByteBuffer()
        RaiseVersion(to: Applied.clusterVersionMax).write(to: &raise)
        try apply(raise, to: &tree)
        for file in 0..<files { try apply(put(file, files), to: &tree) }
        return tree
    }

    private static func put(_ file: Int, _ files: Int) throws -> ByteBuffer {
        var command = ByteBuffer()
        let path = try TreePath("/load/d\(file % max(1, files / 100))/f\(file)")
        Put(path: path, content: ByteBuffer(repeating: 7, count: 256)).write(to: &command)
        return command
    }

    private static func apply(_ command: ByteBuffer, to tree: inout FileTree<MemoryStore>) throws {
        var answer = ByteBuffer()
        try tree.apply(index: tree.applied.index + 1, term: 1, kind: .command, payload: command, answer: &answer)
    }

    private static func applyPut() throws -> () throws -> Void {
        let loop = TreeLoop(try tree(files: 10_000))
        let commands = try (0..<1000).map { try put($0 * 7919 % 10_000, 10_000) }
        var next = 0
        return {
            try apply(commands[next % commands.count], to: &loop.tree)
            next += 1
        }
    }

    private static func get() throws -> () throws -> Void {
        let query = Query.get(try TreePath("/load/d7/f107"))
        return try answering(query)
    }

    /// Behind a name that comes before all: only pages from the start are kept.
    private static func listing() throws -> () throws -> Void {
        try answering(.list(try TreePath("/load/d7"), after: Array("a".utf8), limit: 100))
    }

    private static func listingAgain() throws -> () throws -> Void {
        try answering(.list(try TreePath("/load/d7"), after: [], limit: 100))
    }

    private static func answering(_ query: Query) throws -> () throws -> Void {
        let loop = TreeLoop(try tree(files: 10_000))
        var encoded = ByteBuffer()
        query.write(to: &encoded)
        var answer = ByteBuffer()
        return {
            answer.clear()
            try loop.tree.answer(encoded, into: &answer)
            guard answer.getInteger(at: 0, as: UInt16.self) == 0 else { throw BenchmarkError("the query failed") }
        }
    }

    private static func snapshotChunk() throws -> () throws -> Void {
        // Rows of text: neither all alike nor random.
        var generator = SeededGenerator(seed: 3)
        let words = (0..<2000).map { _ in Array(String(UInt32.random(in: 0...UInt32.max, using: &generator)).utf8) }
        var rows: [UInt8] = []
        while rows.count < 1 << 20 { rows += words[Int.random(in: 0..<words.count, using: &generator)] }
        return {
            let compressed = try rows.withUnsafeBytes { try Deflate.compress($0) }
            let inflated = try compressed.withUnsafeBytes { try Deflate.decompress($0, byteCount: rows.count) }
            guard inflated.count == rows.count else { throw BenchmarkError("another chunk") }
        }
    }
}

/// A tree that a closure can change.
private final class TreeLoop {
    var tree: FileTree<MemoryStore>
    init(_ tree: consuming FileTree<MemoryStore>) { self.tree = tree }
}

/// Three cores whose messages arrive at once, and whose disks are done at once.
private struct CoreCluster {
    private var cores: [RaftCore] = []
    private var now: Nanoseconds = 1_000_000_000

    init() {
        let configuration = Configuration(
            clusterID: 1, members: (1...3).map { Member(id: $0, peer: PeerID($0), address: "a:\($0)") })
        cores = (1...3).map { id in
            RaftCore(
                id: PeerID(id), hardState: HardState(),
                log: LogView(
                    compactedIndex: 0, compactedTerm: 0, entries: [],
                    configurations: [IndexedConfiguration(index: 0, configuration: configuration)]), applied: 0,
                seed: id, now: now)
        }
    }

    mutating func elect() {
        while cores[0].role != .leader {
            now += 10_000_000
            cores[0].step(.tick, now: now)
            settle()
        }
    }

    mutating func round(entries: Int) {
        now += 1_000_000
        let before = cores[0].commit
        cores[0].step(.propose(sizes: Array(repeating: 300, count: entries)), now: now)
        settle()
        precondition(cores[0].commit == before + UInt64(entries), "the round committed nothing")
        guard cores[0].log.lastIndex % 16_384 == 0 else { return }
        for position in cores.indices { cores[position].step(.compact(through: cores[position].applied), now: now) }
        settle()
    }

    private mutating func settle() {
        var isQuiet = false
        while !isQuiet {
            isQuiet = true
            for position in cores.indices {
                let output = cores[position].takeOutput()
                guard !output.isEmpty else { continue }
                isQuiet = false
                if let write = output.write { cores[position].step(.saved(write: write.number), now: now) }
                if let range = output.apply { cores[position].step(.applied(range.upperBound), now: now) }
                for message in output.messages + output.messagesAfterWrite.map(\.message) {
                    let to = Int(message.to.rawValue) - 1
                    cores[to].step(.message(message), now: now)
                    if case .append = message.body { _ = cores[to].takeAppended() }
                }
            }
        }
    }
}
