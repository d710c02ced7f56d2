import ArgumentParser
import Dispatch
import Glibc
import Synchronization

/// What went wrong, in one line, and the exit code for it.
package struct CommandFailure: Error {
    package let message: String
    package let exitCode: Int32

    package init(_ message: String, exitCode: Int32 = 1) {
        self.message = message
        self.exitCode = exitCode
    }
}

/// How Banyan's programs begin and end: one line on stderr that says what to do, and an exit code that scripts rely on.
package enum Console {
    /// Of all of Banyan's programs.
    package static let version = "0.5.0"

    /// The exit code of wrong usage.
    package static let wrongUsage: Int32 = 2

    /// The arguments of this process, the program's own name left out: those that are no UTF-8 as `ByteText` writes them.
    package static var arguments: [String] {
        (1..<max(1, Int(CommandLine.argc))).compactMap { position in
            guard let argument = CommandLine.unsafeArgv[position] else { return nil }
            return ByteText.text(Array(UnsafeRawBufferPointer(start: argument, count: strlen(argument))))
        }
    }

    /// Parses `arguments`, runs the command, and ends the process.
    ///
    /// To be called from a `main` that is not asynchronous: one that is has the system's main queue opened before its first
    /// line, in the place of a standard descriptor that is closed.
    package static func start<Command: ParsableCommand & SendableMetatype>(
        _ root: Command.Type, _ arguments: [String] = arguments
    ) -> Never {
        Descriptors.fillStandard()
        Descriptors.raiseLimit()
        signal(SIGPIPE, SIG_IGN)
        Task { await run(root, arguments) }
        dispatchMain()
    }

    private static func run<Command: ParsableCommand>(_ root: Command.Type, _ arguments: [String]) async -> Never {
        do {
            var command = try root.parseAsRoot(arguments)
            if !(command is any TakesBytes) { try checkEncoding() }
            if var command = command as? any AsyncParsableCommand { try await command.run() } else { try command.run() }
            exit(0)
        } catch {
            let name = root.configuration.commandName ?? root._commandName
            switch error {
            case let failure as CommandFailure:
                complain(name, failure.message)
                exit(failure.exitCode)
            case let code as ExitCode: exit(code.rawValue)
            case _ where root.exitCode(for: error) == .failure:
                // Not of the parser's making.
                complain(name, "\(error)")
                exit(1)
            case _ where root.exitCode(for: error) == .success:
                let place = place(root, arguments, name)
                if place.isGroup, !isQuestion(arguments) {
                    // The parser takes a command that is left out for a request for help.
                    complain(name, place.wrong)
                    exit(wrongUsage)
                }
                try? print(root.fullMessage(for: error))
                exit(0)
            default:
                let place = place(root, arguments, name)
                // Values to choose from come in lines of their own.
                let message = root.message(for: error).replacing("\n  - ", with: " ")
                complain(name, place.isGroup && place.next != nil ? place.wrong : place.see(message))
                exit(wrongUsage)
            }
        }
    }

    /// Swift would put a replacement character in the place of what is no UTF-8: two paths would become one.
    private static func checkEncoding() throws {
        for position in 1..<max(1, Int(CommandLine.argc)) {
            guard let argument = CommandLine.unsafeArgv[position] else { continue }
            guard String(validatingCString: argument) == nil else { continue }
            throw CommandFailure(
                "argument \(position), '\(String(cString: argument))', is not UTF-8: paths and names are",
                exitCode: wrongUsage)
        }
    }

    /// How far the arguments name a command.
    struct Place: Equatable {
        /// The command, and those above it: whose help says more.
        var path: [String]
        /// The commands below it; none of them is named.
        var commands: [String]
        /// What stands in the place of one of them.
        var next: String?

        var isGroup: Bool { !commands.isEmpty }

        func see(_ message: String) -> String { "\(message); see '\(path.joined(separator: " ")) --help'" }

        /// What to say when none of the commands is named.
        var wrong: String {
            let usage =
                "usage: \(path.joined(separator: " ")) COMMAND, which is one of \(commands.joined(separator: ", "))"
            guard let next else { return see("a command is missing: " + usage) }
            guard let nearest = Nearest.word(to: next, among: commands) else {
                return see("there is no command '\(next)': " + usage)
            }
            return see("there is no command '\(next)': did you mean '\(nearest)'?")
        }
    }

    static func place(_ command: any ParsableCommand.Type, _ arguments: [String], _ name: String) -> Place {
        let below = command.configuration.subcommands
        let names = below.map { $0.configuration.commandName ?? $0._commandName }
        let next = arguments.first { !$0.hasPrefix("-") }
        guard let next, let position = names.firstIndex(of: next) else {
            return Place(path: [name], commands: names, next: next)
        }
        var place = place(below[position], Array(arguments.drop { $0 != next }.dropFirst()), next)
        place.path.insert(name, at: 0)
        return place
    }

    /// Whether the program is asked about itself.
    private static func isQuestion(_ arguments: [String]) -> Bool {
        arguments.contains { argument in
            ["-h", "--help", "-help", "help", "--version", "--help-hidden"].contains(argument)
                || ["--generate-completion-script", "--experimental-dump-help"].contains { argument.hasPrefix($0) }
        }
    }

    /// One line on stderr.
    package static func complain(_ name: String, _ message: String) {
        // Who does not read this does not stop the program; and once was waited for, no more.
        let bytes = ByteText.bytes("\(name): \(Shown.line(message))\n")
        let isRead = isRead.load(ordering: .relaxed)
        do { try write(bytes, to: STDERR_FILENO, patience: isRead ? 1000 : 0) } catch {
            Self.isRead.store(false, ordering: .relaxed)
        }
    }

    /// Whether somebody takes in what goes to standard error.
    private static let isRead = Atomic(true)

    /// Writes lines to standard output. Who reads it may have gone, or its disk be full: that is no success.
    package static func print(_ text: String) throws { try output(ByteText.bytes(Shown.lines(text) + "\n")) }

    /// Writes bytes to standard output.
    package static func output(_ bytes: [UInt8]) throws {
        do { try write(bytes, to: STDOUT_FILENO, patience: -1) } catch {
            // A reader that has seen enough, as in `| head`, needs no words.
            if error.code == EPIPE { throw ExitCode(1) }
            throw CommandFailure("standard output can't be written: \(error)")
        }
    }

    /// Writes all of it, whether or not the other side set the pipe to non-blocking.
    ///
    /// - Parameter patience: how many milliseconds to wait for who reads; -1 for ever.
    package static func write(_ bytes: [UInt8], to file: CInt, patience: CInt = -1) throws(SystemError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            // So much goes into a pipe that is ready for some, without waiting.
            let piece = patience < 0 ? rest : rest.prefix(4096)
            if patience >= 0 { try ready(file, POLLOUT, patience, else: SystemError(code: EAGAIN)) }
            let count = piece.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            if count < 0 {
                try wait(for: file, POLLOUT, patience)
            } else {
                rest = rest.dropFirst(count)
            }
        }
    }

    /// Reads to the end, but no more than shows that there are more than `bytesMax`.
    package static func read(_ file: CInt, bytesMax: Int) throws(SystemError) -> [UInt8] {
        var content: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while content.count <= bytesMax {
            let count = Glibc.read(file, &buffer, buffer.count)
            if count < 0 {
                try wait(for: file, POLLIN, -1)
            } else if count == 0 {
                break
            } else {
                content += buffer[..<count]
            }
        }
        return content
    }

    /// Waits until a call that has just failed may be tried again.
    private static func wait(for file: CInt, _ event: CInt, _ patience: CInt) throws(SystemError) {
        let error = SystemError()
        if error.code == EINTR { return }
        guard error.code == EAGAIN else { throw error }
        try ready(file, event, patience, else: error)
    }

    private static func ready(
        _ file: CInt, _ event: CInt, _ patience: CInt, else error: SystemError
    ) throws(SystemError) {
        var descriptor = pollfd(fd: file, events: CShort(event), revents: 0)
        let count = poll(&descriptor, 1, patience)
        if count == 0 { throw error }
        if count < 0, errno != EINTR { throw SystemError() }
    }
}

/// Why a call to the system failed.
package struct SystemError: Error, Equatable, CustomStringConvertible {
    package let code: CInt

    package init(code: CInt = errno) { self.code = code }

    package var description: String { String(cString: strerror(code)) }
}
