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

    private func meaning(
        _ text: String, kept: (String, Index)? = nil, _ configuration: Configuration = Self.configuration,
        at index: Index = 5
    ) throws -> MovedMembers.Meaning {
        MovedMembers.meaning(
            of: try ServerOptions.members(text), founders: Self.founders, kept: kept, configuration, at: index)
    }

    private func moved(_ text: String) throws -> MovedMembers {
        guard case .moved(let moved) = try meaning(text) else { throw StartError("nobody moved by \(text)") }
        return moved
    }

    @Test("another list with the same ids says who moved, and an older one says nothing any more")
    func meanings() throws {
        #expect(try meaning(Self.founders) == .nothing)
        #expect(try meaning("2=b:1,4=d:1") == .nothing)
        let new = "1=a:2,2=b:2,3=c:1"
        let moves = try moved(new)
        #expect(Self.configuration.members.map(moves.address) == ["a:2", "b:2", "c:1"])
        // A start that was repeated before anybody led.
        #expect(try meaning(new, kept: (new, 5)) == .moved(moves))
        // The list stays in a script, and one moves once more by the cluster's own word: that counts.
        let later = Self.configuration("a:2", "b:3", "c:1")
        #expect(try meaning(new, kept: (new, 5), later, at: 9) == .outdated)
        #expect(try meaning(Self.founders, kept: (new, 5), later, at: 9) == .outdated)
        #expect(later.members.map(moves.address) == ["a:2", "b:3", "c:1"])
    }

    @Test("the leader records one move at a time, of whom it hears, and none to an address that another still has")
    func changes() throws {
        let moves = try moved("1=b:1,2=c:1,3=c:2")
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
