import BanyanClient
import Foundation
import Raft
import Testing
import WireProtocol

/// Digests of states that nobody has.
@Suite("Forged digests", .serialized)
struct ForgedDigestTests {
    @Test("digests in the leader's name, or the followers', make no member doubt its state, and hide no true one")
    func digests() async throws {
        let cluster = try await TestCluster.start(members: 3)
        let witness = try await Witness(of: cluster)
        let forger = try Forger(cluster)
        let index = try await witness.writeToNextDigest()
        #expect(await cluster.membersAgree(witness.client))
        try await witness.expectNoEffect(of: "forged digests") {
            let members = try await witness.client.status()
            let leader = try forger.member(try await cluster.leader())
            let term = try #require(members.map(\.term).max())
            for round in 0..<(Witness.isLong ? 50 : 5) as Range<UInt64> {
                for number in [index, index + 4096, index + 1, UInt64(1) << 60] {
                    let digest = (index: number, digest: UInt128(round + 7))
                    for other in forger.members where other.id != leader.id {
                        try forger.tell(
                            other, as: leader, .control,
                            Self.message(.heartbeat(commit: 1, round: 1), leader, other, term, digest))
                        try forger.tell(
                            leader, as: other, .control,
                            Self.message(.heartbeatResponse(round: 1), other, leader, term, digest))
                    }
                }
            }
        }
        // What they tell each other is heard on.
        try await witness.writeToNextDigest()
        let served = await cluster.condition {
            try await witness.client.status().allSatisfy { $0.statistics["digest_index"] ?? 0 > index }
        }
        #expect(served)
        #expect(await cluster.membersAgree(witness.client))
        for id in 1...3 { #expect(try !cluster.log(id).contains("damaged"), "member \(id)") }
        await witness.client.close()
    }

    private static func message(
        _ body: Message.Body, _ from: Forger.Target, _ to: Forger.Target, _ term: Term,
        _ digest: (index: Index, digest: UInt128)
    ) -> [UInt8] {
        Forger.bytes {
            Message(from: from.peer, to: to.peer, term: term, body: body).writeHead(to: &$0, digest: digest)
        }
    }
}
