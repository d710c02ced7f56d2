import FileTree
import NIOCore
import Testing
import WireProtocol

@testable import Driver
@testable import Raft

/// A driver with nothing around it: events in, actions out.
@Suite("The driver")
struct DriverTests {
    private static let second: Nanoseconds = 1_000_000_000

    private static func driver(
        members: Int = 1, entries: UInt64 = 0, version: UInt16 = Applied.clusterVersionMax, mutant: Mutant? = nil
    ) throws -> Driver {
        let members = (1...members).map { Member(id: UInt64($0), peer: PeerID(UInt64($0)), address: "\($0)") }
        let log = LogView(
            compactedIndex: 0, compactedTerm: 0,
            entries: stride(from: 1, through: entries, by: 1).map {
                EntryHeader(index: $0, term: 1, kind: .command, size: 28)
            },
            configurations: [
                IndexedConfiguration(index: 0, configuration: Configuration(clusterID: 1, members: members))
            ])
        let core = RaftCore(
            id: PeerID(1), hardState: HardState(term: 1), log: log, applied: 0, seed: 1, now: 0, mutant: mutant)
        let state = try FileTree(store: MemoryStore()).applied
        return Driver(core, state: state, knownVersion: version, context: 0, mutant: mutant)
    }

    /// In the order in which they come: what each action is, and the number that tells it from others of its kind.
    private static func summary(_ actions: [Action]) -> [String] {
        actions.map { action in
            switch action {
            case .save(let write, let records): "save \(write.number) with \(records.count)"
            case .send(let message, let records): "send to \(message.to) with \(records.count)"
            case .promise(let message): "promise to \(message.to)"
            case .execute(let first, _, let waiters): "execute \(first): \(waiters.map { $0.map(name) ?? "nobody" })"
            case .replay(let range): "replay \(range)"
            case .serve(let reads): "serve \(reads.map { name($0.waiter) })"
            case .refuse(let reads, _): "refuse \(reads.map { name($0.waiter) })"
            case .decline(let waiters, _): "decline \(waiters.map(name))"
            case .expire(let waiters): "expire \(waiters.map(name))"
            case .abandon(let waiters): "abandon \(waiters.map(name))"
            case .readEntries(let request): "read from \(request.first)"
            case .sendSnapshot(let peer): "snapshot to \(peer)"
            case .report: "report"
            }
        }
    }

    private static let names = ["a", "b", "late", "r", "s"]
    private static func waiter(_ name: String) -> Waiter {
        Waiter(connection: UInt64(names.firstIndex(of: name) ?? 99), requestID: 1)
    }
    private static func name(_ waiter: Waiter) -> String { names[Int(waiter.connection)] }
    private static func read(_ name: String) -> PendingRead {
        PendingRead(kind: .linearizable, waiter: waiter(name), query: ByteBuffer(), deadline: .max)
    }

    /// A leader of one that has executed its first entry, at one second.
    private static func leader(mutant: Mutant? = nil) throws -> Driver {
        var driver = try driver(mutant: mutant)
        driver.step(.tick, now: second)
        for write in 1...2 as ClosedRange<UInt64> {
            _ = driver.takeActions()
            driver.step(.saved(write: write), now: second)
        }
        #expect(driver.core.role == .leader)
        #expect(summary(driver.takeActions()).contains("execute 1: []"))
        return driver
    }

    private static func executed(_ driver: inout Driver, _ index: Index, orphans: UInt64 = 0, at now: Nanoseconds) {
        var state = driver.state
        (state.index, state.orphans) = (index, orphans)
        driver.executed(state, now: now)
    }

    private static var put: ByteBuffer {
        get throws {
            var command = ByteBuffer()
            Put(path: try TreePath("/f"), content: ByteBuffer(string: "x")).write(to: &command)
            return command
        }
    }

    @Test("what is offered is proposed together, saved, and executed with whoever waits for it")
    func proposing() throws {
        var driver = try Self.leader()
        driver.offer(try Self.put, for: Self.waiter("a"), deadline: .max)
        driver.offer(try Self.put, for: Self.waiter("late"), deadline: 5)
        driver.offer(try Self.put, for: Self.waiter("b"), deadline: .max)
        driver.propose(now: Self.second, wallTime: 0)
        let proposed = driver.takeActions()
        #expect(Self.summary(proposed) == [#"expire ["late"]"#, "save 3 with 2"])
        #expect(driver.isProposing)
        driver.step(.saved(write: 3), now: Self.second)
        #expect(Self.summary(driver.takeActions()) == [#"execute 2: ["a", "b"]"#])
        #expect(!driver.isProposing && driver.handedOut == 3)
    }

    @Test("a leader that is deposed abandons what it proposed, and what is offered then is declined")
    func deposed() throws {
        var driver = try Self.leader()
        driver.offer(try Self.put, for: Self.waiter("a"), deadline: .max)
        driver.propose(now: Self.second, wallTime: 0)
        let heartbeat = Message(from: PeerID(2), to: PeerID(1), term: 9, body: .heartbeat(commit: 0, round: 1))
        driver.step(.message(heartbeat), now: Self.second)
        driver.offer(try Self.put, for: Self.waiter("b"), deadline: .max)
        driver.propose(now: Self.second, wallTime: 0)
        let actions = Self.summary(driver.takeActions())
        // What the leader wanted written comes first: it is of its own log.
        #expect(actions.first == "save 3 with 1")
        #expect(actions.contains(#"abandon ["a"]"#) && actions.contains(#"decline ["b"]"#), "\(actions)")
    }

    @Test("a read is served behind what it must not miss")
    func reading() throws {
        var driver = try Self.leader()
        Self.executed(&driver, 1, at: Self.second)
        driver.offer(try Self.put, for: Self.waiter("a"), deadline: .max)
        driver.propose(now: Self.second, wallTime: 0)
        driver.read([Self.read("r")], isLease: false, now: Self.second)
        // What is not committed yet it may miss.
        #expect(Self.summary(driver.takeActions()) == ["save 3 with 1", #"serve ["r"]"#])
        driver.step(.saved(write: 3), now: Self.second)
        driver.read([Self.read("s")], isLease: false, now: Self.second)
        #expect(Self.summary(driver.takeActions()) == [#"execute 2: ["a"]"#, #"serve ["s"]"#])
    }

    private static func logTimes(mutant: Mutant? = nil) throws -> [UInt64] {
        var driver = try leader(mutant: mutant)
        return try [0, 5].map { (seconds: UInt64) in
            driver.offer(try put, for: waiter("a"), deadline: .max)
            let now = second + Nanoseconds(seconds) * second
            driver.propose(now: now, wallTime: 1_700_000_000_000_000_000)
            let saved = driver.takeActions().compactMap { action -> ByteBuffer? in
                if case .save(_, let records) = action { records.first } else { nil }
            }
            let record = try #require(saved.first)
            driver.step(.saved(write: UInt64(3 + seconds / 5)), now: now)
            _ = driver.takeActions()
            return try #require(
                record.getInteger(at: record.readerIndex + EntryRecord.headerByteCount + 32, as: UInt64.self))
        }
    }

    @Test("commands carry log time, which goes on by the leader's clock and knows no date")
    func logTime() throws {
        #expect(try Self.logTimes() == [0, 5000])
        #expect(try Self.logTimes(mutant: .logTimeFromWallClock) == [1_700_000_000_000, 1_700_000_000_000])
        var clock = LogClock()
        clock.begin(at: 5, from: CommandHeader.logTimeMax - 1)
        #expect(clock.logTime(at: 5) == CommandHeader.logTimeMax - 1)
        #expect(clock.logTime(at: 10 * Self.second) == CommandHeader.logTimeMax)
        #expect(clock.logTime(at: 1) == CommandHeader.logTimeMax - 1)
    }

    private static func reclaimed(mutant: Mutant? = nil) throws -> Int {
        var driver = try leader(mutant: mutant)
        var (steps, write, now) = (0, 2 as UInt64, second)
        var index: Index = 1
        for _ in 0..<20 {
            now += 100_000_000
            executed(&driver, index, orphans: 1, at: now)
            driver.reclaimIfDue(now: now)
            driver.propose(now: now, wallTime: 0)
            for case .save in driver.takeActions() {
                write += 1
                driver.step(.saved(write: write), now: now)
                for case .execute(let first, let records, _) in driver.takeActions() {
                    index = first + UInt64(records.count) - 1
                    steps += 1
                }
            }
        }
        return steps
    }

    @Test("a leader goes on reclaiming, a step at a time, until nothing is left")
    func reclaiming() throws {
        #expect(try Self.reclaimed() == 10)
        #expect(try Self.reclaimed(mutant: .reclaimingNotRepeated) == 1)
    }

    @Test("the cluster's version is raised once, to what every member knows")
    func raising() throws {
        var version = ClusterVersion(own: 4)
        let members = (1...3).map { Member(id: $0, peer: PeerID($0), address: "") }
        let configuration = Configuration(clusterID: 1, members: members)
        #expect(version.next(inForce: 1, configuration, self: PeerID(1)) == nil)
        version.knows(PeerID(2), 3)
        #expect(version.next(inForce: 1, configuration, self: PeerID(1)) == nil)
        version.knows(PeerID(3), 9)
        #expect(version.next(inForce: 1, configuration, self: PeerID(1)) == 3)
        #expect(version.next(inForce: 3, configuration, self: PeerID(1)) == nil)
        version.knows(PeerID(2), nil)
        #expect(version.next(inForce: 1, configuration, self: PeerID(1)) == nil)
        var driver = try Self.leader()
        Self.executed(&driver, 1, at: Self.second)
        #expect(driver.mayRaiseVersion)
        #expect(driver.raiseVersionIfPossible() == Applied.clusterVersionMax)
        #expect(driver.raiseVersionIfPossible() == nil && driver.mayRaiseVersion)
        driver.propose(now: Self.second, wallTime: 0)
        #expect(Self.summary(driver.takeActions()) == ["save 3 with 1"])
    }

    @Test("what left the window is executed from the log, and what is in it from memory")
    func replay() throws {
        var driver = try Self.driver(entries: 4)
        driver.step(.tick, now: Self.second)
        for write in 1...2 as ClosedRange<UInt64> {
            _ = driver.takeActions()
            driver.step(.saved(write: write), now: Self.second)
        }
        #expect(Self.summary(driver.takeActions()).suffix(2) == ["replay 1...4", "execute 5: []"])
    }
}
