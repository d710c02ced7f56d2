import ArgumentParser
import BanyanClient
import Console
import Foundation
import LoadGenerator
import Synchronization

/// What is done to members on this machine while they are loaded: kill-leader@5s,pause-leader@12s.
struct FaultPlan: ExpressibleByArgument {
    private enum Kind: String, CaseIterable {
        case killLeader = "kill-leader"
        case killFollower = "kill-follower"
        case pauseLeader = "pause-leader"
    }

    private let faults: [(kind: Kind, at: TimeSpan)]

    init?(argument: String) {
        var faults: [(kind: Kind, at: TimeSpan)] = []
        for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
            let sides = part.split(separator: "@")
            guard sides.count == 2, let kind = Kind(rawValue: String(sides[0])),
                let at = TimeSpan(argument: String(sides[1]))
            else { return nil }
            faults.append((kind, at))
        }
        self.faults = faults
    }

    /// How long to look for whom to strike: elections take a moment.
    private static let aimMax = Duration.seconds(3)
    /// How long a paused leader stands still.
    private static let pause = DispatchTimeInterval.seconds(5)

    /// Members that stand still. However the tool ends, none of them stays so.
    private static let paused: Mutex<Set<pid_t>> = {
        atexit { FaultPlan.resumeAll() }
        return Mutex([])
    }()

    private static func resumeAll() {
        paused.withLock { processes in
            for process in processes { kill(process, SIGCONT) }
            processes = []
        }
    }

    /// The first time that comes too late to strike.
    func firstFault(after duration: TimeSpan) -> TimeSpan? { faults.map(\.at).first { $0.seconds >= duration.seconds } }

    func faults(on nodes: [String]) -> [Fault] {
        faults.map { kind, at in
            Fault(after: at.duration) {
                let client = BanyanClient(nodes: nodes, timeout: .seconds(2))
                let role = kind == .killFollower ? "follower" : "leader"
                let end = ContinuousClock.now + Self.aimMax
                var victim: MemberReport?
                while victim == nil {
                    victim = try await client.status().first { $0.role == role }
                    guard victim == nil, ContinuousClock.now < end else { break }
                    try await Task.sleep(for: .milliseconds(50))
                }
                await client.close()
                guard let victim else {
                    throw CommandFailure("--during: there is no \(role) to strike", exitCode: 5)
                }
                let process = try Self.process(of: victim)
                let description = "\(kind.rawValue): member \(victim.id), process \(process)"
                return (
                    description,
                    {
                        try Self.signal(process, kind == .pauseLeader ? SIGSTOP : SIGKILL)
                        guard kind == .pauseLeader else { return }
                        Self.paused.withLock { _ = $0.insert(process) }
                        DispatchQueue.global().asyncAfter(deadline: .now() + Self.pause) {
                            Self.paused.withLock { if $0.remove(process) != nil { kill(process, SIGCONT) } }
                        }
                    }
                )
            }
        }
    }

    private static func signal(_ process: pid_t, _ number: Int32) throws {
        guard kill(process, number) != 0 else { return }
        throw CommandFailure("--during: process \(process) can't be signalled: \(String(cString: strerror(errno)))")
    }

    /// The member's process, if it runs on this machine and under a name that leaves no doubt.
    private static func process(of member: MemberReport) throws -> pid_t {
        let host = member.address.split(separator: ":").dropLast().joined(separator: ":")
        guard ["127.0.0.1", "localhost", "[::1]"].contains(host) else {
            throw CommandFailure("--during: member \(member.id) at \(member.address) is not on this machine")
        }
        guard let number = member.statistics["process_id"], let process = pid_t(exactly: number), process > 1,
            let name = try? String(contentsOfFile: "/proc/\(process)/comm", encoding: .utf8), name == "banyand\n"
        else { throw CommandFailure("--during: no process of member \(member.id) can be found on this machine") }
        return process
    }
}
