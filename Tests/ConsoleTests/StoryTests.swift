import Testing

@testable import Console

@Suite("What a cluster does, in words")
struct StoryTests {
    private func look(_ roles: [String?], term: UInt64 = 1, applied: [UInt64] = [5, 5, 5]) -> [ClusterStory.Sight] {
        roles.indices.map { position in
            ClusterStory.Sight(
                id: UInt64(position + 1), role: roles[position], term: term, applied: applied[position])
        }
    }

    @Test("an election, a lost leader, a lost majority and a return are told once each, and nothing else is")
    func story() {
        var story = ClusterStory()
        #expect(story.tell(look([nil, nil, nil])) == [])
        #expect(story.tell(look(["follower", "candidate", nil])) == [])
        #expect(
            story.tell(look(["follower", "leader", "follower"])) == ["member 2 leads term 1; members 1 and 3 follow"])
        #expect(story.tell(look(["follower", "leader", "follower"])) == [])
        #expect(
            story.tell(look(["follower", nil, "follower"])) == [
                "member 2 does not answer", "nobody leads now: members 1 and 3 choose another",
            ])
        #expect(story.tell(look(["follower", nil, "candidate"])) == [])
        #expect(story.tell(look(["leader", nil, "follower"], term: 2)) == ["member 1 leads term 2; member 3 follows"])
        #expect(
            story.tell(look([nil, nil, "candidate"], term: 2)) == [
                "member 1 does not answer",
                "nobody leads: 1 of 3 members answers, and 2 are needed to promise anything",
            ])
        #expect(
            story.tell(look(["follower", nil, "leader"], term: 3)) == [
                "member 1 answers again", "member 3 leads term 3; member 1 follows",
            ])
    }

    @Test("who comes back far behind is told to catch up, and when it has")
    func behind() {
        var story = ClusterStory()
        _ = story.tell(look(["leader", "follower", "follower"]))
        #expect(
            story.tell(look(["leader", "follower", "follower"], applied: [9000, 8999, 10])) == [
                "member 3 is 8990 commands behind, and catches up"
            ])
        #expect(story.tell(look(["leader", "follower", "follower"], applied: [9500, 9499, 9000])) == [])
        #expect(
            story.tell(look(["leader", "follower", "follower"], applied: [9500, 9500, 9500])) == [
                "member 3 is level with the others again"
            ])
    }

    @Test("what a member's figures warn of is said, whatever kinds there are, and nothing where all is well")
    func warnings() {
        #expect(MemberWarnings.lines(of: 1, ["files": 3, "offences_term_leap": 0, "disk_waiting_ms": 12]) == [])
        let lines = MemberWarnings.lines(
            of: 2,
            [
                "disk_waiting_ms": 3250, "offences_term_leap": 12, "offences_any_new_kind": 1,
            ])
        #expect(lines.count == 2 && lines.allSatisfy { $0.hasPrefix("member 2: ") }, "\(lines)")
        #expect(lines[0].contains("3.2 s"))
        #expect(lines[1].hasSuffix("1 any new kind, 12 term leap"))
    }
}
