import Testing

@testable import Node

@Suite("A snapshot that comes in")
struct IncomingSnapshotTests {
    @Test("pieces that wait are bounded for each connection and for all together")
    func bounds() {
        var incoming = IncomingSnapshot()
        for piece in 0..<UInt32(IncomingSnapshot.piecesWaitingMax) {
            #expect(incoming.receive(piece, bytes: 10, over: 1, now: 0) == .take)
        }
        #expect(incoming.receive(9, bytes: 10, over: 1, now: 0) == .tooFast)
        for connection in 2...4 as ClosedRange<UInt64> {
            for piece in 0..<UInt32(IncomingSnapshot.piecesWaitingMax) {
                #expect(incoming.receive(piece, bytes: 10, over: connection, now: 0) == .take)
            }
        }
        #expect(incoming.receive(0, bytes: 10, over: 5, now: 0) == .refuse)
        incoming.takenIn(over: 1, isOver: false)
        #expect(incoming.receive(0, bytes: 10, over: 5, now: 0) == .take)
        #expect(incoming.receive(9, bytes: 10, over: 1, now: 0) == .refuse)
    }

    @Test("its bytes are counted from its first piece on, until it is over or its sender comes back no more")
    func progress() {
        var incoming = IncomingSnapshot()
        #expect(incoming.bytes == nil)
        for piece in 0...2 as ClosedRange<UInt32> {
            _ = incoming.receive(piece, bytes: 10, over: 1, now: 7)
            incoming.takenIn(over: 1, isOver: false)
        }
        #expect(incoming.bytes == 30)
        _ = incoming.receive(0, bytes: 4, over: 2, now: 8)
        #expect(incoming.bytes == 4)
        #expect(incoming.isForgotten(now: 8 + IncomingSnapshot.keptFor) == false)
        #expect(incoming.isForgotten(now: 9 + IncomingSnapshot.keptFor) && incoming.bytes == nil)
        #expect(incoming.isForgotten(now: 9 + IncomingSnapshot.keptFor) == false)
        _ = incoming.receive(1, bytes: 4, over: 2, now: 8)
        incoming.takenIn(over: 2, isOver: true)
        #expect(incoming.bytes == nil)
    }
}
