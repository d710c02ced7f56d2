import Driver
import Raft

/// What is wrong with the member's state, until another takes its place: what may be served of it meanwhile, and when a
/// damaged leader gives way.
struct Health {
    /// What follows from damage that was found.
    struct Response: Equatable {
        /// Nobody else has a copy: it is told, and what can be served is.
        var isAlone = false
        /// It was not told before.
        var isNews = true
        /// Nothing more is executed: nobody gets a backup of it.
        var refusesBackups = false
        /// Nobody knows which rows are wrong: nobody gets any of what was made from it.
        var dropsSpools = false
    }

    /// How long a damaged leader that found no successor, or was elected again, goes on before it tries once more.
    static let giveWayPause: Nanoseconds = 3_000_000_000

    private(set) var damage: StateDamage?
    /// Whether the log holds what the cluster never decided is asked by this.
    var doubt = Doubt()
    private var foundAt: Nanoseconds = 0
    private var gaveWayAt: Nanoseconds = 0
    private var told = ""

    /// Damage was found; nil: worse is known already.
    ///
    /// - Parameter isAlone: no other member votes.
    mutating func found(_ found: StateDamage, isAlone: Bool, now: Nanoseconds) -> Response? {
        guard found.kind.rawValue > damage?.kind.rawValue ?? -1 else { return nil }
        if isAlone {
            // A lone member serves what it can: of what is wrong with it, nobody else knows better.
            if found.kind == .stopped { (damage, foundAt) = (found, now) }
            defer { told = found.reason }
            return Response(isAlone: true, isNews: told != found.reason, refusesBackups: found.kind == .stopped)
        }
        (damage, foundAt) = (found, now)
        return Response(refusesBackups: found.kind != .rotten, dropsSpools: found.kind == .wrong)
    }

    /// Whether a read is to be refused by all that is known of the state.
    func mustRefuse(_ kind: PendingRead.Kind) -> Bool {
        switch damage?.kind {
        case nil, .rotten: false
        case .stopped: kind != .stale(ageMax: 0)
        case .wrong, .contradicted: true
        }
    }

    /// Whether snapshots are made of it: not of one that is wrong.
    var isFitForSnapshots: Bool { damage?.kind != .wrong }

    /// Whether commands are taken for it: a state with rotten rows executes on.
    var isFitForWrites: Bool { damage.map { $0.kind == .rotten } ?? true }

    /// Whether a leader is to hand over now, for another's state may be sound.
    mutating func givesWay(now: Nanoseconds) -> Bool {
        guard damage != nil, now - gaveWayAt >= Self.giveWayPause else { return false }
        gaveWayAt = now
        return true
    }

    /// Whether all that was found is disproved by a reading of all rows that began then: it was written anew, or never was.
    func isDisproved(bySoundReadingSince began: Nanoseconds) -> Bool { damage?.kind == .rotten && began > foundAt }

    /// Another state has taken its place. True when it was damaged.
    mutating func becameSound() -> Bool {
        defer { (damage, told) = (nil, "") }
        return damage != nil
    }
}
