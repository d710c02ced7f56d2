import ArgumentParser
import Console
import Foundation
import Node

struct RecoverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recover", abstract: "Go on with one directory when a cluster lost its majority for good.",
        discussion: """
            Only if a majority of the members will never come back, or if the cluster can go on no more. Stop those that are \
            left, and look into the directory of each:
              banyan recover --data DIR
            Take the one whose last entry has the highest term, and of those the highest index: it has the most. Then
              banyan recover --data DIR --force-new-cluster
            makes a new cluster of this one member: with another cluster id, in a term behind that of its last entry \
            (whatever term the old cluster had come to), and with revisions beyond any that were given out before. What the \
            lost members acknowledged and this one never received is GONE. Room for a copy of its state is needed on the disk.

            Start it with 'banyand --data DIR'. The other members can't come back as they are: their directories belong to \
            the old cluster. Stop them, delete their directories, start each with an empty one, its --id, --cluster and \
            --join, and take it in with 'banyan member add' ('banyan member --help'). A member that was given up and is still \
            running is refused by the new cluster, and goes on until it is stopped by hand. A majority of the old directories \
            would be the old cluster beside the new one: delete them before anything is started.
            """)

    private struct Result: Encodable {
        let id: UInt64
        let address: String
        let cluster: String
        let members: String
        let lastTerm: UInt64
        let lastIndex: UInt64
        let commitIndex: UInt64

        enum CodingKeys: String, CodingKey {
            case id, address, cluster, members
            case lastTerm = "last_term"
            case lastIndex = "last_index"
            case commitIndex = "commit_index"
        }

        init(_ contents: Recovery.Contents) {
            id = contents.memberID
            address = contents.address
            cluster = String(contents.clusterID, radix: 16)
            members = contents.members
            lastTerm = contents.lastTerm
            lastIndex = contents.lastIndex
            commitIndex = contents.commit
        }

        var text: String {
            """
            member    \(id) on \(address)
            cluster   \(cluster): \(members)
            last      entry \(lastIndex) of term \(lastTerm); known to be committed: \(commitIndex)
            """
        }
    }

    @Option(help: "The directory of a member that is stopped.") var data: String
    @Flag(help: "Make a cluster of this member alone. What it never received is gone.") var forceNewCluster = false
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
        if data.isEmpty { throw ValidationError("--data is empty: name a directory") }
    }

    func run() async throws {
        guard FileManager.default.fileExists(atPath: data + "/log") else {
            throw CommandFailure("\(data): holds no log of Banyan's", exitCode: 3)
        }
        do {
            let contents = try Recovery.inspect(data)
            if forceNewCluster {
                Console.complain(
                    "banyan",
                    "WARNING: going on with what member \(contents.memberID) has, up to entry \(contents.lastIndex); whatever "
                        + "the others acknowledged and it never received is lost, and they can't come back")
                try show(Result(Recovery.forceNewCluster(data) { Console.complain("banyan", "WARNING: \($0)") }))
            } else {
                try show(Result(contents))
            }
        } catch let error as StartError { throw CommandFailure(error.description) }
    }

    private func show(_ result: Result) throws {
        guard json else { return try Console.print(result.text) }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try Console.print(String(decoding: try encoder.encode(result), as: UTF8.self))
    }
}
