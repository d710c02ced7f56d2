// swift-tools-version: 6.2
import PackageDescription

// The house: arrows point down only. A target imports what stands below it and nothing beside it.
//
//     banyand   banyan   banyan-load   banyan-sim  thin executables: parse, call, print
//     Node      Mirror   LoadGenerator Simulator   a running member; the tools' engines
//     Histories                                    what clients saw, and whether it could have happened
//     MemberLog                                    the log of a member, on a thread that nobody waits for
//     Console                                      how programs end
//     Driver                                       what stands between the core and threads, sockets and disks
//     Transport BanyanClient                       sockets
//     RaftLog   Snapshots                          the durable log and hard state; snapshot files
//     FileTree  WireProtocol                       commands, queries, apply; frames
//     Raft      LMDB     Deflate     XXHash        the pure core; owned wrappers
//     Threads                                      threads that own their data
//     CrashPoints                                  where tests end a process
//     CLMDB     CZlib    CLibdeflate CXXHash       system libraries

let strict: [SwiftSetting] = [
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    // Values are read straight from LMDB's pages; lifetimes let the compiler prove that none outlives its transaction.
    .enableExperimentalFeature("Lifetimes"),
]

let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioEmbedded = Target.Dependency.product(name: "NIOEmbedded", package: "swift-nio")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let heap = Target.Dependency.product(name: "HeapModule", package: "swift-collections")
let histogram = Target.Dependency.product(name: "Histogram", package: "hdrhistogram-swift")
let collections = Target.Dependency.product(name: "DequeModule", package: "swift-collections")

let package = Package(
    name: "banyan",
    products: [
        .library(name: "BanyanClient", targets: ["BanyanClient"]),
        .executable(name: "banyand", targets: ["banyand"]),
        .executable(name: "banyan", targets: ["banyan"]),
        .executable(name: "banyan-load", targets: ["banyan-load"]),
        .executable(name: "banyan-sim", targets: ["banyan-sim"]),
        // For the tests: the loader puts it under a member.
        .library(name: "banyan-bad-disk", type: .dynamic, targets: ["CBadDisk"]),
    ],
    dependencies: [
        // Event loops, sockets and ByteBuffer, the one form in which bytes travel through the server.
        .package(url: "https://github.com/apple/swift-nio", .upToNextMinor(from: "2.101.2")),
        // Structured logs whose backend the process chooses.
        .package(url: "https://github.com/apple/swift-log", .upToNextMinor(from: "1.16.2")),
        // SHA-256 of contents, snapshots and old digests.
        .package(url: "https://github.com/apple/swift-crypto", .upToNextMinor(from: "4.5.2")),
        // Command lines that teach: help, validation, completion.
        .package(url: "https://github.com/apple/swift-argument-parser", .upToNextMinor(from: "1.8.2")),
        // Deque, for every first-in first-out queue; Heap, for what the simulator foresees.
        .package(url: "https://github.com/apple/swift-collections", .upToNextMinor(from: "1.6.0")),
        // SIGTERM and SIGINT become a graceful shutdown.
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", .upToNextMinor(from: "2.13.0")),
        // Latencies with two or three significant digits in bounded memory.
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", .upToNextMinor(from: "0.2.0")),
    ],
    targets: [
        .systemLibrary(name: "CLMDB", pkgConfig: "lmdb", providers: [.apt(["liblmdb-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CLibdeflate", pkgConfig: "libdeflate", providers: [.apt(["libdeflate-dev"])]),
        .systemLibrary(name: "CXXHash", pkgConfig: "libxxhash", providers: [.apt(["libxxhash-dev"])]),

        .target(name: "Raft", swiftSettings: strict),
        .target(name: "LMDB", dependencies: ["CLMDB", "CrashPoints"], swiftSettings: strict),
        .target(name: "Deflate", dependencies: ["CZlib", "CLibdeflate"], swiftSettings: strict),
        .target(name: "XXHash", dependencies: ["CXXHash"], swiftSettings: strict),
        .target(name: "Threads", dependencies: [], swiftSettings: strict),
        .target(name: "CrashPoints", swiftSettings: strict),

        .target(
            name: "FileTree",
            dependencies: [
                "LMDB", "Deflate", "XXHash", "Raft", "Threads", "CrashPoints", nioCore, crypto, collections,
            ],
            swiftSettings: strict),
        .target(name: "WireProtocol", dependencies: ["Raft", "Deflate", nioCore], swiftSettings: strict),

        .target(
            name: "Driver", dependencies: ["FileTree", "WireProtocol", "Raft", nioCore, collections],
            swiftSettings: strict),
        .target(
            name: "RaftLog",
            dependencies: ["LMDB", "Deflate", "Raft", "WireProtocol", "Threads", "CrashPoints", nioCore],
            swiftSettings: strict),
        .target(
            name: "Snapshots",
            dependencies: ["Deflate", "FileTree", "Raft", "WireProtocol", "CrashPoints", nioCore, crypto],
            swiftSettings: strict),
        .target(
            name: "Transport", dependencies: ["WireProtocol", "Raft", nioCore, nioPosix, logging],
            swiftSettings: strict),
        .target(
            name: "BanyanClient", dependencies: ["WireProtocol", "FileTree", "Raft", nioCore, nioPosix, collections],
            swiftSettings: strict),

        .target(
            name: "Node",
            dependencies: [
                "Driver", "Transport", "BanyanClient", "RaftLog", "Snapshots", "FileTree", "LMDB", "WireProtocol",
                "Raft", "Threads", "CrashPoints", nioCore, logging, collections, histogram,
            ], swiftSettings: strict),
        .target(name: "Mirror", dependencies: ["BanyanClient", "FileTree"], swiftSettings: strict),
        .target(
            name: "LoadGenerator",
            dependencies: [
                "BanyanClient", "FileTree", "WireProtocol", "Raft", "Histories", nioCore, nioPosix, collections,
                histogram,
            ],
            swiftSettings: strict),

        .target(name: "Histories", swiftSettings: strict),
        .target(
            name: "Simulator",
            dependencies: ["Driver", "FileTree", "WireProtocol", "Raft", "Histories", nioCore, crypto, heap],
            swiftSettings: strict),
        .target(name: "Console", dependencies: ["FileTree", arguments], swiftSettings: strict),
        .target(name: "MemberLog", dependencies: ["Console", "Threads", logging], swiftSettings: strict),
        .executableTarget(
            name: "banyand",
            dependencies: [
                "Node", "Transport", "WireProtocol", "Console", "MemberLog", logging, arguments, nioCore,
                nioPosix,
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ], swiftSettings: strict),
        .executableTarget(
            name: "banyan",
            dependencies: [
                "BanyanClient", "Mirror", "Node", "Snapshots", "Console", "FileTree", "WireProtocol", nioCore,
                arguments,
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "banyan-load",
            dependencies: [
                "LoadGenerator", "Histories", "BanyanClient", "Console", arguments, histogram,
            ],
            swiftSettings: strict),

        .executableTarget(
            name: "banyan-sim", dependencies: ["Simulator", "Histories", "Raft", "Console", arguments],
            swiftSettings: strict),

        // The power cut: a program that runs a member's storage above a file layer of its own.
        .target(name: "CPowerCut", path: "Tests/CPowerCut", linkerSettings: [.linkedLibrary("dl")]),
        .executableTarget(
            name: "banyan-powercut",
            dependencies: [
                "CPowerCut", "Node", "RaftLog", "Snapshots", "FileTree", "WireProtocol", "Raft", nioCore, arguments,
            ], path: "Tests/PowerCut", swiftSettings: strict),

        // The bad disk: a library that stands between the unchanged programs and the C library.
        .target(name: "CBadDisk", path: "Tests/CBadDisk", linkerSettings: [.linkedLibrary("dl")]),

        .testTarget(name: "RaftTests", dependencies: ["Driver", "Raft"], swiftSettings: strict),
        .testTarget(
            name: "DriverTests", dependencies: ["Driver", "FileTree", "WireProtocol", "Raft", nioCore],
            swiftSettings: strict),
        .testTarget(name: "LMDBTests", dependencies: ["LMDB", "CLMDB"], swiftSettings: strict),
        .testTarget(
            name: "FileTreeTests", dependencies: ["FileTree", "XXHash", "Raft", nioCore], swiftSettings: strict),
        .testTarget(
            name: "WireProtocolTests", dependencies: ["WireProtocol", "FileTree", "Raft", nioCore],
            swiftSettings: strict),
        .testTarget(
            name: "RaftLogTests", dependencies: ["RaftLog", "LMDB", "WireProtocol", "Raft", nioCore],
            swiftSettings: strict),
        .testTarget(
            name: "SnapshotsTests",
            dependencies: ["Snapshots", "FileTree", "WireProtocol", "Raft", nioCore, "Deflate"],
            swiftSettings: strict),
        .testTarget(name: "SimulatorTests", dependencies: ["Simulator", "Histories", "Raft"], swiftSettings: strict),
        .testTarget(name: "HistoriesTests", dependencies: ["Histories"], swiftSettings: strict),
        .testTarget(
            name: "BanyanClientTests", dependencies: ["BanyanClient", "FileTree", "WireProtocol", nioCore, nioPosix],
            swiftSettings: strict),
        .testTarget(name: "MemberLogTests", dependencies: ["MemberLog", logging], swiftSettings: strict),
        .testTarget(name: "ConsoleTests", dependencies: ["Console", "FileTree", arguments], swiftSettings: strict),
        .testTarget(name: "LoadGeneratorTests", dependencies: ["LoadGenerator", nioCore], swiftSettings: strict),
        .testTarget(name: "MirrorTests", dependencies: ["Mirror", "BanyanClient", "FileTree"], swiftSettings: strict),
        .testTarget(
            name: "NodeTests",
            dependencies: [
                "Node", "Driver", "Transport", "RaftLog", "FileTree", "Raft", "Snapshots", "WireProtocol", nioCore,
                nioEmbedded,
            ],
            swiftSettings: strict),
        .testTarget(
            name: "ClusterTests",
            dependencies: [
                "BanyanClient", "WireProtocol", "banyand", "banyan", "banyan-load", "banyan-sim", "banyan-powercut",
                "CrashPoints", "FileTree", "LMDB", "Raft", "RaftLog", "Snapshots",
                nioCore, nioPosix, crypto,
            ],
            swiftSettings: strict),
    ],
    swiftLanguageModes: [.v6]
)

// Benchmarks are built when they are asked for: see `make bench`.
if Context.environment["BANYAN_BENCHMARKS"] != nil {
    package.targets.append(
        .executableTarget(
            name: "banyan-bench",
            dependencies: [
                "FileTree", "RaftLog", "LMDB", "Deflate", "WireProtocol", "Raft", nioCore, nioPosix, arguments,
            ],
            path: "Sources/Benchmarks", swiftSettings: strict))
}
