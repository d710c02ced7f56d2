import Foundation
import Raft

/// Which files the clients choose.
package enum KeyDistribution: String, Sendable, CaseIterable {
    /// Each as often as any other.
    case uniform
    /// A few very often: the file of rank k with a probability proportional to 1 / k^0.99. Neighbours in rank are no
    /// neighbours in the tree.
    case zipfian
}

/// Draws files in a distribution, from a seed.
struct KeyChooser {
    private let count: Int
    private var random: SeededGenerator
    private let zipfian: Zipfian?

    init(_ distribution: KeyDistribution, count: Int, seed: UInt64) {
        self.count = count
        random = SeededGenerator(seed: seed)
        zipfian = distribution == .zipfian ? Zipfian(count: count) : nil
    }

    /// From 0 to `count` - 1.
    mutating func next() -> Int {
        guard let zipfian else { return Int(random.next() % UInt64(count)) }
        let rank = zipfian.rank(at: Double(random.next() >> 11) / Double(1 << 53))
        // A prime, so that no two ranks are one file.
        return rank &* 2_654_435_761 % count
    }

    /// From 0 to `below` - 1.
    mutating func number(below: Int) -> Int { Int(random.next() % UInt64(below)) }
}

/// Gray and others, "Quickly generating billion-record synthetic databases" (SIGMOD 1994), section 3.2.
struct Zipfian {
    private static let theta = 0.99
    private let count: Int
    private let zeta: Double
    private let alpha: Double
    private let eta: Double

    init(count: Int) {
        self.count = count
        var zeta = 0.0
        for rank in 1...max(2, count) { zeta += pow(1 / Double(rank), Self.theta) }
        self.zeta = zeta
        alpha = 1 / (1 - Self.theta)
        let zetaOfTwo = 1 + pow(0.5, Self.theta)
        eta = (1 - pow(2 / Double(max(2, count)), 1 - Self.theta)) / (1 - zetaOfTwo / zeta)
    }

    /// The rank, from 0 on, for a number from 0 up to and without 1.
    func rank(at uniform: Double) -> Int {
        let scaled = uniform * zeta
        if scaled < 1 { return 0 }
        if scaled < 1 + pow(0.5, Self.theta) { return min(1, count - 1) }
        return min(count - 1, Int(Double(count) * pow(eta * uniform - eta + 1, alpha)))
    }
}
