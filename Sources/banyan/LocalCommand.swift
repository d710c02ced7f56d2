import ArgumentParser
import Console
import Foundation

struct LocalCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "local", abstract: "Run a cluster on this machine, in the foreground.",
        discussion: """
            It prints a sentence for each thing that happens to the cluster: who leads, who does not answer, who is behind. The \
            members' logs are files in --data. While it runs, type
              kill 1      SIGKILL member 1          start 1     start it again
              pause 1     SIGSTOP member 1          resume 1    let it go on
              quit        stop all (or Ctrl-C)
            The data stays in --data; the next 'banyan local' goes on with it.
            """)

    @Option(help: "How many members.") var nodes = 3
    @Option(help: "Where the members keep their data.") var data = ".banyan-local"
    @Option(help: "The first member's port; the others follow.") var port = 7401

    func validate() throws {
        if data.isEmpty { throw ValidationError("--data is empty: name a directory") }
        guard (1...9).contains(nodes) else { throw ValidationError("--nodes must be from 1 to 9") }
        guard (1...65_526).contains(port) else { throw ValidationError("--port must be from 1 to 65526") }
    }

    func run() async throws {
        // A process is started with a map of all that is open, which takes more than this program has open itself.
        try Descriptors.require(256)
        let cluster = try LocalCluster(nodes: nodes, data: data, port: port)
        try await cluster.run()
    }
}
