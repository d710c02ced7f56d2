import NIOCore
import WireProtocol

extension BanyanClient {
    /// Takes a snapshot of the member at `address`: of everything that was acknowledged before the call, and perhaps more.
    ///
    /// - Parameters:
    ///   - patience: how long the member may take to begin it, and to make each of its pieces.
    ///   - receive: called with each piece in order; the pieces one after the other are a snapshot file.
    package func snapshot(
        of address: String, patience: Duration = .seconds(60), _ receive: (ByteBuffer) async throws -> Void
    ) async throws {
        _ = try await request(.openSnapshot, ByteBuffer(), address, patience).get()
        var next = piece(0, address, patience)
        var number: UInt32 = 0
        while true {
            var answer = try await next.get()
            // The next one is on its way while this one is looked at.
            number += 1
            guard let isLast = answer.readInteger(as: UInt8.self) else { throw Self.malformedPiece }
            if isLast == 0 { next = piece(number, address, patience) }
            try await receive(answer)
            if isLast != 0 { return }
        }
    }

    private static let malformedPiece = BanyanError.protocolViolation("a piece of a snapshot can't be read")

    private func piece(_ number: UInt32, _ address: String, _ patience: Duration) -> EventLoopFuture<ByteBuffer> {
        request(.readSnapshot, ByteBuffer(integer: number), address, patience)
    }

    /// Has every member that can be reached read all that it keeps. It takes as long as that takes: only one
    /// that shows no progress for the client's timeout is given up.
    public func verify() async throws -> [VerificationReport] {
        let members = try await status()
        return try await withThrowingTaskGroup(of: VerificationReport.self) { group in
            for member in members { group.addTask { try await self.verify(member) } }
            return try await group.reduce(into: []) { $0.append($1) }.sorted { $0.id < $1.id }
        }
    }

    private func verify(_ member: MemberReport) async throws -> VerificationReport {
        guard member.isRunning else {
            return VerificationReport(member, nil, obstacle: "it can't be reached")
        }
        guard member.role != "removed" else {
            return VerificationReport(member, nil, obstacle: "it was removed from the cluster, and can be stopped")
        }
        do {
            var answer = try await request(.verify, ByteBuffer(), member.address, timeoutDuration).get()
            guard let found = Verification(from: &answer) else { throw Self.malformedPiece }
            return VerificationReport(member, found)
        } catch let error as BanyanError {
            return VerificationReport(member, nil, obstacle: "\(error)")
        }
    }

    /// Has the member write its state anew while it is in use, without the pages of its file that hold nothing. It takes as
    /// long as that takes: only one that shows no progress for the client's timeout is given up.
    ///
    /// - Throws: `noSuchMember`; `memberUnreachable`; `noQuorum` when it is being done already; `diskFull` when there is no room for two.
    public func compact(_ id: UInt64) async throws -> CompactionReport {
        guard let member = try await status().first(where: { $0.id == id }) else { throw BanyanError.noSuchMember }
        guard member.isRunning else {
            throw BanyanError.memberUnreachable("member \(id) at \(member.address) can't be reached")
        }
        var answer = try await request(.rewriteState, ByteBuffer(), member.address, timeoutDuration).get()
        guard let rewrite = StateRewrite(from: &answer) else { throw Self.malformedPiece }
        return CompactionReport(id: id, address: member.address, rewrite)
    }

    /// A request to one member, whose answer begins with a result code.
    private func request(
        _ kind: Frame.Kind, _ body: ByteBuffer, _ address: String, _ patience: Duration
    ) -> EventLoopFuture<ByteBuffer> {
        let promise = makePromise(of: Frame.self)
        perform(kind, body, to: address, patience: patience) {
            promise.completeWith($0.mapError { $0 as any Error })
        }
        return promise.futureResult.flatMapThrowing { frame in
            var body = frame.body
            guard body.readInteger(as: UInt16.self) == 0 else { throw Self.malformedPiece }
            return body
        }
    }
}

/// What became of a state that a member wrote anew.
public struct CompactionReport: Equatable, Sendable {
    public let id: UInt64
    public let address: String
    public let bytesBefore: UInt64
    public let bytesAfter: UInt64
    public let seconds: Double
    /// Why the old one is still in use; empty if it is not.
    public let failure: String

    init(id: UInt64, address: String, _ rewrite: StateRewrite) {
        self.id = id
        self.address = address
        bytesBefore = rewrite.bytesBefore
        bytesAfter = rewrite.bytesAfter
        seconds = Double(rewrite.milliseconds) / 1000
        failure = rewrite.failure
    }
}

/// What a member found when it read everything that it keeps.
public struct VerificationReport: Equatable, Sendable {
    public let id: UInt64
    public let address: String
    /// As in `MemberReport`.
    public let role: String
    /// The last command whose effect the state that was read has, and the state's digest there.
    public let index: UInt64
    public let digest: String
    public let rows: UInt64
    /// Of the rows.
    public let bytes: UInt64
    /// How many entries of the log were read.
    public let entries: UInt64
    public let seconds: Double
    /// What is damaged; empty if nothing is, as far as it was read.
    public let damage: String
    /// Why nothing is known of the member, whose figures are 0 then; nil if it was read.
    public let obstacle: String?

    init(_ member: MemberReport, _ answer: Verification?, obstacle: String? = nil) {
        id = member.id
        (address, role) = (member.address, member.role)
        let found = answer ?? Verification()
        index = found.index
        let digits = String(found.digest, radix: 16)
        digest = String(repeating: "0", count: 32 - digits.count) + digits
        rows = found.rows
        bytes = found.bytes
        entries =
            found.lastEntry == 0 || found.firstEntry > found.lastEntry ? 0 : found.lastEntry - found.firstEntry &+ 1
        seconds = Double(found.milliseconds) / 1000
        damage = found.damage
        self.obstacle = obstacle
    }
}
