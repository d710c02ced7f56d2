import Testing

@testable import Driver
@testable import Raft

@Suite("Promises")
struct PromisesTests {
    private static func promise(_ write: UInt64, _ match: Index) -> HeldMessage {
        let body = Message.Body.appendResponse(.accepted(match: match))
        return HeldMessage(write: write, message: Message(from: PeerID(1), to: PeerID(2), term: 1, body: body))
    }

    private static func matches(_ messages: [Message]) -> [Index] {
        messages.compactMap { message in
            if case .appendResponse(.accepted(let match)) = message.body { match } else { nil }
        }
    }

    @Test("each leaves when its own write is on the disk, in the order in which they were made")
    func order() {
        var promises = Promises()
        promises.hold([Self.promise(1, 10), Self.promise(2, 20), Self.promise(2, 21)])
        #expect(promises.release().isEmpty)
        promises.completed(1)
        #expect(Self.matches(promises.release()) == [10])
        promises.hold([Self.promise(3, 30)])
        promises.completed(2)
        #expect(Self.matches(promises.release()) == [20, 21])
        // A completion that was told late takes nothing back.
        promises.completed(1)
        #expect(promises.completedWrite == 2 && promises.count == 1)
        promises.completed(9)
        #expect(Self.matches(promises.release()) == [30] && promises.count == 0)
    }

    @Test("a planted fault lets an acknowledgement leave before its write")
    func early() throws {
        let alone = Configuration(clusterID: 1, members: [Member(id: 1, peer: PeerID(1), address: "")])
        let log = LogView(
            compactedIndex: 0, compactedTerm: 0, entries: [],
            configurations: [IndexedConfiguration(index: 0, configuration: alone)])
        let early = try #require(EarlyPromises(.acknowledgedBeforeSync))
        var promises = Promises()
        promises.hold([Self.promise(1, 10)])
        #expect(promises.release().isEmpty)
        #expect(Self.matches(promises.release { early.releases($0, log) }) == [10])
        #expect(EarlyPromises(.contextReused) == nil)
    }
}
