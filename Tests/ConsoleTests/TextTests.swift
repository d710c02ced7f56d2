import FileTree
import Testing

@testable import Console

@Suite("Names and arguments")
struct TextTests {
    @Test("bytes of any kind become text and the same bytes again, and no two become one text")
    func bytesAsText() {
        let names: [[UInt8]] = [
            [], Array("plain".utf8), Array("caf\u{E9}".utf8), Array("cafe\u{301}".utf8), [0xFF], [0x61, 0xC3, 0x62],
            [0xC3],
            Array("\u{10FFFF}".utf8), Array("\u{10FF80}x".utf8), [0xF4, 0x8F, 0xBE, 0x80, 0x80],
            Array("🌳".utf8) + [0x9F],
        ]
        for name in names { #expect(ByteText.bytes(ByteText.text(name)) == name) }
        #expect(Set(names.map { Array(ByteText.text($0).utf8) }).count == names.count)
        for byte in UInt8.min...UInt8.max { #expect(ByteText.bytes(ByteText.text([byte])) == [byte]) }
    }

    @Test("a terminal is shown no control or format character of a name, a pipe gets the name")
    func shown() {
        let name = "a\u{1B}[2J\n\u{202E}b\\\u{9B}\u{2028}"
        #expect(Shown.name(name, onTerminal: true) == "a\\u{1b}[2J\\n\\u{202e}b\\\\\\u{9b}\\u{2028}")
        #expect(Shown.name(name, onTerminal: false) == name)
        #expect(Shown.name("Bäume 🌳 עץ", onTerminal: true) == "Bäume 🌳 עץ")
        #expect(Shown.lines("one\ntwo\u{7}", onTerminal: true) == "one\ntwo\\u{7}")
        #expect(Shown.name(ByteText.text([0x61, 0xFF]), onTerminal: true) == "a\\xff")
    }

    @Test("an error stays one line, whatever the name in it")
    func oneLine() {
        #expect(Shown.line("/a\nb\rc\u{2028}d: gone", onTerminal: false) == "/a\\nb\\rc\\u{2028}d: gone")
        #expect(Shown.line("/a\u{1B}b", onTerminal: false) == "/a\u{1B}b")
        #expect(Shown.line("/a\u{1B}b\n", onTerminal: true) == "/a\\u{1b}b\\n")
    }

    @Test("JSON on a terminal is the same JSON without such characters")
    func json() {
        let text = "{\n \"a\u{202E}\u{E0041}\" : 1\n}"
        #expect(Shown.json(text, onTerminal: true) == "{\n \"a\\u202e\\udb40\\udc41\" : 1\n}")
        #expect(Shown.json(text, onTerminal: false) == text)
    }

    @Test(
        "one slash at the end says a directory, and what is no path is said to be none",
        arguments: ["", "//", "/a//b", "/a//", "/.", "/..", "/a/.", "/a/../b", "/./", "./a", "..", "a//b"])
    func wrongPaths(text: String) {
        #expect(throws: (any Error).self) { try PathArgument(text) }
    }

    @Test("paths are split at the byte of a slash")
    func paths() throws {
        #expect(try PathArgument("/").parsed == .success(.root))
        let directory = try PathArgument("/a/b/")
        #expect(try directory.parsed.get().bytes == Array("/a/b".utf8))
        #expect(directory.isDirectory && directory.text == "/a/b/")
        #expect(try !PathArgument("/a/b").isDirectory)
        // To `String`, these slashes are none.
        let marked = try PathArgument("/m/\u{301}x")
        #expect(try marked.parsed.get().components.count == 2)
        #expect(try PathArgument("/m/\u{FE0F}").isDirectory == false)
        #expect(throws: (any Error).self) { try PathArgument("/m//\u{301}x") }
        // Written well, and too long.
        #expect(try PathArgument("/" + String(repeating: "n", count: 256)).parsed == .failure(.nameTooLong))
        #expect(throws: (any Error).self) { try PathArgument("relative") }
        #expect(try PathArgument(String(repeating: "/n", count: 2049)).parsed == .failure(.invalidPath))
        #expect(try PathArgument(String(repeating: "/n", count: 2048) + "/").isDirectory)
        #expect(throws: (any Error).self) { try PathArgument(ByteText.text([0x2F, 0xFF])) }
        #expect(try LocalPath(ByteText.text([0x2F, 0xFF])).bytes == [0x2F, 0xFF])
        #expect(throws: (any Error).self) { try LocalPath("") }
        #expect(try LocalPath("-").isStandard && !LocalPath("-\u{301}").isStandard)
    }
}
