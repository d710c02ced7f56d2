import Driver
import FileTree
import Raft
import WireProtocol

/// Which state is the member's, and how another takes its place: one that was written anew from it, one that was fetched from
/// another member, or one that a leader's snapshot brought.
///
/// States live in directories of their own numbers, none of which is ever used twice. What the log names counts: a former
/// state goes once the log's word for the next is on the disk and the state thread has left it.
struct StateExchange {
    /// How far an exchange has come.
    private enum Course {
        case none
        /// The copy is made, and catches up with the log.
        case copying(Copy)
        /// The log is about to name the copy: until it has, nobody knows which of the two may go. A replacement waits for that.
        case namingCopy(Copy, next: Replacement?)
        /// The state thread goes on with the copy, whose flushes have yet to come up to what the original had.
        case adopting(Copy, through: Index)
        /// Until the log reaches the replacement: from there on it is executed again.
        case awaiting(Replacement)
        /// The log is about to name the replacement.
        case namingReplacement(Replacement)
    }

    /// So many entries may be left when the copy takes the state's place: requests wait while they are executed.
    static let entriesBehindMax: Index = 256

    private static let overtaken =
        "more was written meanwhile than the log may hold back; try again in a quieter time"
    private static let outrun = "a snapshot of the leader's has taken the state's place"

    /// The state in use lives in the directory of this number.
    private(set) var number: UInt64
    /// The last number that a state was given, in use or being built.
    private var lastNumber: UInt64
    /// Those that were in use before, or were about to be.
    private var formers: [UInt64]
    private var course = Course.none
    /// The state that the core's next write of a snapshot makes the one in use.
    private var received: UInt64?
    /// The write that makes it so on the disk.
    private var switchWrite: UInt64?

    /// - Parameter unused: the number of an empty state that the state thread has open, since the member's own can't be.
    init(number: UInt64, unused: UInt64?) {
        self.number = number
        lastNumber = unused ?? number
        formers = unused.map { [$0] } ?? []
    }

    /// The number of a state that is about to be built.
    mutating func allot() -> UInt64 {
        lastNumber += 1
        return lastNumber
    }

    /// The last number that was allotted.
    var lastAllotted: UInt64 { lastNumber }

    // MARK: what others must keep

    /// What the copy has: the log must keep what it lacks.
    var copied: Index? {
        switch course {
        case .copying(let copy), .namingCopy(let copy, _), .adopting(let copy, _): copy.copied
        case .none, .awaiting, .namingReplacement: nil
        }
    }

    /// What the state has that the log names, or is about to name, as the member's: what follows must never go.
    var indexNamedNext: Index? {
        switch course {
        case .namingCopy(let copy, let next): [copy.copied, next?.metadata.index].compactMap(\.self).min()
        case .adopting(let copy, _): copy.copied
        case .awaiting(let new), .namingReplacement(let new): new.metadata.index
        case .none, .copying: nil
        }
    }

    var isRewriting: Bool { copied != nil }

    /// Whether a state is on its way to replace a damaged one.
    var isReplacing: Bool {
        switch course {
        case .namingCopy(_, let next): next != nil
        case .awaiting, .namingReplacement: true
        case .none, .copying, .adopting: false
        }
    }

    // MARK: a copy of the state

    /// Begins a copy; nil while another exchange is under way.
    mutating func beginCopy(for waiter: Waiter, bytes: UInt64, durable: Index, now: Nanoseconds) -> UInt64? {
        guard case .none = course else { return nil }
        let copy = Copy(
            waiter: waiter, number: allot(), original: number, began: now, bytesBefore: bytes, copied: durable)
        course = .copying(copy)
        return copy.number
    }

    /// The copy is there, or has come closer to the state that is in use.
    ///
    /// - Parameters:
    ///   - compacted: what the log has let go.
    ///   - applied: what the core has handed out to be executed.
    mutating func copied(
        _ number: UInt64, _ result: Result<Applied, StateError>, compacted: Index, applied: Index
    ) -> [Action] {
        guard case .copying(var copy) = course, copy.number == number else { return [] }
        // The log may have gone on without the copy, and lack what the copy needs next.
        func failed(_ reason: String) -> [Action] { [.remove(number), .endCopy(copy, failure: reason)] }
        switch result {
        case .failure(let error):
            course = .none
            guard compacted <= copy.copied else { return failed(Self.overtaken) }
            // Of a full disk nothing follows.
            return failed("\(error)") + (error.isFull ? [] : [.scrub])
        case .success(let state):
            copy.copied = state.index
            guard compacted <= state.index else {
                course = .none
                return failed(Self.overtaken)
            }
            guard applied > state.index + Self.entriesBehindMax else {
                course = .namingCopy(copy, next: nil)
                return [.name(number)]
            }
            course = .copying(copy)
            return [.catchUp(number)]
        }
    }

    // MARK: another member's state

    /// A replacement is there.
    ///
    /// - Parameter isWanted: whether the state is still damaged.
    mutating func offer(_ new: Replacement, isWanted: Bool, compacted: Index) -> [Action] {
        guard isWanted, !isReplacing else {
            return [.remove(new.number), .decline(new, reason: "it is not needed any more")]
        }
        guard new.metadata.index >= compacted else {
            return [.remove(new.number), .decline(new, reason: "it is older than what the log begins with")]
        }
        switch course {
        case .namingCopy(let copy, _):
            course = .namingCopy(copy, next: new)
            return []
        case .copying(let copy):
            course = .awaiting(new)
            return [.remove(copy.number), .endCopy(copy, failure: Self.unwanted)]
        case .adopting(let copy, _):
            course = .awaiting(new)
            formers.append(copy.original)
            return [.endCopy(copy, failure: Self.unwanted)]
        case .none, .awaiting, .namingReplacement:
            course = .awaiting(new)
            return []
        }
    }

    private static let unwanted = "the state is damaged, and a sound one takes its place"

    /// Goes on once the log reaches a replacement that waits.
    ///
    /// - Parameters:
    ///   - settled: the last index that is committed, and durable here.
    ///   - term: of the entry at an index.
    mutating func proceed(settled: Index, term: (Index) -> Term?) -> [Action] {
        guard case .awaiting(let new) = course, new.metadata.index <= settled else { return [] }
        guard term(new.metadata.index) == new.metadata.term else {
            course = .none
            return [.remove(new.number), .decline(new, reason: "it does not fit this member's log")]
        }
        course = .namingReplacement(new)
        return [.name(new.number)]
    }

    /// The log names this state from now on, durably. A snapshot of the leader's may have taken its place meanwhile.
    ///
    /// - Parameter durable: what the state in use has.
    mutating func named(_ number: UInt64, durable: Index) -> [Action] {
        switch course {
        case .namingCopy(let copy, let next) where copy.number == number:
            self.number = number
            guard let next else {
                course = .adopting(copy, through: durable)
                return [.adopt(number)]
            }
            formers.append(copy.original)
            course = .awaiting(next)
            return [.adopt(number), .endCopy(copy, failure: Self.unwanted)]
        case .namingReplacement(let new) where new.number == number:
            formers.append(self.number)
            self.number = number
            course = .none
            return [.replace(new)]
        default: return []
        }
    }

    // MARK: a leader's snapshot

    /// The core is about to take in the snapshot whose state has this number, or to find it of no use.
    mutating func received(_ number: UInt64) { received = number }

    /// The core had its say. The state's number, if it had no use for it.
    mutating func takeUnused() -> UInt64? {
        defer { received = nil }
        return received
    }

    /// The core installs the snapshot that was just received. Until that write is on the disk nothing more is executed, and
    /// the old state stays.
    mutating func install(by write: UInt64) -> [Action] {
        guard let new = received else { preconditionFailure("a snapshot would be installed whose state nobody built") }
        received = nil
        defer {
            course = .none
            formers.append(number)
            number = new
            switchWrite = write
        }
        switch course {
        case .none: return []
        case .copying(let copy): return [.remove(copy.number), .endCopy(copy, failure: Self.outrun)]
        case .namingCopy(let copy, let next):
            // The log may name it until the snapshot's own write is on the disk.
            formers += [copy.original, copy.number]
            return [.endCopy(copy, failure: Self.outrun)] + Self.outrun(next)
        case .adopting(let copy, _):
            formers.append(copy.original)
            return [.endCopy(copy, failure: Self.outrun)]
        case .awaiting(let new): return Self.outrun(new)
        case .namingReplacement(let new):
            formers.append(new.number)
            return [.decline(new, reason: Self.outrun)]
        }
    }

    private static func outrun(_ new: Replacement?) -> [Action] {
        new.map { [.remove($0.number), .decline($0, reason: outrun)] } ?? []
    }

    // MARK: what is left

    /// To be called when the state thread has told how it stands, or the log that writes are durable.
    ///
    /// - Parameters:
    ///   - isSettled: whether the state thread is with the state in use.
    ///   - durable: what that has, on the disk.
    ///   - completedWrite: the last write of the log that is on the disk.
    mutating func settle(isSettled: Bool, durable: Index, completedWrite: UInt64) -> [Action] {
        guard isSettled else { return [] }
        var actions: [Action] = []
        if case .adopting(let copy, let through) = course, durable >= through {
            course = .none
            actions = [.endCopy(copy, failure: nil), .remove(copy.original)]
        }
        guard switchWrite ?? 0 <= completedWrite else { return actions }
        switchWrite = nil
        let useless = Set(formers).subtracting([number])
        formers = []
        return useless.sorted().map { .remove($0) } + actions
    }

    /// This member ends: what waits is told.
    mutating func end() -> [Action] {
        defer { course = .none }
        let reason = "this member ends"
        switch course {
        case .namingCopy(_, .some(let new)), .awaiting(let new), .namingReplacement(let new):
            return [.decline(new, reason: reason)]
        case .none, .copying, .namingCopy, .adopting: return []
        }
    }
}
