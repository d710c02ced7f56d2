/// What happens in a cluster, in sentences for somebody who has never seen one: from one look at its members to the next.
package struct ClusterStory: Sendable {
    /// A member at one moment.
    package struct Sight: Equatable, Sendable {
        package var id: UInt64
        /// nil: it does not answer.
        package var role: String?
        package var term: UInt64
        /// How many commands it has executed.
        package var applied: UInt64

        package init(id: UInt64, role: String?, term: UInt64, applied: UInt64) {
            self.id = id
            self.role = role
            self.term = term
            self.applied = applied
        }
    }

    /// Who lacks more than so many commands is told to be behind: less is on its way at any moment.
    private static let lagMax: UInt64 = 2000

    private var leader: (id: UInt64, term: UInt64)?
    private var silent: Set<UInt64> = []
    private var behind: Set<UInt64> = []
    private var isBegun = false
    private var hasSaidThatNobodyLeads = false

    package init() {}

    /// - Returns: what happened since the last look.
    package mutating func tell(_ sights: [Sight]) -> [String] {
        var lines: [String] = []
        let answering = sights.filter { $0.role != nil }
        let present = answering.filter { $0.role == "leader" }.max { $0.term < $1.term }
        for sight in sights {
            if sight.role == nil {
                if silent.insert(sight.id).inserted, isBegun { lines.append("member \(sight.id) does not answer") }
            } else if silent.remove(sight.id) != nil, isBegun {
                lines.append("member \(sight.id) answers again")
            }
        }
        if let present {
            isBegun = true
            if leader.map({ $0 != (present.id, present.term) }) ?? true {
                let followers = answering.filter { $0.id != present.id }.map(\.id)
                lines.append(
                    "member \(present.id) leads term \(present.term)"
                        + (followers.isEmpty
                            ? "" : "; \(Self.names(followers)) \(followers.count == 1 ? "follows" : "follow")"))
            }
            leader = (present.id, present.term)
            hasSaidThatNobodyLeads = false
            for sight in answering where sight.id != present.id {
                let lag = present.applied > sight.applied ? present.applied - sight.applied : 0
                if lag > Self.lagMax {
                    if behind.insert(sight.id).inserted {
                        lines.append("member \(sight.id) is \(lag) commands behind, and catches up")
                    }
                } else if lag == 0, behind.remove(sight.id) != nil {
                    lines.append("member \(sight.id) is level with the others again")
                }
            }
        } else if isBegun, !hasSaidThatNobodyLeads {
            hasSaidThatNobodyLeads = true
            leader = nil
            let needed = sights.count / 2 + 1
            lines.append(
                answering.count >= needed
                    ? "nobody leads now: \(Self.names(answering.map(\.id))) choose another"
                    : "nobody leads: \(answering.count) of \(sights.count) members \(answering.count == 1 ? "answers" : "answer"), and "
                        + "\(needed) are needed to promise anything")
        }
        return lines
    }

    private static func names(_ ids: [UInt64]) -> String {
        guard let last = ids.last, ids.count > 1 else { return "member \(ids.first ?? 0)" }
        return "members \(ids.dropLast().map(String.init).joined(separator: ", ")) and \(last)"
    }
}
