import ArgumentParser
import FileTree
import Foundation
import NIOCore
import Raft

private func clock() -> Nanoseconds {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// Puts at random over so many files, executed as a state thread does it, without a log and a network.
struct ApplyBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apply", abstract: "Execute puts at random over a tree of files of 256 bytes.")

    @Option(help: "How many files the tree holds.") var files = 10_000
    @Option(help: "Seconds to measure.") var seconds = 8.0
    @Option(help: "Puts that reach the state thread at once.") var batch = 256
    @Option(help: "A directory that is not there yet, to work in; it is removed at the end.") var data =
        "/tmp/banyan-bench-apply"

    mutating func run() throws {
        let folder = try Folder(data)
        defer { folder.remove() }
        let tree = try DurableTree(path: data)
        var index: Index = 0
        var rest: Nanoseconds = 0
        func command(_ file: Int) throws -> ByteBuffer {
            var command = ByteBuffer()
            try Put(path: TreePath("/load/d\(file / 100)/f\(file)"), content: content).write(to: &command)
            return command
        }
        func apply(_ command: ByteBuffer) throws {
            index += 1
            var answer = ByteBuffer()
            try tree.apply(index: index, term: 1, kind: .command, payload: command, answer: &answer)
            guard index % 32 == 0 else { return }
            rest += try tree.keepUp(now: clock())
            if rest >= 1_000_000 {
                usleep(UInt32(rest / 1000))
                rest = 0
            }
        }
        let content = ByteBuffer(repeating: 7, count: 256)
        // As a leader does in a new cluster.
        var raise = ByteBuffer()
        RaiseVersion(to: Applied.clusterVersionMax).write(to: &raise)
        try apply(raise)
        for file in 0..<files { try apply(command(file)) }
        try tree.commit()
        var generator = SeededGenerator(seed: 1)
        // Made before the clock runs: that is the client's work.
        let commands = try (0..<131_072).map { _ in try command(Int.random(in: 0..<files, using: &generator)) }
        var next = 0
        var waits: [Double] = []
        let end = ContinuousClock.now + .seconds(seconds)
        let elapsed = try timed {
            while ContinuousClock.now < end {
                waits.append(
                    try timed {
                        for _ in 0..<batch {
                            try apply(commands[next % commands.count])
                            next += 1
                        }
                    })
            }
        }
        waits.sort()
        let rate = Double(waits.count * batch) / elapsed
        print(
            String(
                format:
                    "apply files=%d puts/s=%.0f batch of %d: p50 %.1f ms, p99 %.1f ms, p99.9 %.1f ms, longest %.1f ms",
                files, rate, batch, waits[waits.count / 2] * 1e3, waits[waits.count * 99 / 100] * 1e3,
                waits[waits.count * 999 / 1000] * 1e3, (waits.last ?? 0) * 1e3))
    }
}
