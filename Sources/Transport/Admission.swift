import Glibc
import Raft

/// Who may be connected: how many clients and peers, and how many that have not said who they are.
///
/// When all places are taken, whoever does nothing gives way to who comes. If none of the clients is idle, a few more get a
/// place for administration alone, so that who runs the cluster can see what goes on.
package struct Admission: Sendable {
    package struct Limits: Equatable, Sendable {
        package var clients: Int
        package var operators = 16
        /// Each member opens up to three connections to each other one.
        package var peers = 3 * Configuration.membersMax
        package var strangers = 128

        /// Descriptors for files, snapshots and this member's own links.
        private static let own = 128

        /// What this process may have open.
        package static var ofProcess: Limits {
            var limit = rlimit()
            guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
                return Limits(descriptors: 1024)
            }
            return Limits(descriptors: Int(clamping: limit.rlim_cur))
        }

        /// - Parameter descriptors: how many the process may have open.
        package init(descriptors: Int) {
            if descriptors < 1024 {
                (operators, peers, strangers) = (4, max(24, descriptors / 8), max(8, descriptors / 16))
            }
            let others = operators + peers + strangers + min(Self.own, descriptors / 4)
            clients = min(4096, max(8, descriptors - others))
        }
    }

    package enum Verdict: Equatable, Sendable {
        /// Welcome, in place of the other if there is one.
        case welcome(insteadOf: UInt64?)
        /// Welcome to administration alone.
        case operators(insteadOf: UInt64?)
        case full
    }

    private enum Kind: CaseIterable { case client, operators, peer }

    private struct Place {
        var kind: Kind
        var heardAt: Nanoseconds
    }

    /// How long a hello may take.
    package static let helloMax: Nanoseconds = 5_000_000_000

    private let limits: Limits
    /// When those came that have not said hello.
    private var strangers: [UInt64: Nanoseconds] = [:]
    private var places: [UInt64: Place] = [:]
    private var counts: [Kind: Int] = [:]

    package init(_ limits: Limits) { self.limits = limits }

    /// - Returns: the stranger that gives way: who waited longest.
    package mutating func opened(_ id: UInt64, at now: Nanoseconds) -> UInt64? {
        let oldest = strangers.count < limits.strangers ? nil : strangers.keys.min()
        if let oldest { strangers[oldest] = nil }
        strangers[id] = now
        return oldest
    }

    /// - Parameter isBusy: whether something of a connection's is under way.
    package mutating func greeted(
        _ id: UInt64, isPeer: Bool, at now: Nanoseconds, isBusy: (UInt64) -> Bool
    ) -> Verdict {
        strangers[id] = nil
        if isPeer {
            // Peers come back by themselves.
            return .welcome(insteadOf: take(id, .peer, limits.peers, now) { _ in false } ?? nil)
        }
        if let other = take(id, .client, limits.clients, now, isBusy) { return .welcome(insteadOf: other) }
        if let other = take(id, .operators, limits.operators, now, isBusy) { return .operators(insteadOf: other) }
        return .full
    }

    /// - Returns: who gives way, if somebody must; nil if there is no place.
    private mutating func take(
        _ id: UInt64, _ kind: Kind, _ limit: Int, _ now: Nanoseconds, _ isBusy: (UInt64) -> Bool
    ) -> UInt64?? {
        var other: UInt64?
        if counts[kind, default: 0] >= limit {
            other =
                places.filter { $0.value.kind == kind && !isBusy($0.key) }
                // Of those that came at once, who was here before stays.
                .min { ($0.value.heardAt, $1.key) < ($1.value.heardAt, $0.key) }?.key
            guard let other else { return nil }
            closed(other)
        }
        places[id] = Place(kind: kind, heardAt: now)
        counts[kind, default: 0] += 1
        return .some(other)
    }

    package mutating func heard(_ id: UInt64, at now: Nanoseconds) { places[id]?.heardAt = now }

    package mutating func closed(_ id: UInt64) {
        strangers[id] = nil
        if let place = places.removeValue(forKey: id) { counts[place.kind, default: 0] -= 1 }
    }

    /// Those that had the time to say hello.
    package func overdue(at now: Nanoseconds) -> [UInt64] {
        strangers.filter { now - $0.value >= Self.helloMax }.keys.sorted()
    }
}

/// The time that a frame may take: it gets on by so much in each while, or is whole. The longest frame passes on a slow link,
/// and one that comes byte by byte, or whose last byte does not come, ends.
package struct FrameDeadline: Sendable {
    package static let bytesMin: UInt64 = 64 << 10
    package static let whileMax: Nanoseconds = 10_000_000_000

    private var frames: UInt64 = 0
    private var bytes: UInt64 = 0
    /// When the frame that has begun last got on by as much as it must.
    private(set) var since: Nanoseconds?

    package init() {}

    /// To be asked about once a second.
    ///
    /// - Parameters:
    ///   - frames: how many have come, `bytes`: of all of them, and of the one that has begun.
    ///   - isUnfinished: whether one has begun, and this side reads on.
    package mutating func isOver(frames: UInt64, bytes: UInt64, isUnfinished: Bool, at now: Nanoseconds) -> Bool {
        guard isUnfinished else {
            since = nil
            return false
        }
        guard let since, frames == self.frames, bytes - self.bytes < Self.bytesMin else {
            (self.frames, self.bytes, since) = (frames, bytes, now)
            return false
        }
        return now - since >= Self.whileMax
    }
}
