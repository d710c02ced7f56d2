import ArgumentParser
import BanyanClient
import Console
import Foundation
import Mirror

/// What a write prints with `--json`.
struct WriteResult: Encodable {
    let path: String
    let revision: UInt64
}

/// What `stat`, `ls` and `get` print with `--json`.
struct EntryResult: Encodable {
    let path: String
    let kind: String
    let size: UInt64
    let mode: String
    let modified: String
    let revision: UInt64
    /// Base64, of what `get` read.
    let content: String?

    init(path: String, _ info: FileInfo, content: [UInt8]? = nil) {
        self.path = path
        self.content = content.map { Data($0).base64EncodedString() }
        kind = info.kind.rawValue
        size = info.size
        mode = String(info.mode, radix: 8)
        modified = Self.date(info)
        revision = info.revision
    }

    static func date(_ info: FileInfo) -> String {
        Date(timeIntervalSince1970: Double(info.modificationTime) / 1e9).formatted(.iso8601)
    }
}

extension String {
    /// A directory may be written with a slash at its end.
    fileprivate var asDirectory: String { count > 1 && hasSuffix("/") ? String(dropLast()) : self }

    /// What a terminal may be shown: names hold any characters, and some would be commands to it.
    fileprivate var shown: String {
        guard isatty(STDOUT_FILENO) == 1, unicodeScalars.contains(where: { $0.properties.generalCategory == .control })
        else { return self }
        return unicodeScalars.reduce(into: "") { text, scalar in
            let isControl = scalar.properties.generalCategory == .control
            text += isControl ? "\\u{\(String(scalar.value, radix: 16))}" : String(scalar)
        }
    }
}

struct PutCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "put", abstract: "Write a file (up to 1 MiB) and the directories above it.",
        discussion: "When it ends with 0, the file is on the disks of a majority of the members.")

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var conditions: ConditionOptions
    @Argument(help: "The path in the cluster.") var path: String
    @Argument(help: "The file to read; - or nothing reads standard input.") var file: String = "-"

    func run() async throws {
        let (content, mode) = try read()
        try await cluster.withClient(path) { client in
            let revision = try await client.put(path, content, mode: mode, if: conditions.condition)
            try cluster.show(WriteResult(path: path, revision: revision), "\(path) is at revision \(revision)")
        }
    }

    /// Whatever can be read: a file, a pipe, standard input. Of what is too large no more is read than shows it.
    private func read() throws -> ([UInt8], UInt16) {
        let descriptor = file == "-" ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC)
        let failure = { CommandFailure("\(file): can't be read: \(String(cString: strerror(errno)))") }
        guard descriptor >= 0 else { throw failure() }
        defer { if descriptor != STDIN_FILENO { close(descriptor) } }
        var info = Foundation.stat()
        guard fstat(descriptor, &info) == 0 else { throw failure() }
        var content: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while content.count <= BanyanClient.contentBytesMax {
            let count = Foundation.read(descriptor, &buffer, buffer.count)
            guard count >= 0 else { throw failure() }
            if count == 0 { break }
            content += buffer[..<count]
        }
        let isFile = info.st_mode & S_IFMT == S_IFREG
        return (content, isFile ? UInt16(info.st_mode & 0o7777) : 0o644)
    }
}

struct GetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get", abstract: "Read a file.",
        discussion: """
            It shows what was last acknowledged, whichever member is asked, unless --consistency asks for less. With --json the \
            content is base64.
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var reading: ConsistencyOptions
    @Argument(help: "The path in the cluster.") var path: String
    @Option(
        name: .shortAndLong,
        help: "Write to this file instead of standard output (-). One that is there is replaced, and keeps its mode.")
    var output = "-"

    func run() async throws {
        let (content, info) = try await cluster.withClient(path) { try await $0.get(path, reading.level) }
        guard output != "-" else {
            if cluster.json { return try cluster.show(EntryResult(path: path, info, content: content), "") }
            return try Console.output(content)
        }
        let existing = try? FileManager.default.attributesOfItem(atPath: output)[.posixPermissions] as? Int
        let mode = existing.map { UInt16(truncatingIfNeeded: $0) } ?? info.mode
        do { try LocalFile.write(output, content, mode: mode) } catch {
            throw CommandFailure("can't be written: \(error)")
        }
        if cluster.json { try cluster.show(EntryResult(path: path, info), "") }
    }
}

struct ListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List a directory, ordered by the names' bytes.")

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var reading: ConsistencyOptions
    @Argument(help: "The directory.") var path: String = "/"
    @Flag(name: .short, help: "With mode, size, time and revision.") var long = false
    @Flag(name: .customShort("R"), help: "With everything below it.") var recursive = false

    func run() async throws {
        let entries = try await cluster.withClient(path) { try await list(path.asDirectory, $0) }
        if cluster.json {
            try cluster.show(entries.map { EntryResult(path: $0.path, $0.info) }, "")
        } else {
            for (path, info) in entries {
                try Console.print(line(recursive ? path : String(path.split(separator: "/").last ?? ""), info))
            }
        }
    }

    private func list(_ path: String, _ client: BanyanClient) async throws -> [(path: String, info: FileInfo)] {
        var found: [(path: String, info: FileInfo)] = []
        var directories = [path]
        while let directory = directories.popLast() {
            var (after, hasMore) = ("", true)
            var below: [String] = []
            while hasMore {
                let page = try await client.list(directory, after: after, reading.level)
                for entry in page.entries {
                    let path = directory.hasSuffix("/") ? directory + entry.name : "\(directory)/\(entry.name)"
                    found.append((path, entry.info))
                    if recursive, entry.info.kind == .directory { below.append(path) }
                }
                hasMore = page.hasMore
                after = page.entries.last?.name ?? ""
            }
            directories += below.reversed()
        }
        return found
    }

    private func line(_ name: String, _ info: FileInfo) -> String {
        let shown = name.shown + (info.kind == .directory ? "/" : "")
        guard long else { return shown }
        let mode = String(info.mode, radix: 8)
        let columns = [
            info.kind == .directory ? "d" : "-", mode, pad("\(info.size)", 9), EntryResult.date(info),
            pad("\(info.revision)", 9), shown,
        ]
        return columns.joined(separator: " ")
    }

    private func pad(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }
}

struct StatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stat", abstract: "Show a file's or a directory's size, mode, time and revision.")

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var reading: ConsistencyOptions
    @Argument(help: "The path in the cluster.") var path: String

    func run() async throws {
        let info = try await cluster.withClient(path) { client in
            let info = try await client.stat(path.asDirectory, reading.level)
            if path.asDirectory != path, info.kind != .directory { throw BanyanError.notDirectory }
            return info
        }
        let result = EntryResult(path: path, info)
        try cluster.show(
            result,
            """
            path      \(path)
            kind      \(result.kind)
            size      \(info.size)
            mode      \(result.mode)
            modified  \(result.modified)
            revision  \(info.revision)
            """)
    }
}

struct RemoveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove a file or an empty directory; with -r all below it, at once.")

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var conditions: ConditionOptions
    @Argument(help: "The path in the cluster.") var path: String
    @Flag(name: .short, help: "A directory with all below it.") var recursive = false

    func run() async throws {
        if path == "/" { throw CommandFailure("/: the root can't be removed: name what is in it") }
        try await cluster.withClient(path) { client in
            let revision = try await client.remove(path, recursive: recursive, if: conditions.condition)
            try cluster.show(WriteResult(path: path, revision: revision), "\(path) was removed at revision \(revision)")
        }
    }
}

struct MakeDirectoryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "mkdir", abstract: "Make a directory.")

    @OptionGroup var cluster: ClusterOptions
    @Argument(help: "The path in the cluster.") var path: String
    @Flag(name: .short, help: "Make the directories above it too, and accept one that is there.") var parents = false

    func run() async throws {
        try await cluster.withClient(path) { client in
            let revision = try await client.makeDirectory(path.asDirectory, withParents: parents)
            try cluster.show(WriteResult(path: path, revision: revision), "\(path) is at revision \(revision)")
        }
    }
}

struct MoveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mv", abstract: "Move a file, or a directory with all below it, in one step.",
        discussion: "--if-absent is asked of the destination, --if-revision of the source.")

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var conditions: ConditionOptions
    @Argument(help: "The path to move.") var source: String
    @Argument(help: "Its new path. A file there is replaced.") var destination: String

    func run() async throws {
        try await cluster.withClient("\(source) to \(destination)") { client in
            let revision = try await client.move(
                source.asDirectory, to: destination.asDirectory, if: conditions.condition)
            try cluster.show(
                WriteResult(path: destination, revision: revision), "\(destination) is at revision \(revision)")
        }
    }
}
