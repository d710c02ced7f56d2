import Raft
import RaftLog
import Testing
import WireProtocol

@testable import Node

@Suite("How a member begins")
struct StartDecisionTests {
    private static let three = "1=a:1,2=b:1,3=c:1"
    private static let other = "1=a:1,2=b:2,3=c:1"

    private static func list(_ text: String) throws -> [ListedMember] { try MemberList.parse(text) }

    private static func options(
        _ list: String = "", id: UInt64? = nil, bootstrap: Bool = false, join: Bool = false, listen: String? = nil
    ) throws -> ServerOptions {
        ServerOptions(
            data: "/d", id: id, cluster: list.isEmpty ? [] : try Self.list(list), isBootstrap: bootstrap, isJoin: join,
            listen: listen.flatMap { Address($0) })
    }

    private static func identity(isJoining: Bool = false, hasCluster: Bool = false) -> Identity {
        let genesis = Configuration(clusterID: 7, members: [Member(id: 2, peer: PeerID(5), address: "b:1")])
        return Identity(
            memberID: 2, incarnation: 5, founders: three, isJoining: isJoining, genesis: hasCluster ? genesis : nil)
    }

    private static func newcomer(
        _ id: UInt64, _ list: String, isJoining: Bool = false
    ) throws -> StartDecision.Newcomer {
        .init(id: id, cluster: try Self.list(list), isJoining: isJoining)
    }

    private typealias Refusal = StartDecision.Refusal

    private static func decide(_ stored: Identity?, _ options: ServerOptions) -> Result<StartDecision, Refusal> {
        do throws(Refusal) { return .success(try StartDecision(stored, options)) } catch { return .failure(error) }
    }

    @Test("an empty directory becomes what it is told, and nothing is guessed")
    func empty() throws {
        let rows: [(ServerOptions, Result<StartDecision, Refusal>)] = [
            (try Self.options(), .failure(.emptyDirectory(isAlone: true))),
            (try Self.options("1=a:1", id: 1), .failure(.emptyDirectory(isAlone: true))),
            (try Self.options(Self.three, id: 2), .failure(.emptyDirectory(isAlone: false))),
            (try Self.options(join: true), .failure(.joinsNobody)),
            (try Self.options("1=a:1", id: 1, join: true), .failure(.joinsNobody)),
            (try Self.options(Self.three, bootstrap: true), .failure(.noID)),
            (try Self.options(Self.three, id: 9, bootstrap: true), .failure(.unlistedID(9, list: Self.three))),
            (try Self.options(bootstrap: true), .success(.first(try Self.newcomer(1, "1=127.0.0.1:7400")))),
            (
                try Self.options(id: 5, bootstrap: true, listen: "h:9"),
                .success(.first(try Self.newcomer(5, "5=h:9")))
            ),
            (
                try Self.options(Self.three, id: 2, bootstrap: true),
                .success(.first(try Self.newcomer(2, Self.three)))
            ),
            (
                try Self.options(Self.three, id: 2, join: true),
                .success(.first(try Self.newcomer(2, Self.three, isJoining: true)))
            ),
        ]
        for (options, decision) in rows {
            #expect(Self.decide(nil, options) == decision, "\(options.clusterText) \(options.isBootstrap)")
        }
    }

    @Test("a directory that waits for its cluster waits on, or begins anew as it is told")
    func waiting() throws {
        let rows: [(isJoining: Bool, ServerOptions, Result<StartDecision, Refusal>)] = [
            (false, try Self.options(), .success(.waitOn)),
            (false, try Self.options(Self.three, id: 2), .success(.waitOn)),
            (false, try Self.options(Self.three, id: 2, bootstrap: true), .success(.waitOn)),
            (true, try Self.options(Self.three, id: 2, join: true), .success(.waitOn)),
            (false, try Self.options(Self.three, id: 3), .failure(.otherMember(own: 2, told: 3))),
            (
                false, try Self.options(Self.other, id: 2),
                .failure(.otherCluster(own: Self.three, told: Self.other))
            ),
            (
                false, try Self.options(Self.other, id: 2, bootstrap: true),
                .success(.anew(try Self.newcomer(2, Self.other)))
            ),
            (
                false, try Self.options(Self.three, id: 2, join: true),
                .success(.anew(try Self.newcomer(2, Self.three, isJoining: true)))
            ),
            (
                true, try Self.options(Self.three, id: 2, bootstrap: true),
                .success(.anew(try Self.newcomer(2, Self.three)))
            ),
        ]
        for (isJoining, options, decision) in rows {
            #expect(Self.decide(Self.identity(isJoining: isJoining), options) == decision)
        }
    }

    @Test("a member's directory belongs to its cluster, whatever list says where the members are now")
    func member() throws {
        let rows: [(ServerOptions, Result<StartDecision, Refusal>)] = [
            (try Self.options(), .success(.member(listed: []))),
            (try Self.options(Self.other, id: 2), .success(.member(listed: try Self.list(Self.other)))),
            (
                try Self.options(Self.three, id: 2, bootstrap: true),
                .success(.member(listed: try Self.list(Self.three)))
            ),
            (
                try Self.options(Self.other, id: 2, bootstrap: true),
                .failure(.otherCluster(own: Self.three, told: Self.other))
            ),
            (
                try Self.options(Self.other, id: 2, join: true),
                .failure(.otherCluster(own: Self.three, told: Self.other))
            ),
            (try Self.options(id: 1), .failure(.otherMember(own: 2, told: 1))),
        ]
        for (options, decision) in rows { #expect(Self.decide(Self.identity(hasCluster: true), options) == decision) }
    }

    @Test("each refusal says what to do")
    func words() {
        let refusals: [(Refusal, String)] = [
            (.otherMember(own: 2, told: 1), "/d: belongs to member 2, not 1; name its own with --data"),
            (.joinsNobody, "--join needs --cluster"), (.noID, "--id ID"),
            (.unlistedID(9, list: "1=a:1"), "--id 9 is not in --cluster 1=a:1"),
            (.emptyDirectory(isAlone: true), "add --bootstrap;"),
            (.emptyDirectory(isAlone: false), "add --bootstrap on every member;"),
            (.otherCluster(own: "1=a:1", told: "1=b:1"), "was started for --cluster 1=a:1, not 1=b:1"),
        ]
        for (refusal, words) in refusals { #expect(refusal.words("/d").contains(words)) }
    }

    @Test(
        "a list that somebody gives is refused at the first piece that is wrong; a recorded one is read as far as it goes"
    )
    func lists() throws {
        let faults: [(String, MemberList.Fault.Kind)] = [
            ("", .form), ("1", .form), ("1=a:1,", .form), ("0=a:1", .id("0")), ("+1=a:1", .id("+1")),
            ("x=a:1", .id("x")),
            ("1=a", .address(.noPort)), ("1=0.0.0.0:7", .wildcard(Address(host: "0.0.0.0", port: 7))),
            ("1=a:1,1=b:1", .sameID(1)), ("1=a:1,2=a:1", .sameAddress(Address(host: "a", port: 1))),
        ]
        for (text, kind) in faults {
            do {
                _ = try MemberList.parse(text)
                Issue.record("'\(text)' passed")
            } catch { #expect(error.kind == kind, "\(text)") }
        }
        #expect(MemberList.text(of: try MemberList.parse("2=b:1,1=a:1")) == "1=a:1,2=b:1")
        #expect(MemberList.recorded("1=0.0.0.0:7,x,2=b:1,3=nowhere").map(\.id) == [1, 2])
    }
}
