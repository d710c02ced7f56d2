import Raft
import Testing

@testable import Node

@Suite("The vote on digests")
struct DigestVoteTests {
    private let peers = (1...3).map { PeerID($0) }
    private var electorate: DigestVote.Electorate { .init(leader: peers[0], voters: peers) }

    @Test("a leader that hears a majority knows its digest, and doubts its own when that is another")
    func majority() {
        var vote = DigestVote()
        #expect(vote.remember([(4096, 7)], electorate) == nil)
        #expect(vote.agreed == nil)
        _ = vote.heard((4096, 7), from: peers[1], electorate)
        #expect(vote.agreed?.index == 4096 && vote.agreed?.digest == 7)
        #expect(vote.askNow(now: 1 << 40) == false)
        var wrong = DigestVote()
        _ = wrong.remember([(4096, 8)], electorate)
        _ = wrong.heard((4096, 7), from: peers[1], electorate)
        #expect(wrong.askNow(now: 1 << 40) == false)
        _ = wrong.heard((4096, 7), from: peers[2], electorate)
        #expect(wrong.askNow(now: 1 << 40) == true)
        #expect(wrong.answered([(4096, 7), (4096, 7)], isVoter: true, others: 2, isLeader: true) == .wrong(4096))
    }

    @Test("a follower doubts by the leader's word, asks no more often than it may, and one at a time")
    func asking() {
        var vote = DigestVote()
        _ = vote.remember([(4096, 8)], nil)
        vote.judge((8192, 7))
        #expect(vote.askNow(now: 1 << 40) == false)
        vote.judge((4096, 7))
        #expect(vote.askNow(now: 1 << 40) == true)
        vote.judge((4096, 7))
        #expect(vote.askNow(now: 1 << 41) == false)
        // The others say the same as this member: the leader's word was forged.
        #expect(vote.answered([(4096, 8), (4096, 8)], isVoter: true, others: 2, isLeader: false) == .nothing)
        vote.judge((4096, 7))
        #expect(vote.askNow(now: 1 << 40) == false)
        vote.judge((4096, 7))
        #expect(vote.askNow(now: 1 << 40 + DigestVote.askingPause) == true)
    }

    @Test("when all voters differ the leader refuses puts, until a majority agrees again")
    func alarm() {
        var vote = DigestVote()
        _ = vote.remember([(4096, 1)], electorate)
        _ = vote.heard((4096, 2), from: peers[1], electorate)
        _ = vote.heard((4096, 3), from: peers[2], electorate)
        #expect(vote.askNow(now: 1 << 40) == true)
        let told: [(index: Index, digest: UInt64)] = [(4096, 2), (4096, 3)]
        #expect(vote.answered(told, isVoter: true, others: 2, isLeader: false) == .nothing)
        #expect(!vote.isAlarmed)
        #expect(vote.answered(told, isVoter: true, others: 2, isLeader: true) == .alarm(4096))
        #expect(vote.isAlarmed)
        #expect(vote.answered(told, isVoter: true, others: 2, isLeader: true) == .nothing)
        _ = vote.remember([(8192, 1)], electorate)
        #expect(vote.heard((8192, 1), from: peers[1], electorate) == 8192)
        #expect(!vote.isAlarmed)
    }

    @Test("what is remembered has a bound, older words count no more, and a new state has no past")
    func bounds() {
        var vote = DigestVote()
        for number in 1...UInt64(DigestVote.digestsMax + 5) { _ = vote.remember([(number * 4096, 1)], nil) }
        vote.judge((5 * 4096, 2))
        #expect(vote.askNow(now: 1 << 40) == false, "it was forgotten")
        vote.judge((6 * 4096, 2))
        #expect(vote.askNow(now: 1 << 40) == true)
        vote.stateReplaced()
        #expect(vote.last == nil)
        var heard = DigestVote()
        _ = heard.heard((8192, 5), from: peers[1], electorate)
        _ = heard.heard((4096, 7), from: peers[1], electorate)
        _ = heard.remember([(4096, 7)], electorate)
        #expect(heard.agreed == nil)
    }
}
