import NIOCore

/// An absolute path, checked: `/`-separated UTF-8 without empty, `.` or `..` components and without NUL.
///
/// Names compare and order as bytes, never as `String`: Unicode equivalence would make two different files one.
package struct TreePath: Equatable, Sendable, CustomStringConvertible {
    /// The longest path in bytes.
    package static let bytesMax = 4096
    /// The longest name of an entry in bytes.
    package static let nameBytesMax = 255

    package static let root = TreePath(components: [])

    /// The names below the root; empty for the root itself.
    package let components: [ArraySlice<UInt8>]

    private init(components: [ArraySlice<UInt8>]) { self.components = components }

    package init(_ text: String) throws(TreeError) { try self.init(bytes: Array(text.utf8)) }

    /// - Throws: `.invalidPath`, or `.nameTooLong`.
    package init(bytes: [UInt8]) throws(TreeError) {
        guard bytes.first == UInt8(ascii: "/"), bytes.count <= Self.bytesMax else { throw .invalidPath }
        guard !bytes.contains(0), String(validating: bytes, as: UTF8.self) != nil else { throw .invalidPath }
        if bytes.count == 1 {
            components = []
            return
        }
        let names = bytes.dropFirst().split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        for name in names {
            if name.isEmpty || name.elementsEqual(".".utf8) || name.elementsEqual("..".utf8) { throw .invalidPath }
            if name.count > Self.nameBytesMax { throw .nameTooLong }
        }
        components = names
    }

    package var name: ArraySlice<UInt8>? { components.last }
    package var parent: TreePath { TreePath(components: components.dropLast()) }

    /// Whether this path lies at or below `other`.
    package func isWithin(_ other: TreePath) -> Bool { components.starts(with: other.components, by: ==) }

    package var bytes: [UInt8] {
        if components.isEmpty { return [UInt8(ascii: "/")] }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(components.reduce(components.count) { $0 + $1.count })
        for component in components {
            bytes.append(UInt8(ascii: "/"))
            bytes += component
        }
        return bytes
    }

    package var description: String { String(decoding: bytes, as: UTF8.self) }
}

extension ByteBuffer {
    /// A path: its length in two bytes, then its bytes.
    mutating func writePath(_ path: TreePath) {
        let bytes = path.bytes
        writeInteger(UInt16(bytes.count))
        writeBytes(bytes)
    }

    mutating func readPath() throws(TreeError) -> TreePath {
        guard let length = readInteger(as: UInt16.self), let bytes = readBytes(length: Int(length)) else {
            throw .malformed
        }
        return try TreePath(bytes: bytes)
    }
}
