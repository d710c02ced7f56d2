import NIOCore
import Testing
import Transport
import WireProtocol

@testable import Node

@Suite("Goodbyes")
struct RefusalsTests {
    @Test("a reason is told once, however often it is heard, and stands in the status while it lasts")
    func told() {
        var refusals = Refusals<UInt64>()
        func isNews(_ peer: UInt64, _ reason: String) -> Bool { refusals.refused(peer, reason) }
        #expect(isNews(3, "given up"))
        #expect(!isNews(3, "given up"))
        #expect(isNews(2, "given up"))
        #expect(refusals.current.map(\.peer) == [2, 3])
        refusals.welcomed(3)
        #expect(refusals.current.map(\.peer) == [2])
        #expect(!isNews(3, "given up"))
        #expect(isNews(3, "another"))
        #expect(refusals.current.map(\.reason) == ["given up", "another"])
        refusals.forget(2)
        #expect(refusals.current.map(\.peer) == [3])
    }

    @Test("who refuses is asked less and less often, and never given up")
    func growing() {
        var pause = LinkPause()
        func next(_ ready: TimeAmount?, isRefused: Bool) -> TimeAmount {
            pause.next(wasReadyFor: ready, isRefused: isRefused)
        }
        let refused = (0..<7).map { _ in next(nil, isRefused: true).nanoseconds / 1_000_000 }
        #expect(refused == [250, 500, 1000, 2000, 4000, 5000, 5000])
        // A welcome before each goodbye does not help; a connection that lasted does.
        #expect(next(.milliseconds(900), isRefused: true) == .seconds(5))
        #expect(next(.seconds(10), isRefused: true) == .milliseconds(250))
    }

    @Test("who can't be reached is asked at once, and twice in a second at least")
    func unreachable() {
        var pause = LinkPause()
        func next(_ ready: TimeAmount?, isRefused: Bool) -> TimeAmount {
            pause.next(wasReadyFor: ready, isRefused: isRefused)
        }
        let broken = (0..<7).map { _ in next(nil, isRefused: false).nanoseconds / 1_000_000 }
        #expect(broken == [20, 40, 80, 160, 320, 500, 500])
        #expect(next(.seconds(1), isRefused: false) == .milliseconds(20))
    }

    @Test("what another process says is one line, commands no terminal, and is short")
    func plain() {
        #expect(ForeignText.plain("ok: ä \"x\"") == "ok: ä \"x\"")
        #expect(ForeignText.plain("a\nb\u{1b}[2J\u{202e}") == "a\\u{a}b\\u{1b}[2J\\u{202e}")
        #expect(ForeignText.plain(String(repeating: "x", count: 240)).utf8.count == 240)
        let cut = ForeignText.plain(String(repeating: "\n", count: 60_000))
        #expect(cut.hasSuffix("..."))
        #expect(cut.utf8.count <= ForeignText.bytesMax + 3)
    }
}
