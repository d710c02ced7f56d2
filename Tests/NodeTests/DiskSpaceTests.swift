import Raft
import Testing

@testable import Node

@Suite("Room on the disk")
struct DiskSpaceTests {
    private static let mebibyte: UInt64 = 1 << 20

    private static func free(
        disk: UInt64, state: (unmapped: UInt64, reusable: UInt64), log: (unmapped: UInt64, reusable: UInt64)
    ) -> UInt64 {
        DiskUsage.freeBytes(
            disk: disk * mebibyte, state: (state.unmapped * mebibyte, state.reusable * mebibyte),
            log: (log.unmapped * mebibyte, log.reusable * mebibyte)) / mebibyte
    }

    @Test("free pages within a file are room for that file alone, and the scarcer of the two counts")
    func scarcest() {
        #expect(Self.free(disk: 100, state: (1000, 500), log: (1000, 0)) == 100)
        #expect(Self.free(disk: 100, state: (1000, 500), log: (1000, 300)) == 400)
        #expect(Self.free(disk: 100, state: (1000, 0), log: (1000, 300)) == 100)
        // A map's end is a disk's end.
        #expect(Self.free(disk: 100, state: (20, 30), log: (1000, 300)) == 50)
        #expect(Self.free(disk: 100, state: (1000, 500), log: (0, 10)) == 10)
        // With next to nothing on the disk, a row that needs pages side by side may find none.
        #expect(Self.free(disk: 5, state: (1000, 500), log: (1000, 500)) == 5)
    }

    private static func usage(_ free: UInt64) -> DiskUsage {
        var usage = DiskUsage()
        usage.freeBytes = free
        return usage
    }

    @Test(
        "puts are refused when the leader or a majority has no room, and taken again when there is more than just enough"
    )
    func decision() {
        let peers = (1...3).map { PeerID($0) }
        var space = DiskSpace(reserve: 100)
        let decide = { (space: inout DiskSpace) in space.decide(leader: peers[0], voters: peers, present: peers) }
        space.measured(Self.usage(1000))
        space.told(50, by: peers[1], now: 0)
        #expect(!decide(&space) && !space.isLow, "one of three can be spared")
        space.told(99, by: peers[2], now: 0)
        #expect(decide(&space) && space.isLow)
        space.told(101, by: peers[2], now: 0)
        #expect(!decide(&space) && space.isLow, "no more than just enough")
        space.told(100 + DiskSpace.resumeBytes, by: peers[2], now: 0)
        #expect(!decide(&space) && space.isLow, "the leader's own has as little")
        space.measured(Self.usage(100 + DiskSpace.resumeBytes))
        #expect(decide(&space) && !space.isLow)
        space.measured(Self.usage(99))
        #expect(decide(&space) && space.isLow, "the leader can't be spared")
    }
}
