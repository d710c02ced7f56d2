import ArgumentParser
import Glibc

/// The members that a program may begin with, as people paste them: `host:port`, with commas, semicolons or blanks between,
/// perhaps with a scheme in front and a slash behind; without a port it is the server's default one.
package struct NodeList: Sendable {
    /// What is wrong with which piece, and what would be right.
    package struct Wrong: Error {
        package let message: String
    }

    /// The port on which a member listens unless told otherwise.
    package static let defaultPort = 7400

    package let addresses: [String]

    package init(addresses: [String]) { self.addresses = addresses }

    package static func parse(_ text: String) throws(Wrong) -> NodeList {
        let pieces = text.split { ",;".contains($0) || $0.isWhitespace }
        guard !pieces.isEmpty else { throw Wrong(message: "'\(text)' names no host: it is a list of HOST:PORT") }
        var addresses: [String] = []
        for piece in pieces {
            let address = try address(String(piece))
            if !addresses.contains(address) { addresses.append(address) }
        }
        return NodeList(addresses: addresses)
    }

    private static let schemes = ["http", "https", "tcp", "banyan"]

    private static func address(_ piece: String) throws(Wrong) -> String {
        let wrong = { (what: String) in Wrong(message: "'\(piece)' \(what)") }
        var rest = piece[...]
        for quote in ["\"", "'"] where rest.count > 1 && rest.hasPrefix(quote) && rest.hasSuffix(quote) {
            rest = rest.dropFirst().dropLast()
        }
        if let mark = rest.firstRange(of: "://") {
            let scheme = rest[..<mark.lowerBound].lowercased()
            guard schemes.contains(scheme) else { throw wrong("begins with \(scheme)://, and is to be HOST:PORT") }
            rest = rest[mark.upperBound...]
        }
        while rest.last == "/" { rest.removeLast() }
        guard !rest.contains("/") else { throw wrong("has a path, and is to be HOST:PORT") }
        guard !rest.contains("@") else { throw wrong("names a user, and is to be HOST:PORT") }
        if let equals = rest.firstIndex(of: "=") {
            let side = rest[rest.index(after: equals)...]
            throw wrong("is what a member's --cluster takes: write \(side.isEmpty ? "HOST:PORT" : String(side))")
        }
        let (host, port): (Substring, Substring?)
        if rest.hasPrefix("[") {
            guard let end = rest.firstIndex(of: "]") else { throw wrong("lacks the bracket at its host's end") }
            host = rest[rest.index(after: rest.startIndex)..<end]
            let tail = rest[rest.index(after: end)...]
            guard tail.isEmpty || tail.hasPrefix(":") else {
                throw wrong("has no port behind its bracket: [HOST]:PORT")
            }
            port = tail.isEmpty ? nil : tail.dropFirst()
            guard isIPv6(host) else { throw wrong("has in its brackets what is no IPv6 address") }
        } else {
            let parts = rest.split(separator: ":", omittingEmptySubsequences: false)
            if parts.count > 2, isIPv6(rest) {
                throw wrong("is an IPv6 address: write it in brackets, as in [\(rest)]:\(defaultPort)")
            }
            guard parts.count <= 2 else { throw wrong("has more than one port") }
            (host, port) = (parts.first ?? "", parts.count == 2 ? parts[1] : nil)
            guard !host.isEmpty else { throw wrong("names no host: it is to be HOST:PORT") }
            guard host.utf8.allSatisfy(isOfName) else { throw wrong("has a host that can be no name") }
        }
        guard let port else { return join(host, defaultPort) }
        // Int takes signs.
        guard !port.isEmpty, port.utf8.allSatisfy({ (48...57).contains($0) }), let number = Int(port),
            (1...65_535).contains(number)
        else { throw wrong("has no port from 1 to 65535 behind its colon") }
        return join(host, number)
    }

    private static func join(_ host: Substring, _ port: Int) -> String {
        host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    private static func isOfName(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    /// Perhaps with a zone behind.
    private static func isIPv6(_ host: Substring) -> Bool {
        var address = in6_addr()
        return inet_pton(AF_INET6, String(host.prefix { $0 != "%" }), &address) == 1
    }

    /// The value of `--nodes`.
    package static func option(_ text: String) throws -> NodeList {
        do throws(Wrong) { return try parse(text) } catch { throw ValidationError(error.message) }
    }

    /// The option's value, or else `BANYAN_NODES`, or else the server's default address.
    package static func resolve(_ given: NodeList?, environment: String?) throws -> NodeList {
        if let given { return given }
        guard let environment else { return NodeList(addresses: ["127.0.0.1:\(defaultPort)"]) }
        do throws(Wrong) { return try parse(environment) } catch {
            throw CommandFailure("BANYAN_NODES: \(error.message)", exitCode: Console.wrongUsage)
        }
    }
}
