import Glibc

/// A host and a port, as in `127.0.0.1:7400`.
package struct Address: Hashable, Sendable, CustomStringConvertible {
    package var host: String
    package var port: Int

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// What is wrong with a text that was to be an address.
    package enum Fault: Error, Equatable, Sendable, CustomStringConvertible {
        case noPort
        case port(String)
        case noHost
        case host(String)

        package var description: String {
            switch self {
            case .noPort: "it has no port: write HOST:PORT"
            case .port(let text): "'\(text)' is no port: it is a number from 1 to 65535"
            case .noHost: "it has no host: write HOST:PORT"
            case .host(let text):
                "'\(text)' is no host: write a name, an IPv4 address, or an IPv6 address in brackets, as in [::1]:7400"
            }
        }
    }

    /// Reads `HOST:PORT`: a name or an IPv4 address, or an IPv6 address in brackets, and a decimal port from 1 to 65535. No
    /// sign, no blank, nothing else: what is recorded here is given to others, who must read the same.
    package init(parsing text: String) throws(Fault) {
        let bytes = Array(text.utf8)
        let isBracketed = bytes.first == UInt8(ascii: "[")
        let hostEnd = isBracketed ? bytes.firstIndex(of: UInt8(ascii: "]")).map { $0 + 1 } : nil
        guard let colon = bytes.lastIndex(of: UInt8(ascii: ":")), colon >= hostEnd ?? 0 else { throw .noPort }
        let host = bytes[..<colon]
        if host.isEmpty { throw .noHost }
        let name = isBracketed ? host.dropFirst().dropLast() : host
        let isValid =
            (isBracketed ? hostEnd == colon && name.contains(UInt8(ascii: ":")) : true) && !name.isEmpty
            && name.allSatisfy { isBracketed ? Self.isIPv6($0) : Self.isNameLike($0) }
        guard isValid else { throw .host(String(decoding: host, as: UTF8.self)) }
        let digits = bytes[(colon + 1)...]
        guard (1...5).contains(digits.count), digits.allSatisfy(Self.isDigit),
            case let port = digits.reduce(0, { $0 * 10 + Int($1 - UInt8(ascii: "0")) }), (1...65535).contains(port)
        else { throw digits.isEmpty ? .noPort : .port(String(decoding: digits, as: UTF8.self)) }
        self.init(host: String(decoding: name, as: UTF8.self), port: port)
    }

    /// Nil where `init(parsing:)` says what is wrong.
    package init?(_ text: String) {
        do { try self.init(parsing: text) } catch { return nil }
    }

    /// Whether it stands for every address of a machine: one may listen there, and nobody can connect from elsewhere.
    package var isWildcard: Bool {
        var four = in_addr()
        if inet_aton(host, &four) != 0 { return four.s_addr == 0 }
        var six = in6_addr()
        let plain = host.prefix { $0 != "%" }
        guard inet_pton(AF_INET6, String(plain), &six) == 1 else { return false }
        // `::`, and `0.0.0.0` as IPv6 writes it.
        return withUnsafeBytes(of: six) { bytes in
            bytes.prefix(10).allSatisfy { $0 == 0 } && bytes.suffix(4).allSatisfy { $0 == 0 }
                && (bytes[10...11].allSatisfy { $0 == 0 } || bytes[10...11].allSatisfy { $0 == 0xFF })
        }
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

    private static func isLetter(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
    }

    private static func isNameLike(_ byte: UInt8) -> Bool {
        isDigit(byte) || isLetter(byte) || [UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_")].contains(byte)
    }

    /// An IPv6 address may name its interface behind a percent sign.
    private static func isIPv6(_ byte: UInt8) -> Bool {
        isNameLike(byte) || byte == UInt8(ascii: ":") || byte == UInt8(ascii: "%")
    }

    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
