import ArgumentParser
import BanyanClient
import Console
import FileTree
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
    /// Since 1970.
    let modifiedNanoseconds: Int64
    let revision: UInt64
    /// Base64, of what `get` read.
    let content: String?

    enum CodingKeys: String, CodingKey {
        case path, kind, size, mode, modified, revision, content
        case modifiedNanoseconds = "modified_ns"
    }

    init(path: String, _ info: FileInfo, content: [UInt8]? = nil) {
        self.path = path
        self.content = content.map { Data($0).base64EncodedString() }
        kind = info.kind.rawValue
        size = info.size
        mode = String(info.mode, radix: 8)
        modified = Self.date(info)
        modifiedNanoseconds = info.modificationTime
        revision = info.revision
    }

    static func date(_ info: FileInfo) -> String {
        // Whole seconds that are over: no file is of a second that has not come yet.
        let (seconds, rest) = info.modificationTime.quotientAndRemainder(dividingBy: 1_000_000_000)
        return Date(timeIntervalSince1970: Double(rest < 0 ? seconds - 1 : seconds)).formatted(.iso8601)
    }
}

extension PathArgument {
    static let help: ArgumentHelp = "The path in the cluster."

    /// What is written well, and too long, is no wrong usage.
    var path: TreePath {
        get throws { do { return try parsed.get() } catch { throw CommandFailure(BanyanError(error), at: text) } }
    }

    /// Whoever writes a slash at the end means a directory.
    func checkKind(_ client: BanyanClient, _ consistency: Consistency = .linearizable) async throws {
        guard isDirectory, try await client.stat(path, consistency).kind != .directory else { return }
        throw BanyanError.notDirectory
    }
}

struct PutCommand: AsyncParsableCommand, TakesBytes {
    static let configuration = CommandConfiguration(
        commandName: "put", abstract: "Write a file (up to 1 MiB) and the directories above it.",
        usage: "banyan put [<options>] <path> <file>|-",
        discussion: """
            When it ends with 0, the file is on the disks of a majority of the members.

            A file's permissions come along, without set-id and sticky bits. What comes from standard input or a pipe leaves the \
            mode of a file that is there as it is; a new one gets 666 without the umask's bits.
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var conditions: ConditionOptions
    @Argument(help: PathArgument.help, transform: PathArgument.init) var path: PathArgument
    @Argument(help: "The file to read; - is standard input.", transform: LocalPath.init) var file: LocalPath?

    /// Without one, a script whose variable is empty would write an empty file.
    func validate() throws {
        if file == nil {
            throw ValidationError("the file to read is missing: put PATH FILE, or put PATH - for standard input")
        }
    }

    func run() async throws {
        guard let file else { return }
        let (content, mode) = try read(file)
        let target = try path.path
        try await cluster.withClient(path.text) { client in
            if path.isDirectory { throw BanyanError.isDirectory }
            let revision =
                if let mode {
                    try await client.put(target, content, mode: mode, if: conditions.condition)
                } else {
                    try await putKeepingMode(client, target, content)
                }
            try cluster.show(
                WriteResult(path: path.text, revision: revision),
                "\(Shown.name(path.text)) is at revision \(revision)")
        }
    }

    /// The mode that is there is the one that the content was written over: the write waits for that revision.
    private func putKeepingMode(_ client: BanyanClient, _ path: TreePath, _ content: [UInt8]) async throws -> UInt64 {
        while true {
            var (mode, condition) = (0o666 & ~LocalFile.creationMask, WriteCondition.absent)
            do {
                let info = try await client.stat(path)
                guard info.kind == .file else { throw BanyanError.isDirectory }
                (mode, condition) = (info.mode & 0o777, .revision(info.revision))
            } catch BanyanError.notFound {}
            let isAsked = conditions.condition != .always
            do {
                return try await client.put(path, content, mode: mode, if: isAsked ? conditions.condition : condition)
            } catch BanyanError.conditionFailed where !isAsked {
                continue
            }
        }
    }

    /// Whatever can be read: a file, a pipe, standard input. Of what is too large no more is read than shows it.
    private func read(_ file: LocalPath) throws -> (content: [UInt8], mode: UInt16?) {
        let failure = { (reason: String) in CommandFailure("\(file): can't be read: \(reason)") }
        if file.isStandard {
            do { return (try Console.read(STDIN_FILENO, bytesMax: BanyanClient.contentBytesMax), nil) } catch {
                throw failure("\(error)")
            }
        }
        do { return try LocalFile.read(file.bytes, bytesMax: BanyanClient.contentBytesMax) } catch {
            throw failure(error.reason)
        }
    }
}

struct GetCommand: AsyncParsableCommand, TakesBytes {
    static let configuration = CommandConfiguration(
        commandName: "get", abstract: "Read a file.",
        discussion: """
            It shows what was last acknowledged, whichever member is asked, unless --consistency asks for less. With --json the \
            content is base64.

            With -o, a file that is there is replaced at once. It keeps its permissions, and its owner and group where they may be \
            set (else that is said); set-id bits go. A new file gets the mode in the cluster without the umask's bits. A link, a \
            pipe or a device is written into.
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var reading: ConsistencyOptions
    @Argument(help: PathArgument.help, transform: PathArgument.init) var path: PathArgument
    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("Write to this file instead of standard output (-).", valueName: "file"),
        transform: LocalPath.init)
    var output: LocalPath?

    func run() async throws {
        let target = try path.path
        let (content, info) = try await cluster.withClient(path.text) { client in
            try await path.checkKind(client, reading.level)
            return try await client.get(target, reading.level)
        }
        guard let output, !output.isStandard else {
            if cluster.json { return try cluster.show(EntryResult(path: path.text, info, content: content), "") }
            return try Console.output(content)
        }
        Termination.removesTemporaryFiles()
        do {
            if try LocalFile.write(output.bytes, content, mode: info.mode & 0o777) {
                Console.complain("banyan", "\(output): \(Mirror.ownerLost)")
            }
        } catch {
            throw CommandFailure("\(output): can't be written: \(error.reason)")
        }
        if cluster.json { try cluster.show(EntryResult(path: path.text, info), "") }
    }
}

struct ListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List a directory, ordered by the names' bytes; or one file.",
        discussion: """
            On a terminal, characters that could command it are shown escaped; in a pipe names are printed as they are.

            With -R, a directory whose path is longer than 4096 bytes (one above it was moved) is named and makes the exit code 1; \
            mv or rm -r of one above brings what is in it back into reach.
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var reading: ConsistencyOptions
    @Argument(help: "The directory, or the file.", transform: PathArgument.init) var path = PathArgument.root
    @Flag(name: .short, help: "With mode, size, time and revision.") var long = false
    @Flag(name: .customShort("R"), help: "With everything below it.") var recursive = false

    func run() async throws {
        let target = try path.path
        let named = { (below: [UInt8]) in
            ByteText.text(target.bytes + (target == .root ? [] : [UInt8(ascii: "/")]) + below)
        }
        var lines: [(path: String, name: String, info: FileInfo)] = []
        var (vanished, unreachable): ([[UInt8]], [[UInt8]]) = ([], [])
        try await cluster.withClient(path.text) { client in
            do {
                let walk = try await TreeWalk(target, of: client, reading.level, isRecursive: recursive)
                lines = walk.entries.map { entry in
                    let path = named(entry.path)
                    return (path, recursive ? path : ByteText.text(entry.path), entry.info)
                }
                (vanished, unreachable) = (walk.vanished, walk.unreachable)
            } catch BanyanError.notDirectory where !path.isDirectory {
                lines = [(path.text, path.text, try await client.stat(target, reading.level))]
            }
        }
        if cluster.json {
            try cluster.show(lines.map { EntryResult(path: $0.path, $0.info) }, "")
        } else {
            for (_, name, info) in lines { try Console.print(line(name, info)) }
        }
        for path in vanished { Console.complain("banyan", "\(named(path)): it was removed meanwhile") }
        for path in unreachable { Console.complain("banyan", "\(named(path)): \(TreeWalk.unreachableReason)") }
        if !unreachable.isEmpty { throw ExitCode.failure }
    }

    private func line(_ name: String, _ info: FileInfo) -> String {
        let shown = Shown.name(name) + (info.kind == .directory ? "/" : "")
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
    @Argument(help: PathArgument.help, transform: PathArgument.init) var path: PathArgument

    func run() async throws {
        let target = try path.path
        let info = try await cluster.withClient(path.text) { client in
            let info = try await client.stat(target, reading.level)
            if path.isDirectory, info.kind != .directory { throw BanyanError.notDirectory }
            return info
        }
        let result = EntryResult(path: path.text, info)
        let nanoseconds = (info.modificationTime % 1_000_000_000 + 1_000_000_000) % 1_000_000_000
        let second = FileInfo(
            kind: info.kind, size: info.size, mode: info.mode,
            // A client can store any time, the earliest of all too.
            modificationTime: max(info.modificationTime, .min + 1_000_000_000) - nanoseconds,
            revision: info.revision)
        let digits = String(nanoseconds + 1_000_000_000).dropFirst()
        try cluster.show(
            result,
            """
            path      \(Shown.name(path.text))
            kind      \(result.kind)
            size      \(info.size)
            mode      \(result.mode)
            modified  \(EntryResult.date(second).dropLast()).\(digits)Z
            revision  \(info.revision)
            """)
    }
}

struct RemoveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove a file or an empty directory; with -r all below it, at once.")

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var conditions: ConditionOptions
    @Argument(help: PathArgument.help, transform: PathArgument.init) var path: PathArgument
    @Flag(name: .short, help: "A directory with all below it.") var recursive = false

    func run() async throws {
        let target = try path.path
        if target == .root { throw CommandFailure("/: the root can't be removed: name what is in it") }
        try await cluster.withClient(path.text) { client in
            try await path.checkKind(client)
            let revision = try await client.remove(target, recursive: recursive, if: conditions.condition)
            try cluster.show(
                WriteResult(path: path.text, revision: revision),
                "\(Shown.name(path.text)) was removed at revision \(revision)")
        }
    }
}

struct MakeDirectoryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mkdir", abstract: "Make a directory.", discussion: "Its mode is 777 without the umask's bits.")

    @OptionGroup var cluster: ClusterOptions
    @Argument(help: PathArgument.help, transform: PathArgument.init) var path: PathArgument
    @Flag(name: .short, help: "Make the directories above it too, and accept one that is there.") var parents = false

    func run() async throws {
        let target = try path.path
        try await cluster.withClient(path.text) { client in
            let revision = try await client.makeDirectory(
                target, mode: 0o777 & ~LocalFile.creationMask, withParents: parents)
            try cluster.show(
                WriteResult(path: path.text, revision: revision),
                "\(Shown.name(path.text)) is at revision \(revision)")
        }
    }
}

struct MoveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mv", abstract: "Move a file, or a directory with all below it, in one step.",
        discussion: """
            The new path is where it stands afterwards: a file there is replaced, and a directory takes the place of an empty \
            directory. With a slash at its end it names a directory to move into; only a directory may get a new name so.

            --if-absent is asked of the destination, --if-revision of the source.
            """)

    @OptionGroup var cluster: ClusterOptions
    @OptionGroup var conditions: ConditionOptions
    @Argument(help: "The path to move.", transform: PathArgument.init) var source: PathArgument
    @Argument(
        help: "Its new path, or with a slash at its end the directory to move it into.", transform: PathArgument.init)
    var destination: PathArgument

    func run() async throws {
        let (from, to) = (try source.path, try destination.path)
        try await cluster.withClient("\(source) to \(destination)") { client in
            try await source.checkKind(client)
            let target = destination.isDirectory ? try await below(to, from, client) : to
            let revision = try await client.move(from, to: target, if: conditions.condition)
            let text = ByteText.text(target.bytes)
            try cluster.show(
                WriteResult(path: text, revision: revision), "\(Shown.name(text)) is at revision \(revision)")
        }
    }

    /// Where the source comes to stand when `directory` was written with a slash at its end.
    private func below(_ directory: TreePath, _ source: TreePath, _ client: BanyanClient) async throws -> TreePath {
        do {
            guard try await client.stat(directory).kind == .directory else { throw BanyanError.notDirectory }
        } catch BanyanError.notFound {
            guard try await client.stat(source).kind == .directory else { throw BanyanError.notFound }
            return directory
        }
        guard let name = source.name else { throw BanyanError.invalidMove }
        do { return try directory.appending(name) } catch { throw BanyanError(error) }
    }
}
