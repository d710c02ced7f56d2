import ArgumentParser
import Glibc

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

    /// Parses `arguments`, runs the command, and ends the process.
    package static func run<Command: ParsableCommand>(
        _ root: Command.Type, _ arguments: [String] = Array(CommandLine.arguments.dropFirst())
    ) async -> Never {
        signal(SIGPIPE, SIG_IGN)
        do {
            try checkEncoding()
            var command = try root.parseAsRoot(arguments)
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
                // A request for help.
                try? print(root.fullMessage(for: error))
                exit(0)
            default:
                let command = commandPath(root, arguments, name).joined(separator: " ")
                complain(name, "\(root.message(for: error)); see '\(command) --help'")
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

    /// The command that the arguments name, and the commands above it: whose help says more.
    private static func commandPath(
        _ command: any ParsableCommand.Type, _ arguments: [String], _ name: String
    ) -> [String] {
        for argument in arguments where !argument.hasPrefix("-") {
            let below = command.configuration.subcommands.first {
                ($0.configuration.commandName ?? $0._commandName) == argument
            }
            guard let below else { break }
            return [name] + commandPath(below, Array(arguments.drop { $0 != argument }.dropFirst()), argument)
        }
        return [name]
    }

    /// One line on stderr.
    package static func complain(_ name: String, _ message: String) {
        let text = message.split(whereSeparator: \.isNewline).map { $0.trimmingPrefix { $0 == " " } }.joined(
            separator: "; ")
        let line = Array("\(name): \(text)\n".utf8)
        _ = line.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }

    /// Writes a line to standard output. Who reads it may have gone, or its disk be full: that is no success.
    package static func print(_ text: String) throws { try output(Array("\(text)\n".utf8)) }

    /// Writes bytes to standard output.
    package static func output(_ bytes: [UInt8]) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            if count < 0 {
                // A reader that has seen enough, as in `| head`, needs no words.
                if errno == EPIPE { throw ExitCode(1) }
                throw CommandFailure("standard output can't be written: \(String(cString: strerror(errno)))")
            }
            rest = rest.dropFirst(count)
        }
    }
}
