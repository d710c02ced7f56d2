import BanyanClient
import Crypto
import Foundation
import NIOCore
import Raft
import Testing
import WireProtocol

@testable import Snapshots

/// Snapshots that no leader sent: a follower builds a state from what comes in the leader's name.
@Suite("Forged snapshots", .serialized)
struct ForgedSnapshotTests {
    /// A snapshot as its pieces, to be changed.
    private struct Pieces {
        var header: SnapshotHeader
        var chunks: [ByteBuffer] = []
        private var pairs: UInt64 = 0

        /// Takes it as a client does.
        init(of cluster: TestCluster, _ client: BanyanClient) async throws {
            var pieces: [ByteBuffer] = []
            try await client.snapshot(of: cluster.addresses[try await cluster.leader() - 1]) {
                pieces.append($0.slice())
            }
            header = try SnapshotHeader(pieces.removeFirst())
            pairs = pieces.removeLast().getInteger(at: 4, as: UInt64.self) ?? 0
            chunks = pieces
        }

        /// With checksums that are right.
        var whole: [ByteBuffer] {
            let front = [header.encoded()] + chunks
            var trailer = ByteBuffer()
            trailer.writeMultipleIntegers(UInt32(0), pairs)
            var digest = SHA256()
            for piece in front + [trailer] { piece.withUnsafeReadableBytes { digest.update(bufferPointer: $0) } }
            trailer.writeBytes(digest.finalize())
            return front + [trailer]
        }
    }

    /// Says the pieces in the name of `from`, and hears what becomes of each.
    private static func send(
        _ pieces: [(number: UInt32, bytes: ByteBuffer, isLast: Bool)], _ forger: Forger, as from: Forger.Target,
        to: Forger.Target, term: Term
    ) throws -> [SnapshotReceipt.Outcome] {
        let connection = try forger.connection(as: from, to: to, lane: .snapshot)
        _ = try connection.frame()
        var outcomes: [SnapshotReceipt.Outcome] = []
        for (number, bytes, isLast) in pieces {
            connection.say(
                Forger.bytes {
                    SnapshotPiece(
                        from: from.peer, to: to.peer, term: term, number: number, isLast: isLast, bytes: bytes
                    )
                    .write(to: &$0)
                })
            guard let frame = try connection.frame() else { break }
            outcomes.append(try SnapshotReceipt(frame).outcome)
        }
        connection.finish()
        return outcomes
    }

    private static func inOrder(_ pieces: [ByteBuffer]) -> [(number: UInt32, bytes: ByteBuffer, isLast: Bool)] {
        pieces.enumerated().map { (UInt32($0), $1, $0 == pieces.count - 1) }
    }

    @Test("snapshots of noise, of changed bytes, without an end or out of order change nothing")
    func broken() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        let forger = try Forger(cluster)
        let sound = try await Pieces(of: cluster, witness.client)
        let noise = ByteBuffer(bytes: (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 37) })
        var changed = Self.inOrder(sound.whole)
        let middle = changed[1].bytes.readableBytes / 2
        changed[1].bytes.setInteger(~(changed[1].bytes.getInteger(at: middle, as: UInt8.self) ?? 0), at: middle)
        var elsewhere = sound
        elsewhere.header.metadata.configuration = Configuration(
            clusterID: forger.clusterID ^ 1, members: sound.header.metadata.configuration.members)
        let reversed = Array(Self.inOrder(sound.whole).reversed())
        let attacks: [(String, [(number: UInt32, bytes: ByteBuffer, isLast: Bool)], SnapshotReceipt.Outcome)] = [
            ("noise", [(0, noise, false)], .refused), ("noise as its end", [(0, noise, true)], .refused),
            ("nothing", [(0, ByteBuffer(), false)], .refused),
            ("a header alone", [Self.inOrder(sound.whole)[0]], .taken),
            ("a changed piece", changed, .refused), ("another cluster's", Self.inOrder(elsewhere.whole), .refused),
            ("its end first", reversed, .refused), ("a piece of the last number", [(.max, noise, false)], .refused),
            // It holds nothing that the follower lacks.
            ("what is there already", Self.inOrder(sound.whole), .complete),
        ]
        for (name, pieces, outcome) in attacks {
            try await witness.expectNoEffect(of: "a snapshot of \(name)") {
                let leader = try forger.member(try await cluster.leader())
                let term = try #require(try await witness.client.status().map(\.term).max())
                for follower in forger.members where follower.id != leader.id {
                    let outcomes = try Self.send(pieces, forger, as: leader, to: follower, term: term)
                    #expect(outcomes.contains(outcome), "\(name): \(outcomes)")
                    #expect(outcome == .complete || !outcomes.contains(.complete), "\(name): \(outcomes)")
                }
            }
        }
        await witness.client.close()
    }

    @Test("who took in a whole tree that the cluster never had, in its leader's name, is brought level again")
    func whole() async throws {
        let stranger = try await TestCluster.start(members: 1)
        let writer = stranger.client()
        for number in 0..<200 { _ = try await writer.put("/never/\(number)", [UInt8(number)]) }
        var forged = try await Pieces(of: stranger, writer)
        await writer.close()
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        let forger = try Forger(cluster)
        let own = try await Pieces(of: cluster, witness.client).header.metadata
        #expect(forged.header.metadata.index > own.index)
        forged.header.metadata.configuration = own.configuration
        // In the leader's term, and of a leader of the next one.
        for rise: UInt64 in Witness.isLong ? [0, 1, 0, 1] : [0, 1] {
            let leader = try forger.member(try await cluster.leader())
            let term = try #require(try await witness.client.status().map(\.term).max())
            let follower = try #require(forger.members.first { $0.id != leader.id })
            let outcomes = try Self.send(
                Self.inOrder(forged.whole), forger, as: leader, to: follower, term: term + rise)
            #expect(outcomes.last == .complete, "\(outcomes)")
            try await witness.expectRecovery(after: "a whole forged snapshot, of \(rise) terms later")
        }
        await #expect(throws: BanyanError.self) { _ = try await witness.client.get("/never/1") }
        await witness.client.close()
    }
}
