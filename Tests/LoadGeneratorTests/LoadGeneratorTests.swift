import NIOCore
import Testing

@testable import LoadGenerator

@Suite("Load")
struct LoadGeneratorTests {
    @Test("every file is chosen, uniformly or by rank, and none beyond", arguments: KeyDistribution.allCases)
    func range(distribution: KeyDistribution) {
        for count in [1, 2, 3, 100] {
            var keys = KeyChooser(distribution, count: count, seed: 7)
            let chosen = Set((0..<100_000).map { _ in keys.next() })
            #expect(chosen == Set(0..<count), "\(count) files")
        }
    }

    @Test("the zipfian distribution chooses rank k in proportion to 1 / k^0.99")
    func zipfian() {
        let zipfian = Zipfian(count: 1000)
        var random = SeededSource(state: 3)
        var counts = [Int](repeating: 0, count: 1000)
        for _ in 0..<1_000_000 { counts[zipfian.rank(at: random.next())] += 1 }
        // zeta(1000, 0.99) is 7.7289...
        for (rank, expected) in [(0, 0.1294), (1, 0.0651)] {
            #expect(abs(Double(counts[rank]) / 1_000_000 - expected) < 0.002, "rank \(rank): \(counts[rank])")
        }
        #expect((4..<1000).reduce(0) { $0 + counts[$1] } > 600_000)
        #expect(zipfian.rank(at: 0) == 0)
        #expect(zipfian.rank(at: 1 - 1e-12) < 1000)
    }

    private struct SeededSource {
        var state: UInt64
        mutating func next() -> Double {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Double(state >> 11) / Double(1 << 53)
        }
    }

    @Test("a mix needs a positive weight, and names each operation once")
    func mix() {
        #expect(Load.Mix([(.put, 50), (.get, 40), (.list, 10)])?.operations == [.put, .get, .list])
        #expect(Load.Mix([(.put, 0), (.get, 1)])?.operations == [.get])
        #expect(Load.Mix([(.put, 0)]) == nil)
        #expect(Load.Mix([(.put, 1), (.put, 2)]) == nil)
        #expect(Load.Mix([(.put, -1), (.get, 2)]) == nil)
    }

    @Test("contents have their size, and no two are alike", arguments: [0, 1, 7, 8, 9, 1000, 1 << 20])
    func content(size: Int) {
        var content = Content(size: size, seed: 5)
        let (first, second) = (content.next(), content.next())
        #expect(first.readableBytes == size && second.readableBytes == size)
        if size >= 8 { #expect(first != second) }
    }
}
