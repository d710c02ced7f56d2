import Glibc

/// What is done to text before somebody sees it. Names, addresses and the reasons of others hold any characters; to a
/// terminal some are commands, and some turn the order of what stands there around.
package enum Shown {
    package static let isOutputTerminal = isatty(STDOUT_FILENO) == 1
    package static let isErrorTerminal = isatty(STDERR_FILENO) == 1

    /// A name on standard output: quoted on a terminal so that two names never look alike, and raw in a pipe.
    package static func name(_ name: String, onTerminal: Bool = isOutputTerminal) -> String {
        guard onTerminal else { return name }
        return escaped(name) { isUnsafe($0) || $0 == "\\" }
    }

    /// All that a program says in one line. In a pipe, only what would make two lines of it is escaped.
    package static func line(_ text: String, onTerminal: Bool = isErrorTerminal) -> String {
        escaped(text, where: onTerminal ? isUnsafe : breaksLines)
    }

    /// Lines that a program says.
    package static func lines(_ text: String, onTerminal: Bool = isOutputTerminal) -> String {
        onTerminal ? escaped(text) { isUnsafe($0) && $0 != "\n" } : text
    }

    /// JSON, in which strings alone hold such characters: it stays the same JSON.
    package static func json(_ text: String, onTerminal: Bool = isOutputTerminal) -> String {
        guard onTerminal, text.unicodeScalars.contains(where: { isUnsafe($0) && $0 != "\n" }) else { return text }
        return text.unicodeScalars.reduce(into: "") { text, scalar in
            guard isUnsafe(scalar), scalar != "\n" else { return text.unicodeScalars.append(scalar) }
            for unit in String(scalar).utf16 {
                let digits = String(unit, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            }
        }
    }

    /// Names of files whose bytes are no text, for what can hold text alone.
    package static func text(_ bytes: [UInt8]) -> String { escaped(ByteText.text(bytes)) { ByteText.byte($0) != nil } }

    private static func escaped(_ text: String, where isEscaped: (Unicode.Scalar) -> Bool) -> String {
        guard text.unicodeScalars.contains(where: isEscaped) else { return text }
        return text.unicodeScalars.reduce(into: "") { text, scalar in
            guard isEscaped(scalar) else { return text.unicodeScalars.append(scalar) }
            if let byte = ByteText.byte(scalar) { return text += "\\x\(String(byte, radix: 16))" }
            switch scalar {
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            case "\\": text += "\\\\"
            default: text += "\\u{\(String(scalar.value, radix: 16))}"
            }
        }
    }

    private static func breaksLines(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x0A...0x0D, 0x85, 0x2028, 0x2029: true
        default: false
        }
    }

    /// Control and format characters (among them those that turn the direction of writing), line ends of any kind, and
    /// bytes that are no text.
    private static func isUnsafe(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.value >= 0x20, scalar.value < 0x7F { return false }
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator: return true
        default: return ByteText.byte(scalar) != nil
        }
    }
}
