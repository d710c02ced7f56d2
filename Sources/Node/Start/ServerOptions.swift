import FileTree
import WireProtocol

/// How a member is to be started.
package struct ServerOptions: Sendable {
    package var data: String
    /// Nil: the directory's own, or 1 for a cluster of one.
    package var id: UInt64?
    /// The members, as id and address; empty for a cluster of one at `listen`.
    package var cluster: [ListedMember]
    package var isBootstrap: Bool
    /// Wait to be taken into a cluster that runs.
    package var isJoin: Bool
    /// Nil: the address that the cluster list gives this member.
    package var listen: Address?
    /// How many executed entries the log keeps for members that are a little behind.
    package var logTailMax: UInt64

    /// Bytes of snapshots a second, to each member that needs one.
    package var snapshotRate: Int
    /// Bytes that the background scrub reads in a second, and nanoseconds from one round of it to the next, 0 for none.
    package var scrubRate = 64 << 20
    package var scrubInterval: UInt64 = 3_600_000_000_000
    /// Puts are refused when fewer bytes than this are free on the leader's disk, or on those of a majority.
    package var reserve: UInt64

    /// Decided at the start, from `cluster` and what the directory knows.
    package var moved = MovedMembers()

    /// The highest cluster version that this member claims to know.
    package var knownVersion: UInt16

    package static let defaultAddress = Address(host: "127.0.0.1", port: 7400)
    package static let defaultLogTail: UInt64 = 50_000
    package static let defaultReserve: UInt64 = 1 << 30
    package static let defaultSnapshotRate = 100 << 20
    package static let newestVersion = Applied.clusterVersionMax

    package init(
        data: String, id: UInt64?, cluster: [ListedMember], isBootstrap: Bool, isJoin: Bool = false,
        listen: Address?, logTailMax: UInt64 = Self.defaultLogTail, reserve: UInt64 = Self.defaultReserve,
        snapshotRate: Int = Self.defaultSnapshotRate,
        knownVersion: UInt16 = Self.newestVersion
    ) {
        self.reserve = reserve
        self.snapshotRate = snapshotRate
        self.isJoin = isJoin
        self.knownVersion = knownVersion
        self.data = data
        self.id = id
        self.cluster = cluster.sorted { $0.id < $1.id }
        self.isBootstrap = isBootstrap
        self.listen = listen
        self.logTailMax = logTailMax
    }

    /// The list in the form in which members compare it.
    var clusterText: String { MemberList.text(of: cluster) }
}
