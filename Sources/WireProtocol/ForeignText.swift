/// Texts that another process sent, as they may be shown: in one line, without anything that commands a terminal, and short.
package enum ForeignText {
    package static let bytesMax = 240

    package static func plain(_ text: String) -> String {
        var shown = ""
        for scalar in text.unicodeScalars {
            let piece = isPlain(scalar) ? String(scalar) : "\\u{\(String(scalar.value, radix: 16))}"
            guard shown.utf8.count + piece.utf8.count <= bytesMax else { return shown + "..." }
            shown += piece
        }
        return shown
    }

    private static func isPlain(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .surrogate, .unassigned: false
        default: true
        }
    }
}
