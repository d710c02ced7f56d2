import ArgumentParser
import Testing

@testable import Console

@Suite("Words on the console")
struct ConsoleTests {
    private static let commands = [
        "put", "get", "ls", "stat", "rm", "mkdir", "mv", "mirror", "status", "leader", "member", "verify", "compact",
        "snapshot", "recover", "local",
    ]

    @Test("what was meant by a word is the nearest command, if any is near")
    func nearest() {
        let cases: [(String, String?)] = [
            ("gte", "get"), ("gett", "get"), ("pt", "put"), ("Put", "put"), ("stats", "stat"), ("mebmer", "member"),
            ("snap", "snapshot"), ("leeder", "leader"), ("mkdri", "mkdir"), ("lst", "ls"), ("remov", nil),
            ("frobnicate", nil), ("", nil), ("x", nil), ("verfy", "verify"), ("mirorr", "mirror"),
            ("compct", "compact"),
        ]
        for (typed, word) in cases {
            #expect(Nearest.word(to: typed, among: Self.commands) == word, "\(typed)")
        }
    }

    @Test("the distance of two words counts letters more, less, others, and two in the other order")
    func distance() {
        let cases: [(String, String, Int)] = [
            ("", "", 0), ("", "ab", 2), ("ab", "", 2), ("ab", "ba", 1), ("abc", "abd", 1), ("abc", "ab", 1),
            ("kitten", "sitting", 3),
        ]
        for (left, right, count) in cases {
            #expect(Nearest.distance(Array(left.utf8), Array(right.utf8)) == count, "\(left) \(right)")
        }
    }

    private struct Root: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "tree", subcommands: [Leaf.self, Branch.self])
        struct Leaf: ParsableCommand { @Argument var path: String }
        struct Branch: ParsableCommand {
            static let configuration = CommandConfiguration(subcommands: [Twig.self])
            struct Twig: ParsableCommand {}
        }
    }

    @Test("a command that is missing or unknown is told with its place, and what is there")
    func places() {
        let words = { (arguments: [String]) in Console.place(Root.self, arguments, "tree").wrong }
        #expect(words([]).contains("usage: tree COMMAND, which is one of leaf, branch; see 'tree --help'"))
        #expect(words(["laef"]).contains("there is no command 'laef': did you mean 'leaf'?"))
        #expect(words(["branch"]).contains("usage: tree branch COMMAND, which is one of twig"))
        #expect(words(["--x", "branch", "twgi"]).contains("did you mean 'twig'?; see 'tree branch --help'"))
        #expect(!Console.place(Root.self, ["leaf"], "tree").isGroup)
    }

    @Test("sizes are read in powers of 1,024 and of 1,000, and nothing else is")
    func sizes() {
        let cases: [(String, UInt64?)] = [
            ("0", 0), ("256", 256), ("1MiB", 1 << 20), ("1mib", 1 << 20), ("64KiB", 65_536), ("64k", 65_536),
            ("64K", 65_536), ("1kB", 1000), ("1MB", 1_000_000), ("2GiB", 2 << 30), ("2G", 2 << 30), ("1TiB", 1 << 40),
            ("10B", 10), ("", nil), ("MiB", nil), ("-1", nil), ("+1", nil), ("1.5MiB", nil), ("1 MiB", nil),
            ("1XB", nil),
            ("9223372036854775807", UInt64(Int64.max)), ("9223372036854775808", nil), ("99999999TiB", nil),
        ]
        for (text, bytes) in cases { #expect(ByteSize(argument: text)?.bytes == bytes, "\(text)") }
    }

    @Test("a line of progress is narrower than its terminal")
    func progress() {
        #expect(ProgressLine.fitted("abcdef", 80) == "abcdef")
        #expect(ProgressLine.fitted("abcdef", 6) == "abcde")
        #expect(ProgressLine.fitted("abcdef", 1) == "")
        #expect(ProgressLine.fitted("abcdef", 0) == "")
    }
}
