import FileTree
import NIOCore
import Raft
import WireProtocol

/// Somebody at the network who knows all that anybody can ask for (ids, incarnations, terms, indexes), hears what members
/// say, and speaks to any of them in any other's name. No secret keeps it out.
package struct Intruder {
    package enum Kind: String, CaseIterable, Sendable {
        /// Says only what no sound cluster could have sent: all of it must be without effect.
        case insane
        /// Sends what it heard again, at another time, to others, in other names, with other numbers. Only a proof could keep
        /// that from doing harm; but nobody may end at it, and service must come back when it falls silent.
        case mutating
    }

    let kind: Kind
    var generator: SeededGenerator
    /// Between two frames, in the middle.
    let pace: Nanoseconds
    /// What it heard last.
    private(set) var overheard: [SimulatedMember.Envelope] = []
    private static let overheardMax = 64

    init(_ kind: Kind, using later: inout SeededGenerator) {
        self.kind = kind
        generator = SeededGenerator(seed: later.next())
        pace = [2, 10, 50][Int.random(in: 0..<3, using: &generator)] * 1_000_000
    }

    /// Nobody could tell those from what the forged messages do to the members' disks.
    static let faultsWithoutMutating: Set<Fault> = [.wipe, .flippedBit, .alternatingLeaders, .membership, .restore]

    mutating func overhear(_ envelope: SimulatedMember.Envelope) {
        if overheard.count >= Self.overheardMax { overheard.removeFirst(Self.overheardMax / 2) }
        overheard.append(envelope)
    }

    mutating func number(_ range: ClosedRange<UInt64>) -> UInt64 { UInt64.random(in: range, using: &generator) }
    mutating func chance(_ one: Int) -> Bool { Int.random(in: 0..<one, using: &generator) == 0 }
    mutating func one<Element>(of elements: [Element]) -> Element? { elements.randomElement(using: &generator) }
}

/// What an intruder sends: bytes on a connection, or a snapshot, whose pieces were put together.
struct ForgedFrame {
    var bytes = ByteBuffer()
    var snapshot: SimulatedMember.Envelope?
    /// Whom the hello of the connection named.
    var sender: PeerID
    /// In words.
    var what: String

    init(_ what: String, sender: PeerID, bytes: ByteBuffer) {
        (self.what, self.sender, self.bytes) = (what, sender, bytes)
    }

    init(_ what: String, _ message: Message, _ entries: [SimulatedEntry] = []) {
        self.what = what
        sender = message.from
        bytes = Self.encode(message, entries)
    }

    init(_ what: String, snapshot: SimulatedMember.Envelope) {
        self.what = what
        sender = snapshot.message.from
        self.snapshot = snapshot
    }

    /// The frame as a member would write it.
    static func encode(_ message: Message, _ entries: [SimulatedEntry]) -> ByteBuffer {
        var frame = ByteBuffer()
        let records = entries.reduce(into: ByteBuffer()) { $0.writeImmutableBuffer($1.record) }
        message.writeHead(to: &frame, recordBytes: records.readableBytes)
        frame.writeImmutableBuffer(records)
        return frame
    }
}

/// What became of an intruder's frames, and of the cluster.
package struct Intrusions: Sendable {
    /// By the reason.
    package var refused: [String: Int] = [:]
    /// What nobody objected to, by what was tried.
    package var through: [String: Int] = [:]
    /// After the intruder had fallen silent: members that still were not level with their leader's log.
    package var leftBehind = 0
    /// The cluster had to be made anew from the directory of one member: consensus itself was forged.
    package var recoveries = 0

    package init() {}

    package mutating func add(_ other: Intrusions) {
        refused.merge(other.refused, uniquingKeysWith: +)
        through.merge(other.through, uniquingKeysWith: +)
        leftBehind += other.leftBehind
        recoveries += other.recoveries
    }
}

/// What a member makes of a frame before its core sees anything of it: the same checks as a server's.
enum Border {
    enum Verdict {
        case refused(String)
        case goodbye(Goodbye)
        case message(SimulatedMember.Envelope)
    }

    static func look(at forged: ForgedFrame, member: PeerID, cluster: UInt64, term: Term) -> Verdict {
        if let snapshot = forged.snapshot { return look(at: snapshot, cluster: cluster, term: term) }
        do throws(ProtocolError) {
            var bytes = forged.bytes
            guard let frame = try bytes.readFrame(bodyBytesMax: Frame.bodyBytesMax) else {
                return .refused("a frame that never ends")
            }
            if frame.kind == .goodbye { return .goodbye(try Goodbye(frame)) }
            guard frame.kind == .peerMessage else { return .refused("a frame of a kind that no peer sends") }
            let peerMessage = try PeerMessage(frame)
            guard peerMessage.message.from == forged.sender, peerMessage.message.to == member else {
                return .refused("a message in another's name than the connection's, or for another")
            }
            var envelope = SimulatedMember.Envelope(message: peerMessage.message)
            if case .append(let append) = peerMessage.message.body, let records = peerMessage.records {
                envelope.entries = try entries(append, records)
                let commands = envelope.entries.filter { $0.header.kind == .command }.map(\.payload)
                let areExecutable = commands.allSatisfy { command in
                    CommandHeader.isExecutable(command, at: command.readerIndex, count: command.readableBytes)
                }
                guard areExecutable else {
                    return .refused("an entry whose operation is not known")
                }
            }
            return .message(envelope)
        } catch { return .refused(reason(error)) }
    }

    private static func entries(
        _ append: Message.Append, _ records: ByteBuffer
    ) throws(ProtocolError) -> [SimulatedEntry] {
        var records = records
        var configurations = append.configurations[...]
        var entries: [SimulatedEntry] = []
        while records.readableBytes > 0 {
            let record = try EntryRecord(from: &records, isChecked: true)
            let configuration = record.header.kind == .configuration ? configurations.popFirst()?.configuration : nil
            entries.append(
                SimulatedEntry(header: record.header, payload: record.payload, configuration: configuration))
        }
        return entries
    }

    /// A snapshot says twice where it ends: in its header and in its rows.
    private static func look(at envelope: SimulatedMember.Envelope, cluster: UInt64, term: Term) -> Verdict {
        guard case .installSnapshot(let metadata) = envelope.message.body, let store = envelope.snapshot,
            let applied = try? FileTree(store: store).applied
        else { return .refused("a snapshot without a state") }
        guard envelope.message.term >= term else { return .refused("a snapshot of an old term") }
        guard metadata.configuration.clusterID == cluster else { return .refused("a snapshot of another cluster") }
        guard (applied.index, applied.term) == (metadata.index, metadata.term) else {
            return .refused("a snapshot whose header and rows differ")
        }
        return .message(envelope)
    }

    private static func reason(_ error: ProtocolError) -> String {
        switch error {
        case .frameTooLong: "a frame that is too long"
        case .frameTooShort: "a frame that is shorter than its header"
        case .unknownKind: "a frame of an unknown kind"
        case .corruptRecord: "an entry whose checksum does not match"
        default: "\(error)"
        }
    }
}

extension Mutant {
    /// Who has to be there for the fault to show.
    var intruder: Intruder.Kind? {
        switch self {
        case .goodbyeBelieved, .leapAdmitted: .insane
        case .confirmedIndexKept: .mutating
        default: nil
        }
    }
}
