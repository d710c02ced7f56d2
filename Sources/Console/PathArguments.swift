import ArgumentParser
import FileTree

/// A path of the tree as people write it. One slash at its end says that a directory is meant.
package struct PathArgument: Sendable, CustomStringConvertible {
    package static let root = PathArgument(text: "/", isDirectory: true, parsed: .success(.root))

    /// As it was written.
    package let text: String
    /// Whether it ends with a slash.
    package let isDirectory: Bool
    /// What is written well may still be too long.
    package let parsed: Result<TreePath, TreeError>

    private init(text: String, isDirectory: Bool, parsed: Result<TreePath, TreeError>) {
        self.text = text
        self.isDirectory = isDirectory
        self.parsed = parsed
    }

    /// - Throws: what is wrong with the way it is written.
    package init(_ text: String) throws {
        let slash = UInt8(ascii: "/")
        let bytes = ByteText.bytes(text)
        let isDirectory = bytes.last == slash
        let failure: (String) -> ValidationError = { ValidationError("not a valid path: \($0)") }
        guard !bytes.isEmpty else { throw failure("it is empty; / is the root") }
        guard String(validating: bytes, as: UTF8.self) != nil else { throw failure("it is not UTF-8") }
        guard bytes.first == slash else { throw failure("it must begin with /, as in /\(text)") }
        let names = bytes.dropFirst().split(separator: slash, omittingEmptySubsequences: false)
        for name in bytes == [slash] ? [] : isDirectory ? names.dropLast() : names[...] {
            if name.isEmpty { throw failure("two slashes stand together") }
            if name.elementsEqual(".".utf8) || name.elementsEqual("..".utf8) {
                throw failure("'.' and '..' are no names in it")
            }
        }
        self.init(
            text: text, isDirectory: isDirectory,
            parsed: Result { () throws(TreeError) in try TreePath.written(bytes).path })
    }

    package var description: String { text }
}

/// A file or a directory of this machine. Its name is bytes, and need not be UTF-8.
package struct LocalPath: Sendable, CustomStringConvertible {
    package let bytes: [UInt8]

    /// - Throws: when it is empty.
    package init(_ text: String) throws {
        bytes = ByteText.bytes(text)
        if bytes.isEmpty { throw ValidationError("an empty path names nothing") }
    }

    /// Standard input or output.
    package var isStandard: Bool { bytes.elementsEqual("-".utf8) }

    package var description: String { ByteText.text(bytes) }
}

/// A command some of whose arguments may be no UTF-8. All its arguments are written by `ByteText`.
package protocol TakesBytes {}
