import Raft
import Testing
import WireProtocol

@testable import Node

@Suite("Members that moved")
struct MovedMembersTests {
    private static let founders = "1=a:1,2=b:1,3=c:1"
    private static let configuration = configuration("a:1", "b:1", "c:1")

    private static func configuration(_ addresses: String...) -> Configuration {
        Configuration(
            clusterID: 7,
            members: addresses.enumerated().map {
                Member(id: UInt64($0 + 1), peer: PeerID(UInt64($0 + 10)), address: $1)
            })
    }

    private func moves(
        _ text: String, last: MovedMembers.Given = .init(text: founders, recorded: founders),
        _ configuration: Configuration = configuration
    ) throws -> (moved: MovedMembers, isOutdated: Bool) {
        MovedMembers.moves(in: try MemberList.parse(text), last: last, configuration)
    }

    private func addresses(_ moves: (moved: MovedMembers, isOutdated: Bool), _ configuration: Configuration) -> [String]
    {
        configuration.members.map(moves.moved.address)
    }

    @Test("another list with the same ids says who moved, again and again until it is recorded")
    func moves() throws {
        for text in [Self.founders, "2=b:1,4=d:1"] {
            let known = try moves(text)
            #expect(known.moved.isEmpty && !known.isOutdated)
        }
        let new = "1=a:2,2=b:2,3=c:1"
        let first = try moves(new)
        #expect(addresses(first, Self.configuration) == ["a:2", "b:2", "c:1"] && !first.isOutdated)
        // A start that was repeated before anybody led, and one when a part was recorded.
        let last = MovedMembers.Given(text: new, recorded: Self.configuration.text)
        #expect(try moves(new, last: last).moved == first.moved)
        let partly = Self.configuration("a:2", "b:1", "c:1")
        let rest = try moves(new, last: last, partly)
        #expect(addresses(rest, partly) == ["a:2", "b:2", "c:1"] && !rest.isOutdated)
    }

    @Test("a list that stands in a script says nothing of whom the cluster recorded elsewhere since")
    func outdatedLists() throws {
        let later = Self.configuration("a:1", "b:3", "c:1")
        let founders = try moves(Self.founders, last: .init(text: Self.founders, recorded: Self.founders), later)
        #expect(founders.moved.isEmpty && founders.isOutdated)
        let new = "1=a:2,2=b:2,3=c:1"
        let once = try moves(new, last: .init(text: new, recorded: Self.configuration.text), later)
        #expect(addresses(once, later) == ["a:2", "b:3", "c:1"] && once.isOutdated)
    }

    @Test("members move back to where they were founded")
    func movingBack() throws {
        let new = "1=a:2,2=b:2,3=c:2"
        let moved = Self.configuration("a:2", "b:2", "c:2")
        let back = try moves(Self.founders, last: .init(text: new, recorded: Self.configuration.text), moved)
        #expect(addresses(back, moved) == ["a:1", "b:1", "c:1"] && !back.isOutdated)
    }

    @Test("the leader records one move at a time, of whom it hears, and none to an address that another still has")
    func changes() throws {
        let moves = try moves("1=b:1,2=c:1,3=c:2").moved
        var configuration = Self.configuration
        #expect(moves.change(for: configuration) { $0 != PeerID(12) } == nil)
        var order: [MembershipChange] = []
        while let change = moves.change(for: configuration, isHeard: { _ in true }) {
            order.append(change)
            configuration = try configuration.applying([change])
        }
        #expect(
            order == [.setAddress(PeerID(12), "c:2"), .setAddress(PeerID(11), "c:1"), .setAddress(PeerID(10), "b:1")])
        #expect(configuration.members.map(\.address) == ["b:1", "c:1", "c:2"])
    }
}
