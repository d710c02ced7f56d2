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

    package static let root = TreePath(bytes: [slash], components: [])

    package let bytes: [UInt8]
    /// The names below the root; empty for the root itself.
    package let components: [ArraySlice<UInt8>]

    private init(bytes: [UInt8], components: [ArraySlice<UInt8>]) {
        self.bytes = bytes
        self.components = components
    }

    package init(_ text: String) throws(TreeError) { try self.init(bytes: Array(text.utf8)) }

    /// - Throws: `.invalidPath`, or `.nameTooLong`.
    package init(bytes: [UInt8]) throws(TreeError) {
        guard bytes.first == Self.slash, bytes.count <= Self.bytesMax else { throw .invalidPath }
        self.bytes = bytes
        if bytes.count == 1 {
            components = []
            return
        }
        var names: [ArraySlice<UInt8>] = []
        names.reserveCapacity(bytes.count { $0 == Self.slash })
        var start = 1
        var isASCII = true
        for end in 1...bytes.count {
            let byte = end < bytes.count ? bytes[end] : Self.slash
            guard byte != 0 else { throw .invalidPath }
            if byte >= 0x80 { isASCII = false }
            guard byte == Self.slash else { continue }
            let count = end - start
            let isDots = count <= 2 && bytes[start..<end].allSatisfy { $0 == Self.dot }
            guard count > 0, !isDots else { throw .invalidPath }
            guard count <= Self.nameBytesMax else { throw .nameTooLong }
            names.append(bytes[start..<end])
            start = end + 1
        }
        guard isASCII || String(validating: bytes, as: UTF8.self) != nil else { throw .invalidPath }
        components = names
    }

    package var name: ArraySlice<UInt8>? { components.last }

    /// The path above this one, in bytes; empty for the root and for what is in it.
    var parentBytes: ArraySlice<UInt8> { bytes[..<max(0, (name?.startIndex ?? 1) - 1)] }

    /// Whether this path lies at or below `other`.
    package func isWithin(_ other: TreePath) -> Bool { components.starts(with: other.components, by: ==) }

    package var description: String { String(decoding: bytes, as: UTF8.self) }

    package static func == (left: TreePath, right: TreePath) -> Bool { left.bytes == right.bytes }
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
