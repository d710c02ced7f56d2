import NIOCore
import Testing

@testable import BanyanClient

/// The choice of addresses as a value: what is asked, when, and who is believed.
@Suite("The search for the leader")
struct LeaderSearchTests {
    private typealias Statement = LeaderSearch.Statement

    /// What happens to a search, with a clock that the test moves.
    private struct Script {
        var search: LeaderSearch
        var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
        var asked: [String] = []
        var hasConcluded = false
        private var wakes: [NIODeadline] = []

        init(_ nodes: String...) { search = LeaderSearch(nodes: nodes) }

        mutating func take(_ actions: [LeaderSearch.Action]) {
            for action in actions {
                switch action {
                case .ask(let address): asked.append(address)
                case .wake(let time): wakes.append(time)
                case .concluded: hasConcluded = true
                }
            }
        }

        mutating func begin() { take(search.begin(at: now)) }
        mutating func heard(_ address: String, _ statement: Statement) {
            take(search.heard(statement, from: address, at: now))
        }
        mutating func failed(_ address: String, _ reason: String = "connection refused") {
            take(search.failed(address, .unreachable(reason), at: now))
        }

        /// Lets time pass, with all that was to happen in it.
        mutating func pass(_ time: TimeAmount) {
            let end = now + time
            while let next = wakes.min(), next <= end {
                wakes.removeAll { $0 == next }
                now = max(now, next)
                take(search.wake(at: now, isWanted: true))
            }
            now = end
        }
    }

    private static func leads(_ term: UInt64 = 1, members: [String] = ["a", "b", "c"]) -> Statement {
        Statement(leads: true, term: term, leader: "", members: members)
    }
    private static func follows(_ leader: String) -> Statement {
        Statement(term: 1, leader: leader, members: ["a", "b", "c"])
    }

    @Test("who says that it leads is the leader, and nobody else is asked")
    func first() {
        var script = Script("a", "b", "c")
        script.begin()
        #expect(script.asked == ["a"])
        script.heard("a", Self.leads())
        #expect(script.search.leader == "a" && script.asked == ["a"])
        script.begin()
        #expect(script.asked == ["a"])
    }

    @Test("however many addresses are mute in front of it, the leader is found within a second", arguments: 1...6)
    func mute(count: Int) {
        let nodes = (1...count).map { "m\($0)" } + ["leader"]
        var script = Script()
        script.search = LeaderSearch(nodes: nodes)
        script.begin()
        let began = script.now
        while !script.asked.contains("leader") { script.pass(.milliseconds(10)) }
        script.heard("leader", Self.leads(members: nodes))
        #expect(script.search.leader == "leader")
        #expect(script.now - began < .seconds(1))
        // Nobody was asked twice meanwhile.
        #expect(Set(script.asked).count == script.asked.count)
    }

    @Test("an address that fails, or knows no leader, gives way to the next at once")
    func atOnce() {
        var script = Script("a", "b", "c")
        script.begin()
        script.failed("a")
        script.heard("b", Statement())
        #expect(script.asked == ["a", "b", "c"])
        script.heard("c", Self.leads())
        #expect(script.search.leader == "c")
    }

    @Test("whom a follower names is asked next, and leads only if it says so itself")
    func hint() {
        var script = Script("a", "b")
        script.begin()
        script.heard("a", Self.follows("x"))
        #expect(script.asked == ["a", "x"])
        #expect(script.search.leader == nil)
        // Behind a translation of addresses nobody is found under the name that members have of each other.
        script.failed("x", "no route to host")
        #expect(script.asked == ["a", "x", "b"])
        script.heard("b", Self.leads(members: ["x", "y"]))
        #expect(script.search.leader == "b")
    }

    @Test("where the leader can't be reached, reads have a follower, and the words name who said it and what was tried")
    func unreachableLeader() {
        var script = Script("a")
        script.begin()
        script.heard("a", Self.follows("x"))
        script.failed("x", "no route to host")
        #expect(script.hasConcluded && script.search.leader == nil)
        #expect(script.search.follower == "a")
        let words = "\(script.search.obstacle)"
        #expect(words.contains("a says that x leads") && words.contains("no route to host"), "\(words)")
    }

    @Test("a leader that stalled is believed again only when nobody else is left")
    func suspect() {
        var script = Script("a", "b")
        script.begin()
        script.heard("a", Self.leads(1, members: ["a", "b"]))
        script.search.lost("a", isSuspect: true)
        script.begin()
        // The one that failed comes last.
        #expect(script.asked == ["a", "b"])
        script.heard("b", Self.follows("a"))
        script.heard("a", Self.leads(1, members: ["a", "b"]))
        #expect(script.search.leader == "a")

        script.search.lost("a", isSuspect: true)
        script.begin()
        script.pass(.milliseconds(151))
        script.heard("a", Self.leads(1, members: ["a", "b"]))
        #expect(script.search.leader == nil)
        script.heard("b", Self.leads(2, members: ["a", "b"]))
        #expect(script.search.leader == "b")
    }

    @Test("a round in which nobody leads is followed by a pause that grows, to half a second at the most")
    func pauses() {
        var script = Script("a")
        script.begin()
        var pauses: [TimeAmount] = []
        for round in 1...60 {
            let concludedAt = script.now
            script.heard("a", Statement())
            while script.asked.count == round { script.pass(.milliseconds(1)) }
            pauses.append(script.now - concludedAt)
        }
        #expect(pauses[0] == .milliseconds(20))
        #expect(zip(pauses, pauses.dropFirst()).allSatisfy { $0 <= $1 + .milliseconds(1) })
        #expect(pauses.last == .milliseconds(500))
    }

    @Test("a late answer counts, also between two rounds")
    func late() {
        var script = Script("a", "b")
        script.begin()
        script.pass(.milliseconds(500))
        #expect(script.hasConcluded)
        script.heard("b", Self.leads())
        #expect(script.search.leader == "b")
    }

    @Test("an address that is given and not on the leader's list has a moment to show that it is of the same cluster")
    func check() {
        var script = Script("a", "other")
        script.begin()
        script.heard("a", Self.leads())
        #expect(script.search.leader == nil && script.asked == ["a", "other"])
        script.heard("other", Self.follows("a"))
        #expect(script.search.leader == "a")

        var mute = Script("a", "other")
        mute.begin()
        mute.heard("a", Self.leads())
        mute.pass(.milliseconds(249))
        #expect(mute.search.leader == nil)
        mute.pass(.milliseconds(1))
        #expect(mute.search.leader == "a")
    }

    @Test("a redirect makes the search begin with whom it names; one by somebody else than the leader changes nothing")
    func redirect() {
        var script = Script("a", "b", "c")
        script.begin()
        script.heard("a", Self.leads())
        script.take(script.search.redirected(by: "b", to: "c", at: script.now))
        #expect(script.search.leader == "a")
        script.take(script.search.redirected(by: "a", to: "c", at: script.now))
        #expect(script.search.leader == nil && script.asked == ["a", "c"])
        script.heard("c", Self.leads(2))
        #expect(script.search.leader == "c")
    }

    @Test("what waiting will not mend is told from what it may")
    func hopeless() {
        var script = Script("a", "b")
        script.begin()
        script.take(script.search.failed("a", .noSuchHost("a"), at: script.now))
        #expect(!script.search.isHopeless)
        script.take(script.search.failed("b", .hopeless("a web server answers there"), at: script.now))
        #expect(script.search.isHopeless)
        #expect("\(script.search.obstacle)".contains("no such host: a"))
    }

    @Test("who answered and is asked again does not answer only when the time for it has passed")
    func askedAgain() {
        var script = Script("a")
        script.begin()
        script.heard("a", Statement(term: 1, members: ["a", "b"]))
        #expect(script.hasConcluded && script.asked == ["a"])
        script.pass(.milliseconds(100))
        #expect(script.asked == ["a", "a"])
        #expect("\(script.search.obstacle)".contains("a knows no leader"))
        script.pass(.milliseconds(400))
        #expect("\(script.search.obstacle)".contains("a does not answer"))
    }

    @Test("what answers in another protocol is named")
    func strangers() {
        let cases: [(String, String?)] = [
            ("HTTP/1.1 400 Bad Request\r\n", "a web server answers there"),
            ("<!DOCTYPE HTML", "a web server answers there"),
            ("SSH-2.0-OpenSSH", "an SSH server answers there"), ("\u{15}\u{3}\u{1}", "a TLS server answers there"),
            ("220 mail", "something else answers there"), ("\0\0\0\u{40}", nil), ("", nil),
        ]
        for (bytes, words) in cases {
            #expect(ClientConnection.stranger(ByteBuffer(string: bytes)) == words, "\(bytes)")
        }
    }
}
