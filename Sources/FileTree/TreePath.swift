import NIOCore

/// An absolute path, checked: `/`-separated UTF-8 without empty, `.` or `..` components and without NUL.
///
/// Names compare and order as bytes, never as `String`: Unicode equivalence would make two different files one.
package struct TreePath: Equatable, Sendable, CustomStringConvertible {
    /// The longest path in bytes.
    package static let bytesMax = 4096
    /// The longest name of an entry in bytes.
    package static let nameBytesMax = 255

    private static let slash = UInt8(ascii: "/")
    private static let dot = UInt8(ascii: ".")

    package static let root = TreePath(bytes: [slash], nameStart: 1)

    package let bytes: [UInt8]
    /// Behind the last slash.
    private let nameStart: Int

    private init(bytes: [UInt8], nameStart: Int) {
        self.bytes = bytes
        self.nameStart = nameStart
    }

    package init(_ text: String) throws(TreeError) { try self.init(bytes: Array(text.utf8)) }

    /// - Throws: `.invalidPath`, or `.nameTooLong`.
    package init(bytes: [UInt8]) throws(TreeError) {
        guard bytes.first == Self.slash, bytes.count <= Self.bytesMax else { throw .invalidPath }
        var start = 1
        var isASCII = true
        let span = bytes.span
        for end in 1..<span.count {
            let byte = span[end]
            guard byte != 0 else { throw .invalidPath }
            if byte >= 0x80 { isASCII = false }
            guard byte == Self.slash else { continue }
            try Self.checkName(span.extracting(start..<end))
            start = end + 1
        }
        if span.count > 1 { try Self.checkName(span.extracting(start...)) }
        guard isASCII || String(validating: bytes, as: UTF8.self) != nil else { throw .invalidPath }
        self.init(bytes: bytes, nameStart: start)
    }

    /// A path as people write it: as any, or with one slash behind it, which says that it is a directory's.
    ///
    /// - Returns: the path without that slash, and whether it was there. What stands at such a path must be a directory.
    package static func written(
        _ bytes: some Collection<UInt8>
    ) throws(TreeError) -> (path: TreePath, isDirectory: Bool) {
        var bytes = Array(bytes)
        let isDirectory = bytes.count > 1 && bytes.last == slash
        if isDirectory { bytes.removeLast() }
        // What is left of `//` is the root.
        if isDirectory, bytes == root.bytes { throw .invalidPath }
        return (try TreePath(bytes: bytes), isDirectory || bytes == root.bytes)
    }

    /// Whether an entry may bear this name.
    package static func isName(_ bytes: [UInt8]) -> Bool {
        !bytes.isEmpty && bytes.count <= nameBytesMax && !bytes.contains { $0 == slash || $0 == 0 }
            && !(bytes.count <= 2 && bytes.allSatisfy { $0 == dot }) && String(validating: bytes, as: UTF8.self) != nil
    }

    /// The path of what bears `name` in the directory at this path.
    ///
    /// - Throws: `.invalidPath`, also when it would be longer than `bytesMax`; or `.nameTooLong`.
    package func appending(_ name: some Collection<UInt8>) throws(TreeError) -> TreePath {
        guard !name.contains(Self.slash) else { throw .invalidPath }
        return try TreePath(bytes: (bytes.count > 1 ? bytes + [Self.slash] : bytes) + name)
    }

    private static func checkName(_ name: Span<UInt8>) throws(TreeError) {
        let isDots = name.count <= 2 && name.indices.allSatisfy { name[$0] == dot }
        guard !name.isEmpty, !isDots else { throw .invalidPath }
        guard name.count <= nameBytesMax else { throw .nameTooLong }
    }

    /// The names below the root; empty for the root itself.
    package var components: [ArraySlice<UInt8>] { bytes.split(separator: Self.slash) }

    package var name: ArraySlice<UInt8>? { bytes.count > 1 ? bytes[nameStart...] : nil }

    /// The path above this one, in bytes; empty for the root and for what is in it.
    var parentBytes: ArraySlice<UInt8> { bytes[..<(nameStart - 1)] }

    /// The directory that it is in; nil for the root.
    package var parent: TreePath? {
        guard self != .root else { return nil }
        return parentBytes.isEmpty ? .root : try? TreePath(bytes: Array(parentBytes))
    }

    /// Whether this path lies at or below `other`.
    package func isWithin(_ other: TreePath) -> Bool { components.starts(with: other.components, by: ==) }

    package var description: String { String(decoding: bytes, as: UTF8.self) }
}

extension ByteBuffer {
    /// A path: its length in two bytes, then its bytes.
    mutating func writePath(_ path: TreePath) {
        writeInteger(UInt16(path.bytes.count))
        writeBytes(path.bytes)
    }

    mutating func readPath() throws(TreeError) -> TreePath {
        guard let length = readInteger(as: UInt16.self), let bytes = readBytes(length: Int(length)) else {
            throw .malformed
        }
        return try TreePath(bytes: bytes)
    }
}
