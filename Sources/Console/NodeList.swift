import ArgumentParser
import WireProtocol

/// The members that a program may begin with: `host:port,host:port`.
package struct NodeList: ExpressibleByArgument, Sendable {
    package let addresses: [String]

    package init(addresses: [String]) { self.addresses = addresses }

    package init?(argument: String) {
        let parts = argument.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        // ID=HOST:PORT is what a member's --cluster takes.
        guard parts.allSatisfy({ (Address($0)?.port ?? 0) > 0 && !$0.contains("=") }) else { return nil }
        addresses = parts
    }

    /// What to say when none of them answers.
    package var unreachableText: String {
        "no member can be reached at \(addresses.joined(separator: ", ")): see that they run, and name them with --nodes or "
            + "BANYAN_NODES"
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
