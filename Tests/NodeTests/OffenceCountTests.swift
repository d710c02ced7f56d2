import Raft
import Testing

@testable import Node

@Suite("Counting what no sound member sends")
struct OffenceCountTests {
    @Test("each is counted by its kind, and told when their number has doubled")
    func counted() {
        var offences = OffenceCount()
        let told = (1...16).filter { _ in
            offences.note(Offence(peer: PeerID(2), term: 1, kind: .secondLeader), isMember: true, now: 1)
        }
        #expect(told == [1, 2, 4, 8, 16])
        let isFirstTold = offences.note(Offence(peer: PeerID(2), term: 1, kind: .leap), isMember: true, now: 1)
        #expect(isFirstTold)
        #expect(offences.count(of: .secondLeader) == 16 && offences.count(of: .leap) == 1)
        #expect(Offence.Kind.answersUnsent.statistic == "offences_answers_unsent")
        #expect(Set(Offence.Kind.allCases.map(\.statistic)).count == Offence.Kind.allCases.count)
    }

    @Test("who speaks from beyond a leap is named for a minute, and however many names are used stay bounded")
    func leapers() {
        var offences = OffenceCount()
        for name in 1...1000 as ClosedRange<UInt64> {
            _ = offences.note(Offence(peer: PeerID(name), term: 1 << 40, kind: .leap), isMember: true, now: 5)
        }
        #expect(offences.beyondLeap(now: 6).count == 64)
        _ = offences.note(Offence(peer: PeerID(2000), term: 1 << 40, kind: .leap), isMember: false, now: 61_000_000_000)
        _ = offences.note(Offence(peer: PeerID(7), term: 1 << 40, kind: .leap), isMember: true, now: 61_000_000_000)
        #expect(offences.beyondLeap(now: 62_000_000_000) == [PeerID(7)])
    }
}
