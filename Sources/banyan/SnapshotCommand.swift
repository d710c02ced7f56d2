import ArgumentParser
import BanyanClient
import Console
import Foundation
import Mirror
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

        init(_ path: String, named name: String, _ contents: Restore.Contents) {
            file = name
            index = contents.metadata.index
            term = contents.metadata.term
            cluster = String(contents.metadata.configuration.clusterID, radix: 16)
            clusterVersion = contents.clusterVersion
            files = contents.applied.files
            contentBytes = contents.applied.bytes
            var info = stat()
            fileBytes = stat(path, &info) == 0 ? Int(info.st_size) : 0
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
    private static func check(_ file: String, as name: LocalPath) throws -> Report {
        do {
            return Report(file, named: name.description, try Restore.read(file))
        } catch {
            throw CommandFailure("\(name): \(error)")
        }
    }

    struct Save: AsyncParsableCommand, TakesBytes {
        static let configuration = CommandConfiguration(
            abstract: "Save the whole tree of a running cluster to a file.",
            discussion: "The file appears whole and checked, or not at all; one that is there is replaced.")

        @OptionGroup var cluster: ClusterOptions
        @Option(
            help: ArgumentHelp("The member to take it from; a follower unless named.", valueName: "id or host:port"))
        var from: String?
        @Argument(help: "The file to write.", transform: LocalPath.init) var file: LocalPath

        func validate() throws {
            if file.isStandard { throw ValidationError("a snapshot is written to a file: name one") }
            if let from, UInt64(from) == nil { _ = try Self.address(from) }
        }

        private static func address(_ text: String) throws -> String {
            let list = try NodeList.option(text)
            guard list.addresses.count == 1 else { throw ValidationError("--from is a member's id, or its HOST:PORT") }
            return list.addresses[0]
        }

        func run() async throws {
            Termination.removesTemporaryFiles()
            do { try await save() } catch let error as LocalError {
                throw CommandFailure("\(ByteText.text(error.path)): \(error.reason)")
            }
        }

        private func save() async throws {
            let part = try WholeFile(file.bytes)
            let line = ProgressLine(isWanted: !cluster.json)
            defer { line.clear() }
            try await cluster.withClient(file.description) { client in
                let end = ContinuousClock.now + cluster.timeout.duration
                var bytes = 0
                while true {
                    do {
                        let address = try await source(client)
                        try await client.snapshot(of: address, patience: cluster.timeout.duration) { piece in
                            try part.write(Array(piece.readableBytesView))
                            bytes += piece.readableBytes
                            line.show("\(bytes >> 20) MiB from \(address)")
                        }
                        break
                    } catch let error as BanyanError where error.isOfTheCluster && bytes == 0 {
                        // Nobody has begun to give one: an election may be under way, or a member stand still for a moment.
                        guard ContinuousClock.now + Self.pause < end else { throw error }
                        try await Task.sleep(for: Self.pause)
                    }
                }
                line.clear()
            }
            try part.sync()
            let report = try SnapshotCommand.check(part.readablePath, as: file)
            try part.finish()
            try cluster.show(report, report.text)
        }

        private static let pause = Duration.milliseconds(200)

        private func source(_ client: BanyanClient) async throws -> String {
            if let from, UInt64(from) == nil { return try Self.address(from) }
            let all = try await client.status()
            if let id = from.flatMap({ UInt64($0) }) {
                guard let member = all.first(where: { $0.id == id }) else { throw BanyanError.noSuchMember }
                return member.address
            }
            let members = all.filter { $0.isRunning }
            // The leader has enough to do.
            guard let member = members.first(where: { $0.role == "follower" }) ?? members.first else {
                throw BanyanError.unreachable("none of the members answers")
            }
            return member.address
        }
    }

    struct Inspect: AsyncParsableCommand, TakesBytes {
        static let configuration = CommandConfiguration(
            abstract: "Read a snapshot file from end to end, check it, and say what it holds.")

        @Flag(help: "Print JSON.") var json = false
        @Argument(help: "The file.", transform: LocalPath.init) var file: LocalPath

        func run() async throws {
            let report: Report
            do {
                report = try LocalFile.reading(file.bytes) { try SnapshotCommand.check($0, as: file) }
            } catch let error as LocalError {
                throw CommandFailure("\(file): \(error.reason)", exitCode: error.code == ENOENT ? 3 : 1)
            }
            guard json else { return try Console.print(report.text) }
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            try Console.print(String(decoding: try encoder.encode(report), as: UTF8.self))
        }
    }
}
