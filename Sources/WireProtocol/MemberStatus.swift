import NIOCore

/// What a member says of itself.
///
///     0   8  member id   8   8  term   16  8  commit index   24  8  applied index   32  16  digest at that index
///     48  1  role: 0 follower, 1 candidate, 2 leader, 3 learner
///     49  .  the list of members (length 2, bytes)
///     .   .  the leader's address, or empty (length 2, bytes)
///     .   .  statistics: how many (2), and of each its name (length 2, bytes) and value (8)
///     .   .  work that is under way: how much of it (2), and of each what it is in words (length 2, bytes), how many bytes of
///            it are done (8) and how many there are (8; 0: not known yet)
///
/// A member of an earlier program sends neither of the last two; nor does one that has nothing to say there. One that has not
/// begun yet says so by the statistic `starting`, and by its work what it waits for.
package struct MemberStatus: Equatable, Sendable {
    package enum Role: UInt8, Sendable { case follower = 0, candidate, leader, learner }

    package var id: UInt64
    package var term: UInt64
    package var commit: UInt64
    package var applied: UInt64
    package var digest: UInt128
    package var role: Role
    package var members: String
    package var leader: String
    package var statistics: [Statistic] = []
    package var workUnderWay: [Work] = []

    /// A figure under a name that never means anything else.
    package struct Statistic: Equatable, Sendable {
        package var name: String
        package var value: UInt64

        package init(_ name: String, _ value: UInt64) {
            self.name = name
            self.value = value
        }
    }

    package struct Work: Equatable, Sendable {
        package var description: String
        package var bytesDone: UInt64
        /// 0: not known yet.
        package var bytes: UInt64

        package init(_ description: String, bytesDone: UInt64, of bytes: UInt64 = 0) {
            self.description = description
            self.bytesDone = bytesDone
            self.bytes = bytes
        }
    }

    package init(
        id: UInt64, term: UInt64, commit: UInt64, applied: UInt64, digest: UInt128, role: Role, members: String,
        leader: String
    ) {
        self.id = id
        self.term = term
        self.commit = commit
        self.applied = applied
        self.digest = digest
        self.role = role
        self.members = members
        self.leader = leader
    }

    package func write(to buffer: inout ByteBuffer, requestID: UInt64) {
        buffer.writeFrame(.statusResult, requestID: requestID) { body in
            body.writeMultipleIntegers(id, term, commit, applied, digest, role.rawValue)
            body.writeText(members)
            body.writeText(leader)
            guard !statistics.isEmpty || !workUnderWay.isEmpty else { return }
            body.writeInteger(UInt16(statistics.count))
            for statistic in statistics {
                body.writeText(statistic.name)
                body.writeInteger(statistic.value)
            }
            body.writeInteger(UInt16(workUnderWay.count))
            for work in workUnderWay {
                body.writeText(work.description)
                body.writeMultipleIntegers(work.bytesDone, work.bytes)
            }
        }
    }

    /// Of a member that has not begun.
    package static func starting(
        id: UInt64, members: String, reason: String, bytesDone: UInt64 = 0
    ) -> MemberStatus {
        var status = MemberStatus(
            id: id, term: 0, commit: 0, applied: 0, digest: 0, role: .learner, members: members, leader: "")
        status.statistics = [Statistic(isStarting, 1)]
        status.workUnderWay = [Work(reason, bytesDone: bytesDone)]
        return status
    }

    /// What the member waits for, if it has not begun.
    package var startingReason: String? {
        guard statistics.contains(Statistic(Self.isStarting, 1)) else { return nil }
        return workUnderWay.first.map { ForeignText.plain($0.description) } ?? "it starts"
    }

    private static let isStarting = "starting"
    /// The statistic of a member that the others know no more, whatever its own list says.
    package static let removed = "removed"
    /// Milliseconds: a leader's word of what log time is now.
    package static let logTime = "log_time_ms"
    /// The cluster version that is in force.
    package static let clusterVersion = "cluster_version"

    /// Whether the member knows that it belongs to no cluster any more.
    package var isRemoved: Bool {
        let ids = members.split(separator: ",").compactMap { part in
            part.split(separator: "=").first.flatMap { UInt64($0) }
        }
        return !ids.isEmpty && !ids.contains(id) || statistics.contains(Statistic(Self.removed, 1))
    }

    package init(_ frame: Frame) throws(ProtocolError) {
        var body = frame.body
        guard frame.kind == .statusResult,
            let (id, term, commit, applied, digest, role) = body.readMultipleIntegers(
                as: (UInt64, UInt64, UInt64, UInt64, UInt128, UInt8).self),
            let role = Role(rawValue: role), let members = body.readText(), let leader = body.readText()
        else { throw .malformedBody(.statusResult) }
        self.init(
            id: id, term: term, commit: commit, applied: applied, digest: digest, role: role, members: members,
            leader: leader)
        guard body.readableBytes > 0 else { return }
        guard let figures = body.readInteger(as: UInt16.self) else { throw .malformedBody(.statusResult) }
        for _ in 0..<figures {
            guard let name = body.readText(), let value = body.readInteger(as: UInt64.self) else {
                throw .malformedBody(.statusResult)
            }
            statistics.append(Statistic(name, value))
        }
        guard let works = body.readInteger(as: UInt16.self) else { throw .malformedBody(.statusResult) }
        for _ in 0..<works {
            guard let description = body.readText(),
                let (done, all) = body.readMultipleIntegers(as: (UInt64, UInt64).self)
            else { throw .malformedBody(.statusResult) }
            workUnderWay.append(Work(description, bytesDone: done, of: all))
        }
    }
}
