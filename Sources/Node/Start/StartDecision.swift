import RaftLog

/// How a member begins: decided from what its directory holds and what it was told, before anything is touched.
enum StartDecision: Equatable {
    /// The directory is empty, and becomes this member's.
    case first(Newcomer)
    /// It waited for its cluster, and is told anew how to begin: nothing stands in its directory yet. It is another one then,
    /// whoever heard of it.
    case anew(Newcomer)
    /// It was ended while it waited, and waits on for the same members.
    case waitOn
    /// It belongs to a cluster. The list says where its members are now; empty: as they are recorded.
    case member(listed: [ListedMember])

    /// Who waits for a new cluster, or to be taken into one that runs.
    struct Newcomer: Equatable {
        let id: UInt64
        let cluster: [ListedMember]
        let isJoining: Bool
    }

    /// What was told does not fit what the directory holds; or nothing was told, where nothing is guessed.
    enum Refusal: Error, Equatable {
        case otherMember(own: UInt64, told: UInt64)
        case otherCluster(own: String, told: String)
        /// A disk that is not mounted looks the same.
        case emptyDirectory(isAlone: Bool)
        case joinsNobody
        case noID
        case unlistedID(UInt64, list: String)
    }

    /// - Parameter stored: what the directory says of itself; nil: it is empty.
    init(_ stored: Identity?, _ options: ServerOptions) throws(Refusal) {
        guard let stored else {
            self = .first(try Newcomer(options))
            return
        }
        let (isNew, told) = (options.isBootstrap || options.isJoin, options.clusterText)
        if let id = options.id, id != stored.memberID { throw .otherMember(own: stored.memberID, told: id) }
        guard stored.genesis == nil else {
            // Whoever starts it as a new one means the cluster that it has.
            if isNew, !options.cluster.isEmpty, told != stored.founders {
                throw .otherCluster(own: stored.founders, told: told)
            }
            self = .member(listed: options.cluster)
            return
        }
        let isSame = options.cluster.isEmpty || told == stored.founders
        if isNew, !options.cluster.isEmpty, !isSame || options.isJoin != stored.isJoining {
            self = .anew(Newcomer(id: stored.memberID, cluster: options.cluster, isJoining: options.isJoin))
        } else if isSame {
            self = .waitOn
        } else {
            throw .otherCluster(own: stored.founders, told: told)
        }
    }
}

extension StartDecision.Newcomer {
    /// What an empty directory may become.
    fileprivate init(_ options: ServerOptions) throws(StartDecision.Refusal) {
        let isAlone = options.cluster.count < 2
        if options.isJoin, isAlone { throw .joinsNobody }
        guard options.isBootstrap || options.isJoin else { throw .emptyDirectory(isAlone: isAlone) }
        guard !options.cluster.isEmpty else {
            let id = options.id ?? 1
            let own = ListedMember(id: id, address: options.listen ?? ServerOptions.defaultAddress)
            self.init(id: id, cluster: [own], isJoining: false)
            return
        }
        guard let id = options.id else { throw .noID }
        guard options.cluster.contains(where: { $0.id == id }) else {
            throw .unlistedID(id, list: options.clusterText)
        }
        self.init(id: id, cluster: options.cluster, isJoining: options.isJoin)
    }
}

extension StartDecision.Refusal {
    /// In words for whoever starts the member with this directory.
    func words(_ data: String) -> String {
        switch self {
        case .otherMember(let own, let told): "\(data): belongs to member \(own), not \(told); name its own with --data"
        case .otherCluster(let own, let told):
            "\(data): was started for --cluster \(own), not \(told); name an empty directory with --data for another cluster"
        case .emptyDirectory(let isAlone):
            "\(data): is empty. If it should not be, see that its disk is mounted, and that --data names it. For the first "
                + "start of a new cluster add --bootstrap\(isAlone ? "" : " on every member"); to join one that runs, or to "
                + "come back with an empty directory, add --join and run 'banyan member add' or 'banyan member replace'"
        case .joinsNobody: "--join needs --cluster with a member of the cluster to join, and this one"
        case .noID: "say which member this is: --id ID, one of the ids of --cluster"
        case .unlistedID(let id, let list): "--id \(id) is not in --cluster \(list)"
        }
    }
}
