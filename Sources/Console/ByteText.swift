/// Bytes as text that can be turned back, whatever they are.
///
/// Names of files are bytes and arguments are text. Valid UTF-8 stands for itself. Each byte that is none becomes one of the
/// last 128 characters of the private planes, U+10FF80 to U+10FFFF; where these themselves stand in the bytes, their bytes
/// are written so, one by one. So no two names become one text.
package enum ByteText {
    private static let first: UInt32 = 0x10FF00

    package static func text(_ bytes: [UInt8]) -> String {
        if let text = String(validating: bytes, as: UTF8.self), !text.unicodeScalars.contains(where: isEscape) {
            return text
        }
        var text = ""
        var rest = bytes[...]
        while let byte = rest.first {
            let scalar = (1...4).lazy.compactMap {
                String(validating: rest.prefix($0), as: UTF8.self)?.unicodeScalars.first
            }
            .first
            if let scalar, !isEscape(scalar) {
                text.unicodeScalars.append(scalar)
                rest = rest.dropFirst(UTF8.width(scalar))
            } else {
                if let scalar = Unicode.Scalar(first + UInt32(byte)) { text.unicodeScalars.append(scalar) }
                rest = rest.dropFirst()
            }
        }
        return text
    }

    package static func bytes(_ text: String) -> [UInt8] {
        guard text.unicodeScalars.contains(where: isEscape) else { return Array(text.utf8) }
        return text.unicodeScalars.flatMap { scalar in
            isEscape(scalar) ? [UInt8(truncatingIfNeeded: scalar.value)] : Array(String(scalar).utf8)
        }
    }

    /// The byte that a character stands for, if it stands for one.
    static func byte(_ scalar: Unicode.Scalar) -> UInt8? {
        isEscape(scalar) ? UInt8(truncatingIfNeeded: scalar.value) : nil
    }

    private static func isEscape(_ scalar: Unicode.Scalar) -> Bool { scalar.value >= first + 0x80 }
}
