import Testing

@testable import Node

@Suite("Verdicts on digests")
struct DigestVerdictTests {
    private func verdict(
        _ own: [(UInt64, UInt64)], _ told: [(UInt64, UInt64)], isVoter: Bool = true, voters: Int = 2
    ) -> DigestVerdict { DigestVerdict(of: own, told, isVoter: isVoter, voters: voters) }

    @Test("a majority decides, at the last index that enough of them remember")
    func verdicts() {
        #expect(verdict([(4096, 1)], [(4096, 1), (4096, 2)]) == .sound)
        #expect(verdict([(4096, 1)], [(4096, 2), (4096, 2)]) == .wrong(4096))
        #expect(verdict([(4096, 1)], [(4096, 2)]) == .unknown, "one of three proves nothing")
        #expect(verdict([(4096, 1)], [(4096, 2), (4096, 3)]) == .disagreement(4096))
        #expect(verdict([(4096, 1)], [(8192, 2), (8192, 2)]) == .unknown)
        #expect(verdict([(4096, 1), (8192, 2)], [(4096, 1), (4096, 1)]) == .sound)
        #expect(verdict([(4096, 1), (8192, 2)], [(8192, 2), (4096, 7)]) == .sound)
        #expect(verdict([], [(0, 0), (0, 0)]) == .unknown)
        // An older program tells none.
        #expect(verdict([(4096, 1)], [(0, 0), (0, 0)]) == .unknown)
        // A learner's own does not count.
        #expect(verdict([(4096, 1)], [(4096, 2), (4096, 2)], isVoter: false, voters: 3) == .wrong(4096))
        #expect(verdict([(4096, 1)], [(4096, 2), (4096, 3)], isVoter: false, voters: 3) == .unknown)
    }
}
