import BanyanClient

/// What to do to a cluster, and for how long.
package struct Load: Sendable {
    package enum Operation: String, Sendable, CaseIterable {
        case put, get, list

        /// Among all cases.
        var position: Int {
            switch self {
            case .put: 0
            case .get: 1
            case .list: 2
            }
        }
    }

    /// Which part of the operations is of which kind: at least one weight is positive.
    package struct Mix: Sendable, Equatable {
        package private(set) var weights: [(operation: Operation, weight: Int)]

        package init?(_ weights: [(operation: Operation, weight: Int)]) {
            guard weights.allSatisfy({ $0.weight >= 0 && $0.weight <= 1_000_000 }),
                weights.contains(where: { $0.weight > 0 }), Set(weights.map(\.operation)).count == weights.count
            else { return nil }
            self.weights = weights.filter { $0.weight > 0 }
        }

        package init(_ operation: Operation) { weights = [(operation, 1)] }

        package var operations: [Operation] { weights.map(\.operation) }

        package static func == (left: Mix, right: Mix) -> Bool {
            left.weights.elementsEqual(right.weights) { $0 == $1 }
        }
    }

    package var nodes: [String]
    package var mix: Mix
    /// How many requests are under way at once, at the most.
    package var clients: Int
    package var connections: Int
    /// Bytes of each file.
    package var size: Int
    package var files: Int
    /// The files stand in so many directories.
    package var directories: Int
    package var distribution: KeyDistribution
    /// Of reads.
    package var consistency: Consistency
    /// Whether reads go to all members in turn, and not to the leader alone.
    package var isSpread: Bool
    /// Requests a second that become due whether the cluster keeps up or not (open loop); nil: each client sends its next
    /// request when the last one was answered (closed loop).
    package var rate: Double?
    /// Whether every file is written once before the load begins, in the order of the directories: gets and listings need
    /// something to find.
    package var isFilled: Bool
    package var duration: Duration
    package var warmup: Duration

    package init(
        nodes: [String], mix: Mix = Mix(.put), clients: Int, connections: Int, size: Int, files: Int,
        directories: Int = 100, distribution: KeyDistribution = .uniform, consistency: Consistency = .linearizable,
        isSpread: Bool = false, rate: Double? = nil, isFilled: Bool = false, duration: Duration, warmup: Duration
    ) {
        self.nodes = nodes
        self.mix = mix
        self.clients = clients
        self.connections = min(connections, clients)
        self.size = size
        self.files = files
        self.directories = directories
        self.distribution = distribution
        self.consistency = consistency
        self.isSpread = isSpread
        self.rate = rate
        self.isFilled = isFilled || mix.operations.contains { $0 != .put }
        self.duration = duration
        self.warmup = warmup
    }

    func directory(of file: Int) -> String { "/load/d\(file % directories)" }
    func name(of file: Int) -> String { "f\(file)" }
    func path(of file: Int) -> String { "\(directory(of: file))/\(name(of: file))" }

    /// The most entries of one listing.
    static let pageEntries = 100
    /// Whether a directory has more than one page.
    var isPaged: Bool { files / directories > Self.pageEntries }
}
