import Raft

/// Messages that no sound member sends, by their kind, and who stands beyond a leap of terms.
struct OffenceCount {
    private(set) var counts: [(kind: Offence.Kind, count: UInt64)] = Offence.Kind.allCases.map { ($0, 0) }
    /// When a member last spoke in a term that is out of reach, in the order of their first time.
    private var leaps: [(peer: PeerID, at: Nanoseconds)] = []

    private static let leapsRemembered: Nanoseconds = 60_000_000_000
    private static let leapersMax = 64

    /// Notes one, and answers whether it is worth a line in the log: the first of its kind is, then each that doubles their
    /// number.
    mutating func note(_ offence: Offence, isMember: Bool, now: Nanoseconds) -> Bool {
        if offence.kind == .leap, isMember {
            leaps.removeAll { $0.peer == offence.peer || now - $0.at > Self.leapsRemembered }
            if leaps.count < Self.leapersMax { leaps.append((offence.peer, now)) }
        }
        guard let position = counts.firstIndex(where: { $0.kind == offence.kind }) else { return true }
        counts[position].count += 1
        return counts[position].count & (counts[position].count - 1) == 0
    }

    func count(of kind: Offence.Kind) -> UInt64 { counts.first { $0.kind == kind }?.count ?? 0 }

    /// Who said of late that it is in a term far beyond this member's: nothing that it says will be believed.
    func beyondLeap(now: Nanoseconds) -> [PeerID] {
        leaps.filter { now - $0.at <= Self.leapsRemembered }.map(\.peer)
    }
}

extension Offence.Kind {
    /// The name of its count among a member's statistics: `offences_`, and the kind in lower case.
    var statistic: String {
        "offences_" + "\(self)".reduce(into: "") { $0 += $1.isUppercase ? "_" + $1.lowercased() : String($1) }
    }
}
