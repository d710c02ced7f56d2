import Foundation
import Testing

@testable import Mirror

@Suite("Whole files")
struct WholeFileTests {
    private func save(_ text: String, to path: [UInt8]) throws {
        let file = try WholeFile(path)
        try file.write(Array(text.utf8))
        try file.sync()
        #expect(try String(contentsOfFile: file.readablePath, encoding: .utf8) == text)
        try file.finish()
    }

    @Test("the file that the system would open is replaced, whatever links, dots and bytes are in its name")
    func places() throws {
        let folder = try Folder()
        folder.makeDirectory("other")
        folder.makeDirectory("other/below")
        folder.makeDirectory("~")
        folder.link("link", to: "other/below")
        folder.write("f", "mine")
        folder.write("other/f", "old")
        folder.write("~/f", "old")
        try save("new", to: folder.bytes + Array("/link/../f".utf8))
        try save("new", to: folder.bytes + Array("/~/f".utf8))
        #expect(folder.content("f") == "mine" && folder.content("other/f") == "new" && folder.content("~/f") == "new")
        let bytes = Array("/t".utf8) + [0xFF]
        try save("first", to: folder.bytes + bytes)
        try save("second", to: folder.bytes + bytes)
        #expect(try LocalFile.read(folder.bytes + bytes, bytesMax: 100).content == Array("second".utf8))
        folder.link("leads", to: "f")
        try save("through", to: folder.bytes + Array("/leads".utf8))
        #expect(folder.content("f") == "through")
        #expect(folder.names().filter { $0.hasPrefix(".") }.isEmpty)
    }

    @Test("what is no file stays, and what is not finished leaves nothing")
    func refused() throws {
        let folder = try Folder()
        folder.makeDirectory("d")
        folder.link("nowhere", to: "gone")
        for name in ["d", "nowhere", "d/", "gone/f"] {
            #expect(throws: LocalError.self, "\(name)") { try WholeFile(folder.bytes + Array("/\(name)".utf8)) }
        }
        do {
            let file = try WholeFile(folder.bytes + Array("/half".utf8))
            try file.write([1, 2, 3])
        }
        #expect(folder.names() == ["d", "nowhere"])
    }
}
