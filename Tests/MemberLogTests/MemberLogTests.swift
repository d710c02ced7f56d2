import Foundation
import Logging
import Testing

@testable import MemberLog

@Suite("A member's log")
struct MemberLogTests {
    @Test("what finds no room is dropped and counted, in lines and in bytes")
    func bounded() {
        var queue = LogQueue()
        let wakes = (0..<LogQueue.linesMax + 7).filter { _ in queue.add([65]) }
        #expect(wakes == [0])
        let taken = queue.take()
        #expect(taken.lines.count == LogQueue.linesMax && taken.dropped == 7)
        let again = queue.take()
        #expect(again.lines.isEmpty && again.dropped == 0)
        let long = [UInt8](repeating: 65, count: LogQueue.bytesMax / 2)
        for _ in 0..<3 { _ = queue.add(long) }
        let bytes = queue.take()
        #expect(bytes.lines.count == 2 && bytes.dropped == 1)
    }

    @Test("equal lines are told twenty times in ten seconds, and then counted")
    func repeated() {
        var lines = RepeatedLines()
        let told = (0..<100).filter { _ in lines.look("a", now: 5) == .tell }
        #expect(told.count == 20)
        let other = lines.look("b", now: 5)
        #expect(other == .tell)
        let later = lines.look("a", now: 15)
        #expect(later == .tellAfter(80))
        let next = lines.look("a", now: 16)
        #expect(next == .tell)
        for name in 0..<10_000 { _ = lines.look("\(name)", now: 17) }
        let forgotten = lines.look("a", now: 17)
        #expect(forgotten == .tell)
    }

    @Test("what others say stands in a line escaped and cut, in both formats")
    func escaped() {
        let foreign = "x\ny\u{1B}[2J\u{202E}z\u{2028}"
        for line in [
            MemberLogHandler.text(.warning, "banyand", "refused", [("reason", foreign)]),
            MemberLogHandler.json(.warning, "refused", [("reason", foreign)]),
        ] {
            let bad = line.unicodeScalars.filter { $0.value < 32 || $0.value == 0x202E || $0.value == 0x2028 }
            #expect(bad.isEmpty, "\(line.debugDescription)")
            #expect(line.contains("refused"))
        }
        let fields = [("from", "1.2.3.4:5"), ("reason", "a\" peer=\"2")]
        let forged = MemberLogHandler.text(.info, "banyand", "m", fields)
        #expect(forged.hasSuffix("banyand: from=1.2.3.4:5 reason=\"a' peer='2\" m"), "\(forged)")
        let long = MemberLogHandler.json(.info, "m", [("reason", String(repeating: "a", count: 70_000))])
        #expect(long.utf8.count < 1000)
    }

    @Test(
        "nobody waits for a reader that stands still, and what it missed is told when it goes on, in the form of all lines",
        arguments: [MemberLogHandler.Format.text, .json])
    func stalledReader(_ format: MemberLogHandler.Format) throws {
        var pipes: [Int32] = [0, 0]
        #expect(pipe(&pipes) == 0)
        let output = LogOutput(descriptor: pipes[1], format: format)
        var logger = Logger(label: "test") { MemberLogHandler(label: $0, format: format, output: output) }
        logger.logLevel = .info
        let padding = String(repeating: "p", count: 400)
        // Far more than the pipe and the queue hold.
        for number in 0..<20_000 { logger.info("\(number) \(padding)") }
        output.flush(millisecondsMax: 20)
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while !String(decoding: text.suffix(200), as: UTF8.self).contains("found no room") {
            let count = read(pipes[0], &buffer, buffer.count)
            #expect(count > 0)
            if count <= 0 { break }
            text += buffer.prefix(count)
        }
        #expect(
            String(decoding: text.prefix(2000), as: UTF8.self).contains(
                format == .text ? "info test: 0 ppp" : "\"message\":\"0 ppp"))
        if format == .json {
            for line in text.split(separator: UInt8(ascii: "\n")) {
                #expect(try JSONSerialization.jsonObject(with: Data(line)) is [String: String])
            }
        }
        output.flush()
        close(pipes[0])
        // A reader that is gone ends nobody.
        logger.info("into nothing")
        output.flush()
        close(pipes[1])
    }
}
