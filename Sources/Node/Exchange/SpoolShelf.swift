import Driver
import Raft
import Snapshots

/// The snapshots of this member's state: the last that was made, who takes which, and who waits for one.
///
/// One is made at a time, and does for everybody whose index it covers. Peers get theirs as they need them; clients wait
/// until few enough lie on the disk.
struct SpoolShelf {
    /// Whom a snapshot is for.
    enum Customer: Equatable {
        case peer(PeerID)
        case client(Waiter)
    }

    typealias Delivery = (to: Customer, spool: Result<Spool, SnapshotError>)

    /// A snapshot that a client takes, piece by piece.
    private struct Backup {
        let spool: Spool
        var usedAt: Nanoseconds
        /// When a piece was last asked for that had not been before.
        var advancedAt: Nanoseconds
        var next: UInt32 = 0
    }

    /// A client that waits until its index is durable, and one can be made that covers it.
    private struct Asked {
        let waiter: Waiter
        let index: Index
        let deadline: Nanoseconds
    }

    /// A snapshot on its way to a peer.
    private struct Loan {
        /// What it covers at the least: the log must keep what follows.
        let floor: Index
        var spool: Spool?
    }

    /// How long a snapshot that nobody takes is kept for the next, or for one that comes back.
    static let keptFor: Nanoseconds = 60_000_000_000
    /// So many at most lie on the disk for clients; who wants a newer one waits until an older one is taken.
    static let spoolsMax = 2
    /// Who has come no further with its snapshot for so long gives it up when others wait.
    static let backupIdleMax: Nanoseconds = 5_000_000_000
    /// How long a peer whose transfer broke off waits for the next: making snapshots again and again for one that can't take
    /// them would only wear the disk.
    static let transferPause: Nanoseconds = 2_000_000_000

    /// The last that was made, and when it was last of use.
    private var latest: Spool?
    private var usedAt: Nanoseconds = 0
    private var orders: [(customer: Customer, index: Index)] = []
    private var isMaking = false
    private var loans: [PeerID: Loan] = [:]
    /// When a peer's last transfer broke off.
    private var failedAt: [PeerID: Nanoseconds] = [:]
    private var backups: [UInt64: Backup] = [:]
    private var asked: [Asked] = []

    // MARK: what there is

    /// The snapshots that somebody takes. The last one that was made goes when the next is, unless it is one of them.
    private var taken: [Spool] { Self.distinct(backups.values.map(\.spool) + loans.values.compactMap(\.spool)) }

    /// All snapshots that take room on the disk.
    var spools: [Spool] { Self.distinct(taken + [latest].compactMap(\.self)) }

    private static func distinct(_ spools: [Spool]) -> [Spool] {
        spools.reduce(into: []) { known, spool in
            if !known.contains(where: { $0 === spool }) { known.append(spool) }
        }
    }

    /// What the log must keep what follows of. A peer whose transfer broke off goes on with the same snapshot, as long as
    /// that is kept: it would be of no use if the log began behind it.
    var needed: [Index] {
        let held = loans.values.map { $0.spool?.header.metadata.index ?? $0.floor }
        return held + (failedAt.isEmpty ? [] : [latest?.header.metadata.index].compactMap(\.self))
    }

    /// The last snapshot that was made, if it covers `index` and is of this cluster: a state that has not executed its new
    /// cluster's first entry still bears the name of the one that it came from.
    private func latest(covering index: Index, clusterID: UInt64) -> Spool? {
        guard let latest, latest.header.metadata.index >= index, !latest.hasFailed,
            latest.header.metadata.configuration.clusterID == clusterID
        else { return nil }
        return latest
    }

    // MARK: orders

    /// Whether a transfer to the peer may begin.
    func mayBegin(_ peer: PeerID, now: Nanoseconds) -> Bool {
        failedAt[peer].map { now - $0 >= Self.transferPause } ?? true
    }

    /// A peer needs a snapshot of everything through `index` at the least.
    ///
    /// - Parameter floor: what one covers that is made from now on.
    mutating func order(
        for peer: PeerID, covering index: Index, floor: Index, clusterID: UInt64, now: Nanoseconds
    ) -> [Delivery] {
        orders.removeAll { $0.customer == .peer(peer) }
        loans[peer] = Loan(floor: floor)
        return order(.peer(peer), index, clusterID, now)
    }

    private mutating func order(
        _ customer: Customer, _ index: Index, _ clusterID: UInt64, _ now: Nanoseconds
    ) -> [Delivery] {
        guard let spool = latest(covering: index, clusterID: clusterID) else {
            orders.append((customer, index))
            return []
        }
        usedAt = now
        return [deliver(.success(spool), to: customer, now)]
    }

    private mutating func deliver(
        _ result: Result<Spool, SnapshotError>, to customer: Customer, _ now: Nanoseconds
    ) -> Delivery {
        if case .success(let spool) = result {
            switch customer {
            case .peer(let peer): loans[peer]?.spool = spool
            case .client(let waiter):
                backups[waiter.connection] = Backup(spool: spool, usedAt: now, advancedAt: now)
            }
        }
        return (customer, result)
    }

    /// Whether one is to be made now; `made` follows.
    ///
    /// - Parameter isStateSettled: whether the state that it would be made from is the member's.
    mutating func begins(isStateSettled: Bool) -> Bool {
        guard !orders.isEmpty, !isMaking, isStateSettled else { return false }
        isMaking = true
        return true
    }

    /// One can be read from, and grows from now on; or none could be made.
    ///
    /// - Parameter isOfUse: false when another state has taken the place of what it was made from, or that was found wrong.
    mutating func made(
        _ result: Result<Spool, SnapshotError>, isOfUse: Bool, clusterID: UInt64, now: Nanoseconds
    ) -> [Delivery] {
        isMaking = false
        guard isOfUse else { return [] }
        let waiting = orders
        orders = []
        guard case .success(let spool) = result else {
            return waiting.map { deliver(result, to: $0.customer, now) }
        }
        (latest, usedAt) = (spool, now)
        let metadata = spool.header.metadata
        let covered = metadata.configuration.clusterID == clusterID ? metadata.index : 0
        orders = waiting.filter { $0.index > covered }
        return waiting.filter { $0.index <= covered }.map { deliver(result, to: $0.customer, now) }
    }

    /// Nobody gets any more of what was made from a state that is wrong. Transfers that have begun must be ended.
    mutating func drop() -> [Delivery] {
        defer { orders = [] }
        latest = nil
        backups = [:]
        return orders.map { ($0.customer, .failure(.corrupt)) }
    }

    // MARK: peers

    mutating func transferEnded(_ peer: PeerID, isInstalled: Bool, now: Nanoseconds) {
        loans[peer] = nil
        orders.removeAll { $0.customer == .peer(peer) }
        failedAt[peer] = isInstalled ? nil : now
    }

    // MARK: clients

    /// False: this connection waits for one already. Who holds many would keep the others waiting.
    mutating func ask(_ waiter: Waiter, covering index: Index, deadline: Nanoseconds) -> Bool {
        guard !asked.contains(where: { $0.waiter.connection == waiter.connection }) else { return false }
        asked.append(Asked(waiter: waiter, index: index, deadline: deadline))
        return true
    }

    /// Begins the snapshots of clients whose index is durable by now.
    ///
    /// - Returns: what there is already, and who waited too long.
    mutating func beginBackups(
        durable: Index, clusterID: UInt64, now: Nanoseconds
    ) -> (deliveries: [Delivery], expired: [Waiter]) {
        guard !asked.isEmpty else { return ([], []) }
        if taken.count >= Self.spoolsMax {
            backups = backups.filter { now - $0.value.advancedAt <= Self.backupIdleMax }
        }
        let expired = asked.filter { $0.deadline <= now }.map(\.waiter)
        var deliveries: [Delivery] = []
        let waiting = asked.filter { $0.deadline > now }
        asked = []
        for one in waiting {
            let mayBegin =
                latest(covering: one.index, clusterID: clusterID) != nil || taken.count < Self.spoolsMax
            if one.index <= durable, mayBegin {
                deliveries += order(.client(one.waiter), one.index, clusterID, now)
            } else {
                asked.append(one)
            }
        }
        return (deliveries, expired)
    }

    /// Those who waited: the state goes no further.
    mutating func refuseBackups() -> [Waiter] {
        defer { asked = [] }
        return asked.map(\.waiter)
    }

    /// The snapshot that a client's connection has, of which it asks for this piece; nil: it has none.
    mutating func read(_ piece: UInt32, by connection: UInt64, now: Nanoseconds) -> Spool? {
        guard var backup = backups[connection] else { return nil }
        (usedAt, backup.usedAt) = (now, now)
        if piece >= backup.next { (backup.next, backup.advancedAt) = (piece &+ 1, now) }
        backups[connection] = backup
        return backup.spool
    }

    /// The client has all of it.
    mutating func finished(_ connection: UInt64) { backups[connection] = nil }

    /// The client has gone.
    mutating func release(_ connection: UInt64) {
        backups[connection] = nil
        asked.removeAll { $0.waiter.connection == connection }
        orders.removeAll { order in
            if case .client(let waiter) = order.customer { waiter.connection == connection } else { false }
        }
    }

    /// Lets go of what nobody wanted for a while.
    mutating func tend(now: Nanoseconds) {
        if loans.values.contains(where: { $0.spool === latest }) { usedAt = now }
        if latest != nil, now - usedAt > Self.keptFor { latest = nil }
        if !backups.isEmpty { backups = backups.filter { now - $0.value.usedAt <= Self.keptFor } }
    }
}
