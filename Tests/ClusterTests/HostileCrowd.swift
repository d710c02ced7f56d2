import BanyanClient
import Foundation
import NIOCore
import Raft
import WireProtocol

/// Annoys the members of a cluster on a thread of its own, while something else is tested: by what no sound client or member
/// does, and what may have no effect. What only proof of who speaks could stop, it leaves alone.
final class HostileCrowd: Sendable {
    private enum Annoyance: CaseIterable {
        case silence, slowHello, halfFrame, garbage, web, leap, acknowledgement, goodbye, unreadFiles, longBodies,
            hangUp
    }

    /// Signalled once: when it is to end, and when it has.
    private let isOver = DispatchSemaphore(value: 0)
    private let hasEnded: AsyncStream<[String: Int]>

    init(ports: [Int], seed: UInt64) {
        RawConnection.raiseLimit()
        let (stream, done) = AsyncStream.makeStream(of: [String: Int].self)
        hasEnded = stream
        let isOver = isOver
        Thread.detachNewThread {
            var generator = SeededGenerator(seed: seed)
            var held: [RawConnection] = []
            var counts: [String: Int] = [:]
            // Its pace, unless it is to end.
            while isOver.wait(timeout: .now() + .milliseconds(50)) == .timedOut {
                // Directories change, and with them who is who.
                guard let forger = try? Forger(ports: ports, areAll: false), !forger.members.isEmpty else { continue }
                for _ in 0..<30 {
                    guard let annoyance = Annoyance.allCases.randomElement(using: &generator),
                        let connection = try? Self.annoy(annoyance, forger, &generator)
                    else { continue }
                    held.append(connection)
                    counts["\(annoyance)", default: 0] += 1
                }
                // So many stay, of those who were not thrown out.
                if held.count > 200 { held.removeFirst(held.count - 200) }
                for connection in held.prefix(20) { connection.say([0], waits: false) }
            }
            done.yield(counts)
            done.finish()
        }
    }

    /// Waits for its end, and tells what it did.
    func stop() async -> String {
        isOver.signal()
        var counts: [String: Int] = [:]
        for await found in hasEnded { counts = found }
        return counts.sorted { $0.key < $1.key }.map { "\($0) \($1)" }.joined(separator: ", ")
    }

    private static func annoy(
        _ annoyance: Annoyance, _ forger: Forger, _ generator: inout SeededGenerator
    ) throws -> RawConnection? {
        guard let to = forger.members.randomElement(using: &generator),
            let from = forger.members.filter({ $0.id != to.id }).randomElement(using: &generator)
        else { return nil }
        let lane = Lane.allCases.randomElement(using: &generator) ?? .control
        let long = Forger.frame(Frame.Kind.read.rawValue, [UInt8](repeating: 7, count: Frame.bodyBytesMax), request: 1)
        switch annoyance {
        case .silence: return try RawConnection(to: to.port)
        case .slowHello: return try said(Forger.clientHello.prefix(Int.random(in: 1..<40, using: &generator)), to)
        case .halfFrame: return try said(Forger.clientHello + long.prefix(100_000), to)
        case .garbage: return try said((0..<300).map { _ in UInt8.random(in: 0...255, using: &generator) }, to)
        case .web: return try said(Array("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8), to)
        case .leap:
            let term = UInt64(1) << UInt64.random(in: 30...63, using: &generator)
            let body = Forger.messages(beyond: (term, term)).randomElement(using: &generator) ?? .timeoutNow
            return try said(forger.peerHello(as: from, lane) + Forger.message(from, to: to, term: term, body), to)
        case .acknowledgement:
            // Of the first term, which is over, or of one that nobody reached.
            let term: UInt64 = Bool.random(using: &generator) ? 1 : 1 << 40
            let body = Message.Body.appendResponse(.accepted(match: 1 << 50))
            return try said(forger.peerHello(as: from, lane) + Forger.message(from, to: to, term: term, body), to)
        case .goodbye:
            let code = UInt16.random(in: 0...9, using: &generator)
            return try said(forger.peerHello(as: from, lane) + Forger.goodbye(code, Array("go away\n".utf8)), to)
        case .unreadFiles:
            let connection = try RawConnection(to: to.port, receiveBytes: 4096)
            connection.say(Forger.clientHello)
            for id in UInt64(1)...64 {
                let body: [UInt8] = [1, 0, 2] + Array("/0".utf8)
                connection.say(
                    Forger.frame(Frame.Kind.read.rawValue, body, request: id, deadline: 60_000), waits: false)
            }
            return connection
        case .longBodies:
            let connection = try said(Forger.clientHello, to)
            for _ in 0..<4 { connection.say(long, waits: false) }
            return connection
        case .hangUp:
            _ = try said(Forger.clientHello + long.prefix(50), to)
            return nil
        }
    }

    private static func said(_ bytes: some Collection<UInt8>, _ to: Forger.Target) throws -> RawConnection {
        let connection = try RawConnection(to: to.port)
        connection.say(bytes, waits: false)
        return connection
    }
}
