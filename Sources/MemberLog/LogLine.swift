import Console
import Glibc
import Logging

/// A member's log lines: for people as text, or one JSON object a line for machines that read them. What others have said
/// stands in them escaped and cut.
package struct MemberLogHandler: LogHandler {
    package enum Format: Sendable {
        case text, json

        func line(
            _ level: Logger.Level, _ label: String, _ message: String, _ fields: [(String, String)]
        ) -> [UInt8] {
            let line =
                switch self {
                case .text: MemberLogHandler.text(level, label, message, fields)
                case .json: MemberLogHandler.json(level, message, fields)
                }
            return Array((line + "\n").utf8)
        }
    }

    let label: String
    let format: Format
    let output: LogOutput
    package var logLevel = Logger.Level.info
    package var metadata: Logger.Metadata = [:]

    package init(label: String, format: Format, output: LogOutput) {
        self.label = label
        self.format = format
        self.output = output
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        let message = event.message.description
        output.tell("\(event.level.rawValue) \(message)") { notTold in
            var fields = metadata
            if let more = event.metadata { fields.merge(more) { $1 } }
            if notTold > 0 { fields["equal_lines_not_told"] = "\(notTold)" }
            let pairs = fields.sorted { $0.key < $1.key }.map { ($0.key, $0.value.description) }
            return format.line(event.level, label, message, pairs)
        }
    }

    /// The longest text of one field, in characters of Unicode.
    static let scalarsMax = 512

    private static func cut(_ text: String) -> String {
        guard text.unicodeScalars.count > scalarsMax else { return text }
        return String(String.UnicodeScalarView(text.unicodeScalars.prefix(scalarsMax))) + "…"
    }

    static func text(_ level: Logger.Level, _ label: String, _ message: String, _ fields: [(String, String)]) -> String
    {
        let metadata = fields.map { "\($0)=\(value($1))" }.joined(separator: " ")
        let text = Shown.line(cut(message), onTerminal: true)
        return "\(time("%Y-%m-%dT%H:%M:%S%z")) \(level) \(label):\(metadata.isEmpty ? "" : " " + metadata) \(text)"
    }

    /// In quotes where it would else look like several, or like another field.
    private static func value(_ text: String) -> String {
        let text = Shown.line(cut(text), onTerminal: true)
        let isPlain = !text.isEmpty && !text.unicodeScalars.contains { " \"=".unicodeScalars.contains($0) }
        return isPlain ? text : "\"\(text.replacing("\"", with: "'"))\""
    }

    static func json(_ level: Logger.Level, _ message: String, _ fields: [(String, String)]) -> String {
        let pairs =
            [("time", time("%Y-%m-%dT%H:%M:%S", isUTC: true)), ("level", level.rawValue), ("message", cut(message))]
            + fields.map { ($0, cut($1)) }
        return Shown.json(
            "{\(pairs.map { "\(quoted($0)):\(quoted($1))" }.joined(separator: ","))}", onTerminal: true)
    }

    /// The local time, or UTC as RFC 3339 with milliseconds.
    private static func time(_ format: String, isUTC: Bool = false) -> String {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        var fields = tm()
        if isUTC { gmtime_r(&now.tv_sec, &fields) } else { localtime_r(&now.tv_sec, &fields) }
        var text = [CChar](repeating: 0, count: 64)
        let length = strftime(&text, text.count, format, &fields)
        let formatted = String(decoding: text[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return isUTC ? formatted + ".\(String(now.tv_nsec / 1_000_000 + 1000).dropFirst())Z" : formatted
    }

    private static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": quoted += "\\\(scalar)"
            case "\n": quoted += "\\n"
            case "\u{0}"..<" ":
                let digits = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}
