import Driver
import Foundation
import NIOCore
import Raft
import Snapshots
import Testing

@testable import FileTree
@testable import Node

@Suite("The shelf of snapshots")
struct SpoolShelfTests {
    private static let clusterID: UInt64 = 7

    /// Makes snapshots of a small state, each with an entry more than the one before.
    private final class Maker {
        private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("shelf-\(UUID().uuidString)")
        private let tree: DurableTree

        init() throws {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            tree = try DurableTree(path: folder.path)
            var payload = ByteBuffer()
            Configuration(clusterID: clusterID, members: [Member(id: 1, peer: PeerID(1), address: "a:1")])
                .write(to: &payload)
            var answer = ByteBuffer()
            try tree.apply(index: 1, term: 1, kind: .configuration, payload: payload, answer: &answer)
            try tree.commit()
        }

        deinit { try? FileManager.default.removeItem(at: folder) }

        func spool(through index: Index) throws -> Spool {
            var answer = ByteBuffer()
            while tree.applied.index < index {
                try tree.apply(
                    index: tree.applied.index + 1, term: 1, kind: .noOperation, payload: ByteBuffer(), answer: &answer)
            }
            try tree.commit()
            return try Spool(of: StateView(tree.environment), in: folder.path, reserve: 0)
        }
    }

    private let start: Nanoseconds = 100_000_000_000
    private func waiter(_ number: UInt64) -> Waiter { Waiter(connection: number, requestID: 1) }

    /// Whom something was delivered to, and through which index; nil: none could be made.
    private func told(_ deliveries: [SpoolShelf.Delivery]) -> [String] {
        deliveries.map { customer, spool in
            let name =
                switch customer {
                case .peer(let peer): "peer \(peer.rawValue)"
                case .client(let waiter): "client \(waiter.connection)"
                }
            return name + " \((try? spool.get().header.metadata.index).map { "\($0)" } ?? "nothing")"
        }
    }

    private func expect(
        _ deliveries: [SpoolShelf.Delivery], _ words: [String], sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(told(deliveries) == words, sourceLocation: sourceLocation)
    }

    private func order(_ shelf: inout SpoolShelf, _ peer: UInt64, _ index: Index, now: Nanoseconds) -> [String] {
        told(shelf.order(for: PeerID(peer), covering: index, floor: 5, clusterID: Self.clusterID, now: now))
    }

    private func made(_ shelf: inout SpoolShelf, _ spool: Spool, isOfUse: Bool = true, now: Nanoseconds) -> [String] {
        told(shelf.made(.success(spool), isOfUse: isOfUse, clusterID: Self.clusterID, now: now))
    }

    @Test("one is made at a time, and does for everybody whose index it covers; others wait for the next")
    func orders() throws {
        let maker = try Maker()
        var shelf = SpoolShelf()
        #expect(shelf.begins(isStateSettled: true) == false)
        #expect(order(&shelf, 2, 10, now: start) == [] && order(&shelf, 3, 20, now: start) == [])
        #expect(shelf.begins(isStateSettled: false) == false)
        #expect(shelf.begins(isStateSettled: true) && !shelf.begins(isStateSettled: true))
        #expect(shelf.needed.sorted() == [5, 5])
        #expect(made(&shelf, try maker.spool(through: 15), now: start) == ["peer 2 15"])
        #expect(shelf.needed.sorted() == [5, 15])
        #expect(shelf.begins(isStateSettled: true) == true)
        // Of a state that another has taken the place of meanwhile: those who wait wait on.
        #expect(made(&shelf, try maker.spool(through: 16), isOfUse: false, now: start) == [])
        #expect(shelf.begins(isStateSettled: true) == true)
        #expect(made(&shelf, try maker.spool(through: 25), now: start) == ["peer 3 25"])
        #expect(shelf.spools.count == 2)
        // The last is there for who comes later.
        #expect(order(&shelf, 4, 25, now: start) == ["peer 4 25"] && !shelf.begins(isStateSettled: true))
    }

    @Test("a peer whose transfer broke off waits, and its snapshot is kept for a while with what follows it")
    func brokenOff() throws {
        let maker = try Maker()
        var shelf = SpoolShelf()
        _ = order(&shelf, 2, 10, now: start)
        _ = shelf.begins(isStateSettled: true)
        _ = made(&shelf, try maker.spool(through: 10), now: start)
        shelf.transferEnded(PeerID(2), isInstalled: false, now: start)
        #expect(shelf.needed == [10] && !shelf.mayBegin(PeerID(2), now: start + SpoolShelf.transferPause - 1))
        #expect(shelf.mayBegin(PeerID(2), now: start + SpoolShelf.transferPause) == true)
        #expect(shelf.mayBegin(PeerID(3), now: start) == true)
        shelf.tend(now: start + SpoolShelf.keptFor)
        #expect(order(&shelf, 2, 10, now: start + 1) == ["peer 2 10"])
        // As long as somebody takes it, it is of use.
        let later = start + 10 * SpoolShelf.keptFor
        shelf.tend(now: later)
        #expect(shelf.spools.count == 1)
        shelf.transferEnded(PeerID(2), isInstalled: true, now: later)
        #expect(shelf.needed == [])
        shelf.tend(now: later + SpoolShelf.keptFor + 1)
        #expect(shelf.spools.isEmpty)
    }

    @Test("clients wait until what they must not miss is durable; one at a time each, so many lie on the disk")
    func clients() throws {
        let maker = try Maker()
        var shelf = SpoolShelf()
        let deadline = start + 1_000_000_000_000
        func begin(_ durable: Index, now: Nanoseconds) -> [String] {
            let (deliveries, expired) = shelf.beginBackups(durable: durable, clusterID: Self.clusterID, now: now)
            return told(deliveries) + expired.map { "late \($0.connection)" }
        }
        for number in 1...2 as ClosedRange<UInt64> {
            #expect(shelf.ask(waiter(number), covering: 10 * number, deadline: deadline) == true)
            #expect(shelf.ask(waiter(number), covering: 10, deadline: deadline) == false)
            #expect(begin(10 * number - 1, now: start) == [] && !shelf.begins(isStateSettled: true))
            #expect(begin(10 * number, now: start) == [] && shelf.begins(isStateSettled: true))
            #expect(
                made(&shelf, try maker.spool(through: 10 * number), now: start) == ["client \(number) \(10 * number)"])
        }
        #expect(shelf.ask(waiter(3), covering: 30, deadline: deadline) == true)
        #expect(shelf.ask(waiter(4), covering: 30, deadline: start + 5) == true)
        #expect(begin(30, now: start + 5) == ["late 4"] && !shelf.begins(isStateSettled: true))
        // Who gets on keeps its own, who does not loses it when others wait.
        let later = start + SpoolShelf.backupIdleMax + 1
        #expect(shelf.read(0, by: 2, now: later) != nil)
        #expect(begin(30, now: later) == [] && shelf.begins(isStateSettled: true))
        #expect(shelf.read(0, by: 1, now: later) == nil && shelf.read(1, by: 2, now: later) != nil)
        #expect(made(&shelf, try maker.spool(through: 30), now: later) == ["client 3 30"])
        // Who leaves waits for nothing.
        shelf.release(2)
        #expect(shelf.ask(waiter(5), covering: 40, deadline: deadline) == true)
        #expect(begin(40, now: later) == [])
        shelf.release(5)
        #expect(shelf.begins(isStateSettled: true) == false)
        #expect(shelf.ask(waiter(6), covering: 50, deadline: deadline) == true)
        #expect(shelf.refuseBackups() == [waiter(6)] && shelf.refuseBackups() == [])
    }

    @Test("nobody gets any of what was made from a state that is wrong")
    func dropped() throws {
        let maker = try Maker()
        var shelf = SpoolShelf()
        _ = shelf.ask(waiter(1), covering: 10, deadline: .max)
        _ = shelf.beginBackups(durable: 10, clusterID: Self.clusterID, now: start)
        _ = shelf.begins(isStateSettled: true)
        _ = made(&shelf, try maker.spool(through: 10), now: start)
        _ = order(&shelf, 2, 11, now: start)
        expect(shelf.drop(), ["peer 2 nothing"])
        #expect(shelf.read(0, by: 1, now: start) == nil && shelf.spools.isEmpty)
        #expect(shelf.begins(isStateSettled: true) == false)
        // One that can't be made is told to all that wait.
        _ = order(&shelf, 2, 11, now: start)
        #expect(shelf.begins(isStateSettled: true) == true)
        let failed = shelf.made(.failure(.corrupt), isOfUse: true, clusterID: Self.clusterID, now: start)
        expect(failed, ["peer 2 nothing"])
    }

    @Test("one that bears another cluster's name covers nothing")
    func otherCluster() throws {
        let maker = try Maker()
        var shelf = SpoolShelf()
        _ = order(&shelf, 2, 10, now: start)
        _ = shelf.begins(isStateSettled: true)
        let spool = try maker.spool(through: 20)
        expect(shelf.made(.success(spool), isOfUse: true, clusterID: 8, now: start), [])
        #expect(shelf.begins(isStateSettled: true) == true)
    }
}
