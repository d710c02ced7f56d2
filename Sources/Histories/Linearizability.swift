/// Whether a history could have happened on one file at a time, each operation at one moment between its invocation and
/// its answer (Herlihy and Wing, 1990).
///
/// The search is that of Wing and Gong (1993) with Lowe's memory of what was tried: pairs of the set of operations that
/// have taken effect and the value that they left. Files are independent, and are checked one by one. Operations whose
/// outcome is unknown are tried last, since most of them never happened.
package enum Linearizability {
    /// Pairs that are tried before a history is left undecided: with many unknown outcomes the search is exponential.
    static let triesMax = 200_000

    package enum Verdict: Equatable, Sendable { case linearizable, violated, undecided }

    /// The operations of the first file whose history has no order, or nil; and how many files stayed undecided.
    package static func violation(in history: [Operation]) -> (operations: [Operation]?, undecided: Int) {
        var undecided = 0
        for file in Set(history.map(\.file)).sorted() {
            // A read without an answer says nothing.
            let operations = history.filter { $0.file == file && !($0.kind == .get && $0.outcome == .unknown) }
                .sorted { ($0.invoked, $0.client) < ($1.invoked, $1.client) }
            switch check(operations) {
            case .linearizable: break
            case .undecided: undecided += 1
            case .violated: return (operations, undecided)
            }
        }
        return (nil, undecided)
    }

    private struct Configuration: Hashable {
        var done: [UInt64]
        var value: Int
    }

    /// A step of the search: the operation that took effect, its place in the order of trying, and the value before it.
    private struct Step {
        var operation: Int
        var place: Int
        var valueBefore: Int
    }

    /// - Parameter operations: of one file, in the order of their invocations.
    static func check(_ operations: [Operation]) -> Verdict {
        let count = operations.count
        var configuration = Configuration(done: Array(repeating: 0, count: (count + 63) / 64), value: 0)
        var remaining = operations.count { $0.returned != nil }
        var tried: Set<Configuration> = []
        var path: [Step] = []
        var first = 0
        // Places below `count` are those of answered operations, the others those of unknown ones.
        var next = 0
        while remaining > 0 {
            // Only what was invoked before every open operation's answer can be the next to take effect.
            while first < count, isDone(first, configuration) { first += 1 }
            var deadline = UInt64.max
            var end = first
            while end < count, operations[end].invoked <= deadline {
                if !isDone(end, configuration), let returned = operations[end].returned {
                    deadline = min(deadline, returned)
                }
                end += 1
            }
            var chosen: Step?
            while next < 2 * count, chosen == nil {
                let (place, position) = (next, next % count)
                next += 1
                let isOfPass = (operations[position].returned != nil) == (place < count)
                guard position >= first, position < end, isOfPass, operations[position].invoked <= deadline,
                    !isDone(position, configuration), let value = operations[position].effect(on: configuration.value)
                else { continue }
                var after = configuration
                after.done[position >> 6] |= 1 << UInt64(position & 63)
                after.value = value
                guard tried.insert(after).inserted else { continue }
                if tried.count > triesMax { return .undecided }
                chosen = Step(operation: position, place: place, valueBefore: configuration.value)
                configuration = after
            }
            if let chosen {
                path.append(chosen)
                if operations[chosen.operation].returned != nil { remaining -= 1 }
                next = 0
            } else {
                guard let last = path.popLast() else { return .violated }
                configuration.done[last.operation >> 6] &= ~(1 << UInt64(last.operation & 63))
                configuration.value = last.valueBefore
                if operations[last.operation].returned != nil { remaining += 1 }
                first = min(first, last.operation)
                next = last.place + 1
            }
        }
        return .linearizable
    }

    private static func isDone(_ position: Int, _ configuration: Configuration) -> Bool {
        configuration.done[position >> 6] & (1 << UInt64(position & 63)) != 0
    }
}
