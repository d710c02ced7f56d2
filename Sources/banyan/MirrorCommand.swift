import ArgumentParser
import BanyanClient
import Console
import Foundation
import Mirror

struct MirrorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mirror", abstract: "Copy whole directories into the cluster, or out of it.",
        discussion: """
            Files whose size, modification time and mode are the same on both sides are left alone. Nothing is removed on \
            either side. Links, pipes and devices are not stored, nor are files over 1 MiB and names that are not UTF-8; each \
            is named, and all but the former make the exit code 1. What is removed while it is copied is named and counted as \
            vanished.

            Permissions go along; the set-id and sticky bits of directories do, those of files don't. A pull takes the umask's bits \
            away. A directory that push finds in the cluster keeps its mode, and so does the one that pull copies into. A file \
            that pull replaces keeps its owner and group where they may be set; else that is said.

            The directory on this machine may be a link. Below it none is followed: pull puts files and directories into the \
            places of links, pipes and devices, and names what else is in the way. Times that a file system can't hold are \
            compared as it holds them.
            """,
        subcommands: [Push.self, Pull.self])

    struct Push: AsyncParsableCommand, TakesBytes {
        static let configuration = CommandConfiguration(abstract: "Copy a directory of this machine into the cluster.")

        @OptionGroup var cluster: ClusterOptions
        @Argument(help: "The directory on this machine.", transform: LocalPath.init) var directory: LocalPath
        @Argument(help: PathArgument.help, transform: PathArgument.init) var path: PathArgument

        func run() async throws {
            let target = try path.path
            try await MirrorCommand.run(cluster, path) { try await $0.push(directory.bytes, to: target) }
        }
    }

    struct Pull: AsyncParsableCommand, TakesBytes {
        static let configuration = CommandConfiguration(abstract: "Copy a directory of the cluster to this machine.")

        @OptionGroup var cluster: ClusterOptions
        @Argument(help: PathArgument.help, transform: PathArgument.init) var path: PathArgument
        @Argument(help: "The directory on this machine; made when it is missing.", transform: LocalPath.init)
        var directory: LocalPath

        func run() async throws {
            let target = try path.path
            Termination.removesTemporaryFiles()
            try await MirrorCommand.run(cluster, path) { try await $0.pull(target, to: directory.bytes) }
        }
    }

    private struct Report: Encodable {
        let files: Int
        let bytes: UInt64
        let unchanged: Int
        let directories: Int
        let modes: Int
        let skipped: [String]
        let vanished: [String]
        let remarks: [String]
        let failures: [String]
        let seconds: Double

        init(_ summary: MirrorSummary, seconds: Double) {
            files = summary.files
            bytes = summary.bytes
            unchanged = summary.unchanged
            directories = summary.directories
            modes = summary.modes
            skipped = summary.skipped.map { Shown.text($0.path) }
            vanished = summary.vanished.map { Shown.text($0.path) }
            remarks = summary.remarks.map { "\(Shown.text($0.path)): \($0.reason)" }
            failures = summary.failures.map { "\(Shown.text($0.path)): \($0.reason)" }
            self.seconds = seconds
        }
    }

    private static func run(
        _ cluster: ClusterOptions, _ path: PathArgument, _ body: (Mirror) async throws -> MirrorSummary
    ) async throws {
        let bar = ProgressBar(isShown: Shown.isErrorTerminal && !cluster.json)
        let began = ContinuousClock.now
        let summary: MirrorSummary
        do {
            summary = try await cluster.withClient(path.text) { client in
                try await body(
                    Mirror(
                        tree: client, patience: cluster.timeout.duration,
                        descriptors: Descriptors.max - ClusterOptions.descriptors
                    ) { bar.show($0, of: $1, bytes: $2) })
            }
        } catch let error as LocalError {
            throw CommandFailure("\(ByteText.text(error.path)): \(error.reason)")
        }
        bar.clear()
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        for note in summary.skipped { complain("skipped ", note) }
        for note in summary.vanished + summary.remarks + summary.failures { complain("", note) }
        let modes = summary.modes == 0 ? "" : ", \(summary.modes) modes set"
        try cluster.show(
            Report(summary, seconds: seconds),
            """
            \(summary.files) files copied (\(summary.bytes) bytes), \(summary.unchanged) unchanged\(modes), \
            \(summary.skipped.count) skipped, \(summary.vanished.count) vanished, \(summary.failures.count) failed, \
            in \(Double(Int(seconds * 10)) / 10) s
            """)
        if let stopped = summary.stopped {
            let failure = CommandFailure(stopped, at: path.text)
            throw CommandFailure(
                "\(path): stopped after \(summary.files) files: \(reason(stopped)); the same command goes on from here",
                exitCode: failure.exitCode)
        }
        if !summary.failures.isEmpty { throw ExitCode.failure }
    }

    /// Something was done, so that not all that the error says is true.
    private static func reason(_ error: BanyanError) -> String {
        switch error {
        case .noQuorum, .unreachable: "no member answers as the leader any more (see 'banyan status')"
        case .unknownOutcome: "the last writes were not answered (see 'banyan status')"
        case .diskFull: "the members' disks are nearly full; remove files (rm still works) or free space on them"
        default: "\(error)"
        }
    }

    private static func complain(_ what: String, _ note: MirrorNote) {
        Console.complain("banyan", "\(what)\(ByteText.text(note.path)): \(note.reason)")
    }
}

/// One line on a terminal's stderr that shows how far a long command is.
private struct ProgressBar: Sendable {
    let isShown: Bool
    private static let widthMax = 40

    func show(_ done: Int, of total: Int, bytes: UInt64) {
        guard isShown, done % 32 == 0 || done == total else { return }
        let text = "\(done)/\(total) files, \(bytes >> 20) MiB"
        // A line that fills a terminal may be wrapped, and then it stays.
        let columns = Self.columns - 1
        let width = min(Self.widthMax, columns - text.count - 4)
        let filled = total == 0 ? width : done * width / total
        let bar =
            width < 8
            ? "" : "[\(String(repeating: "#", count: filled))\(String(repeating: ".", count: width - filled))] "
        write("\r\(String((bar + text).prefix(max(0, columns))))\u{1B}[K")
    }

    func clear() {
        if isShown { write("\r\u{1B}[K") }
    }

    private func write(_ text: String) { try? Console.write(Array(text.utf8), to: STDERR_FILENO, patience: 0) }

    private static var columns: Int {
        var size = winsize()
        return ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0 ? Int(size.ws_col) : 80
    }
}

/// What is done when a signal ends the process.
enum Termination {
    /// Made once, and kept alive: nobody uses it after that.
    nonisolated(unsafe) private static let sources = Signals.ending.map { number -> any DispatchSourceSignal in
        signal(number, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
        source.setEventHandler {
            Mirror.removeTemporaryFiles()
            // Whoever waits for the process sees which signal ended it.
            signal(number, SIG_DFL)
            kill(getpid(), number)
        }
        source.resume()
        return source
    }

    static func removesTemporaryFiles() { _ = sources }
}
