import ArgumentParser
import BanyanClient
import Console
import Foundation
import NIOCore
import Node
import Snapshots

struct SnapshotCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot", abstract: "Save the whole tree to a file, and look into such a file.",
        discussion: """
            A snapshot holds everything that was acknowledged before the command began, and checks itself: no bit of it can \
            change unnoticed. A new cluster begins from it with
              banyand --data DIR --restore FILE
            """,
        subcommands: [Save.self, Inspect.self])

    private struct Report: Encodable {
        let file: String
        let index: UInt64
        let term: UInt64
        let cluster: String
        let clusterVersion: UInt16
        let files: UInt64
        let contentBytes: UInt64
        let fileBytes: Int
        let digest: String

        enum CodingKeys: String, CodingKey {
            case file, index, term, cluster, files, digest
            case clusterVersion = "cluster_version"
            case contentBytes = "content_bytes"
            case fileBytes = "file_bytes"
        }

        init(_ path: String, named name: String, _ contents: Restore.Contents) throws {
            file = name
            index = contents.metadata.index
            term = contents.metadata.term
            cluster = String(contents.metadata.configuration.clusterID, radix: 16)
            clusterVersion = contents.clusterVersion
            files = contents.applied.files
            contentBytes = contents.applied.bytes
            fileBytes = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
            digest = contents.applied.digest.description
        }

        var text: String {
            """
            \(file): sound; \(files) files, \(contentBytes) bytes, in \(fileBytes) bytes
            at index    \(index) of term \(term), cluster \(cluster), version \(clusterVersion)
            digest      \(digest)
            """
        }
    }

    /// - Parameter name: what to call it.
    private static func check(_ file: String, as name: String? = nil) throws -> Report {
        do {
            return try Report(file, named: name ?? file, Restore.read(file))
        } catch let error as SnapshotError {
            throw CommandFailure("\(file): \(error)", exitCode: error == .file(ENOENT) ? 3 : 1)
        }
    }

    struct Save: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Save the whole tree of a running cluster to a file.",
            discussion: "The file appears whole and checked, or not at all; one that is there is replaced.")

        @OptionGroup var cluster: ClusterOptions
        @Option(
            help: ArgumentHelp("The member to take it from; a follower unless named.", valueName: "id or host:port"))
        var from: String?
        @Argument(help: "The file to write.") var file: String

        func validate() throws {
            if file == "-" { throw ValidationError("a snapshot is written to a file: name one") }
            if let from, UInt64(from) == nil { _ = try Self.address(from) }
        }

        private static func address(_ text: String) throws -> String {
            let list = try NodeList.option(text)
            guard list.addresses.count == 1 else { throw ValidationError("--from is a member's id, or its HOST:PORT") }
            return list.addresses[0]
        }

        func run() async throws {
            let part = try PartialFile(of: file)
            let line = ProgressLine(isWanted: !cluster.json)
            defer { line.clear() }
            try await cluster.withClient(file) { client in
                let address = try await source(client)
                var bytes = 0
                try await client.snapshot(of: address, patience: cluster.timeout.duration) { piece in
                    try part.write(piece)
                    bytes += piece.readableBytes
                    line.show("\(bytes >> 20) MiB from \(address)")
                }
                line.clear()
            }
            try part.sync()
            let report = try SnapshotCommand.check(part.path, as: file)
            try part.finish()
            try cluster.show(report, report.text)
        }

        private func source(_ client: BanyanClient) async throws -> String {
            if let from, UInt64(from) == nil { return try Self.address(from) }
            let all = try await client.status()
            if let id = from.flatMap({ UInt64($0) }) {
                guard let member = all.first(where: { $0.id == id }) else { throw BanyanError.noSuchMember }
                return member.address
            }
            let members = all.filter { $0.role != "unreachable" }
            // The leader has enough to do.
            guard let member = members.first(where: { $0.role == "follower" }) ?? members.first else {
                throw BanyanError.unreachable("none of the members answers")
            }
            return member.address
        }
    }

    struct Inspect: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Read a snapshot file from end to end, check it, and say what it holds.")

        @Flag(help: "Print JSON.") var json = false
        @Argument(help: "The file.") var file: String

        func run() async throws {
            let report = try SnapshotCommand.check(file)
            guard json else { return try Console.print(report.text) }
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            try Console.print(String(decoding: try encoder.encode(report), as: UTF8.self))
        }
    }
}

/// A file that is written beside its place, and takes it when it is whole and durable. What is left unfinished goes, at an
/// error and at Ctrl-C.
private final class PartialFile {
    let path: String
    private let final: String
    private let descriptor: Int32
    private let interruptions: [any DispatchSourceSignal]
    private var isFinished = false

    /// - Parameter file: where a link leads the file it leads to; what is there and is no file stays.
    init(of file: String) throws {
        var info = stat()
        let isThere = stat(file, &info) == 0
        guard isThere || lstat(file, &info) != 0 else {
            throw CommandFailure("\(file): it is a link that leads nowhere")
        }
        guard !isThere || info.st_mode & S_IFMT == S_IFREG else {
            throw CommandFailure("\(file): it is there, and no file that could be replaced")
        }
        final = isThere ? URL(fileURLWithPath: file).resolvingSymlinksInPath().path : file
        let path = "\(final).part-\(UUID().uuidString)"
        self.path = path
        descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw CommandFailure("\(path): \(String(cString: strerror(errno)))") }
        interruptions = [SIGINT, SIGTERM, SIGHUP].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler {
                unlink(path)
                exit(128 + number)
            }
            source.resume()
            return source
        }
    }

    deinit {
        for source in interruptions { source.cancel() }
        close(descriptor)
        if !isFinished { unlink(path) }
    }

    func write(_ bytes: ByteBuffer) throws {
        let isWritten = bytes.withUnsafeReadableBytes { bytes in
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                guard count > 0 else { return false }
                rest = rest.dropFirst(count)
            }
            return true
        }
        guard isWritten else { throw failure() }
    }

    func sync() throws {
        guard fsync(descriptor) == 0 else { throw failure() }
    }

    func finish() throws {
        guard rename(path, final) == 0 else { throw failure() }
        isFinished = true
        let folder = Glibc.open(URL(fileURLWithPath: final).deletingLastPathComponent().path, O_RDONLY | O_CLOEXEC)
        guard folder >= 0, fsync(folder) == 0 else { throw failure() }
        close(folder)
    }

    private func failure() -> CommandFailure { CommandFailure("\(path): \(String(cString: strerror(errno)))") }
}
