import ArgumentParser
import BanyanClient
import Console
import FileTree
import Foundation
import Mirror

/// A mode as `chmod` takes it: octal, or what is to be changed of the one that is there, as in `u+x,go-w`.
struct ModeChange: ExpressibleByArgument, Equatable {
    private struct Clause: Equatable {
        let bits: UInt16
        /// Of those whom it names.
        let mask: UInt16
        let operation: Character
    }

    /// The whole mode, when it was given in octal.
    let mode: UInt16?
    private let clauses: [Clause]

    init?(argument: String) {
        if let octal = UInt16(argument, radix: 8), octal <= 0o7777, argument.utf8.allSatisfy({ $0 >= 48 && $0 < 56 }) {
            (mode, clauses) = (octal, [])
            return
        }
        var clauses: [Clause] = []
        for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
            guard let sign = part.firstIndex(where: { "+-=".contains($0) }) else { return nil }
            var whom: UInt16 = 0
            for name in part[..<sign] {
                switch name {
                case "u": whom |= 0o700
                case "g": whom |= 0o070
                case "o": whom |= 0o007
                case "a": whom |= 0o777
                default: return nil
                }
            }
            var bits: UInt16 = 0
            for right in part[part.index(after: sign)...] {
                switch right {
                case "r": bits |= 0o444
                case "w": bits |= 0o222
                case "x": bits |= 0o111
                default: return nil
                }
            }
            // Of all, but for what the umask forbids, when nobody is named.
            let named = whom == 0 ? 0o777 & ~LocalFile.creationMask : whom
            clauses.append(
                Clause(bits: bits & named, mask: whom == 0 ? 0o777 : whom, operation: part[sign]))
        }
        (mode, self.clauses) = (nil, clauses)
    }

    /// What becomes of a mode.
    func applied(to old: UInt16) -> UInt16 {
        if let mode { return mode }
        return clauses.reduce(old) { mode, clause in
            switch clause.operation {
            case "+": mode | clause.bits
            case "-": mode & ~clause.bits
            default: (mode & ~clause.mask) | clause.bits
            }
        }
    }
}

/// A time as `touch` takes it: with its zone, or seconds since 1970 behind an @; either may have a fraction.
struct TimeArgument: ExpressibleByArgument, Equatable {
    /// Since 1970.
    let nanoseconds: Int64

    init?(argument: String) {
        if argument.first == "@" {
            guard let time = Self.nanoseconds(argument.dropFirst()) else { return nil }
            nanoseconds = time
            return
        }
        // The fraction apart: dates know whole seconds here.
        guard let match = argument.wholeMatch(of: /([^.]+)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)/),
            let date = try? Date("\(match.1)\(match.3)", strategy: .iso8601),
            let time = Self.nanoseconds("\(Int64(date.timeIntervalSince1970)).\(match.2 ?? "0")")
        else { return nil }
        nanoseconds = time
    }

    /// Of seconds in decimal: a fraction counts forward from the whole second, as in the system's own times.
    private static func nanoseconds(_ text: some StringProtocol) -> Int64? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), let seconds = Int64(parts[0]), parts[0] != "-0" else { return nil }
        let digits = parts.count == 2 ? String(parts[1]) : "0"
        guard (1...9).contains(digits.count), digits.utf8.allSatisfy({ (48...57).contains($0) }),
            let fraction = Int64(digits.padding(toLength: 9, withPad: "0", startingAt: 0))
        else { return nil }
        let (whole, isTooLarge) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (time, isTooLate) = whole.addingReportingOverflow(fraction)
        return isTooLarge || isTooLate ? nil : time
    }
}

extension PathArgument {
    /// The path of something whose attributes are kept.
    fileprivate var keeper: TreePath {
        get throws {
            let path = try path
            if path == .root { throw CommandFailure("/: the root has no mode and time of its own: name what is in it") }
            return path
        }
    }
}

struct ChangeModeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chmod", abstract: "Set the mode of files and directories; their content is not sent.",
        discussion: """
            MODE is octal, as in 640, or says what changes, as in u+x or g=r,o= ([ugoa...][+-=][rwx...], several with commas).

            Of a file its permissions are kept; of a directory set-id and sticky bits, too. A mode that says what changes is applied \
            to what is there now: if somebody else changes the entry meanwhile, it is looked at again.
            """)

    @OptionGroup var cluster: ClusterOptions
    @Option(name: .customLong("if-revision"), help: "Only if the path is at this revision; else exit with 4.")
    var ifRevision: UInt64?
    @Argument(help: "The mode, in octal or as a change.") var mode: ModeChange
    @Argument(help: PathArgument.help, transform: PathArgument.init) var paths: [PathArgument]

    func validate() throws {
        if ifRevision != nil, paths.count > 1 { throw ValidationError("--if-revision is asked of one path") }
    }

    func run() async throws {
        for path in paths {
            let target = try path.keeper
            try await cluster.withClient(path.text) { client in
                try await path.checkKind(client)
                let revision = try await change(target, client)
                try cluster.show(
                    WriteResult(path: path.text, revision: revision),
                    "\(Shown.name(path.text)) is at revision \(revision)")
            }
        }
    }

    private func change(_ path: TreePath, _ client: BanyanClient) async throws -> UInt64 {
        let asked = ifRevision.map { WriteCondition.revision($0) }
        if let octal = mode.mode {
            return try await client.setAttributes(path, mode: octal, if: asked ?? .always)
        }
        while true {
            let info = try await client.stat(path)
            do {
                return try await client.setAttributes(
                    path, mode: mode.applied(to: info.mode), if: asked ?? .revision(info.revision))
            } catch BanyanError.conditionFailed where asked == nil { continue }
        }
    }
}

struct TouchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "touch", abstract: "Set the time of files and directories; a file that is not there is made.",
        discussion: """
            The time is now, unless --date says another: as in 2026-03-01T12:30:00Z, 2026-03-01T12:30:00.25+01:00, or seconds since \
            1970 as in @1772368200.5. Now is when the cluster's leader takes it up.
            """)

    @OptionGroup var cluster: ClusterOptions
    @Option(name: .shortAndLong, help: "This time instead of now.") var date: TimeArgument?
    @Flag(name: [.customShort("c"), .long], help: "Make no file that is not there; that is no failure.") var noCreate =
        false
    @Argument(help: PathArgument.help, transform: PathArgument.init) var paths: [PathArgument]

    func run() async throws {
        for path in paths {
            let target = try path.keeper
            try await cluster.withClient(path.text) { client in
                guard let revision = try await touch(target, path, client) else { return }
                try cluster.show(
                    WriteResult(path: path.text, revision: revision),
                    "\(Shown.name(path.text)) is at revision \(revision)")
            }
        }
    }

    /// Nil: it is not there, and is not to be made.
    private func touch(_ target: TreePath, _ path: PathArgument, _ client: BanyanClient) async throws -> UInt64? {
        while true {
            do {
                try await path.checkKind(client)
                return try await client.setAttributes(
                    target, modificationTime: date.map { .at($0.nanoseconds) } ?? .now)
            } catch BanyanError.notFound {
                if noCreate { return nil }
                if path.isDirectory { throw BanyanError.notFound }
            }
            do {
                return try await client.put(
                    target, [], mode: 0o666 & ~LocalFile.creationMask, modificationTime: date?.nanoseconds, if: .absent)
            } catch BanyanError.conditionFailed { continue }
        }
    }
}
