import ArgumentParser
import WireProtocol

/// The members that a program may begin with: `host:port,host:port`.
package struct NodeList: ExpressibleByArgument, Sendable {
    package let addresses: [String]

    package init?(argument: String) {
        let parts = argument.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        guard parts.allSatisfy({ (Address($0)?.port ?? 0) > 0 }) else { return nil }
        addresses = parts
    }

    /// The option's value, or else `BANYAN_NODES`, or else the server's default address.
    package static func resolve(_ given: NodeList?, environment: String?) throws -> NodeList {
        if let given { return given }
        let text = environment ?? "127.0.0.1:7400"
        guard let list = NodeList(argument: text) else {
            throw CommandFailure("BANYAN_NODES is a list of HOST:PORT, not '\(text)'", exitCode: Console.wrongUsage)
        }
        return list
    }
}
