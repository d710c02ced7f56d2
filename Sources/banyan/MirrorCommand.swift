import ArgumentParser
import BanyanClient
import Console
import Foundation
import Mirror

struct MirrorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mirror", abstract: "Copy whole directories into the cluster, or out of it.",
        discussion: """
            Files whose size and modification time are the same on both sides are left alone. Nothing is removed on \
            either side. Links, devices, files over 1 MiB and names that are not UTF-8 are not stored; each is named, and all \
            but links and devices make the exit code 1.
            """,
        subcommands: [Push.self, Pull.self])

    struct Push: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Copy a directory of this machine into the cluster.")

        @OptionGroup var cluster: ClusterOptions
        @Argument(help: "The directory on this machine.") var directory: String
        @Argument(help: "The path in the cluster.") var path: String

        func run() async throws {
            try await MirrorCommand.run(cluster, path) { try await $0.push(directory, to: path) }
        }
    }

    struct Pull: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Copy a directory of the cluster to this machine.")

        @OptionGroup var cluster: ClusterOptions
        @Argument(help: "The path in the cluster.") var path: String
        @Argument(help: "The directory on this machine; made when it is missing.") var directory: String

        func run() async throws {
            try await MirrorCommand.run(cluster, path) { try await $0.pull(path, to: directory) }
        }
    }

    private struct Report: Encodable {
        let files: Int
        let bytes: UInt64
        let unchanged: Int
        let directories: Int
        let skipped: [String]
        let failures: [String]
        let seconds: Double
    }

    private static func run(
        _ cluster: ClusterOptions, _ path: String, _ body: (Mirror) async throws -> MirrorSummary
    ) async throws {
        let bar = ProgressBar(isShown: isatty(STDERR_FILENO) == 1 && !cluster.json)
        let began = ContinuousClock.now
        let summary: MirrorSummary
        do {
            summary = try await cluster.withClient(path) { client in
                try await body(Mirror(client: client) { bar.show($0, of: $1, bytes: $2) })
            }
        } catch let error as LocalError {
            throw CommandFailure("\(error)")
        }
        bar.clear()
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        for name in summary.skipped { complain("skipped \(name): it is neither a file nor a directory") }
        for failure in summary.failures { complain(failure) }
        try cluster.show(
            Report(
                files: summary.files, bytes: summary.bytes, unchanged: summary.unchanged,
                directories: summary.directories, skipped: summary.skipped, failures: summary.failures,
                seconds: seconds),
            """
            \(summary.files) files copied (\(summary.bytes) bytes), \(summary.unchanged) unchanged, \
            \(summary.skipped.count) skipped, \(summary.failures.count) failed, in \(Double(Int(seconds * 10)) / 10) s
            """)
        if let stopped = summary.stopped {
            throw CommandFailure("\(path): stopped: \(stopped); the same command goes on from here", exitCode: 5)
        }
        if !summary.failures.isEmpty { throw ExitCode.failure }
    }

    private static func complain(_ text: String) { Console.complain("banyan", text) }
}

/// One line on a terminal's stderr that shows how far a long command is.
private struct ProgressBar: Sendable {
    let isShown: Bool
    private static let width = 40

    func show(_ done: Int, of total: Int, bytes: UInt64) {
        guard isShown, done % 32 == 0 || done == total else { return }
        let filled = total == 0 ? Self.width : done * Self.width / total
        let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: Self.width - filled)
        FileHandle.standardError.write(Data("\r[\(bar)] \(done)/\(total) files, \(bytes >> 20) MiB ".utf8))
    }

    func clear() {
        if isShown { FileHandle.standardError.write(Data("\r\u{1B}[K".utf8)) }
    }
}
