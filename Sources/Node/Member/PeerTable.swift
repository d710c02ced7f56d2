import Raft
import Transport
import WireProtocol

/// The other members as this one reaches them: a link for each lane to who is recorded, the way back to who is not (yet), and
/// what is remembered of them for log and `status`.
struct PeerTable {
    private var links: [PeerID: [Lane: PeerLink]] = [:]
    /// By their own connections, those who spoke last: the recorded address may be out of date, or there is none.
    private var ways: [PeerID: FrameConnection] = [:]
    private var regressed: Set<PeerID> = []
    /// Why peers refused this member, or it them.
    private(set) var refusals = Refusals<PeerID>()
    private(set) var offences = OffenceCount()

    /// Who has links.
    var linked: [PeerID] { links.keys.sorted() }

    func address(of peer: PeerID) -> Address? { links[peer]?[.control]?.address }

    /// Where messages to the peer go.
    func connection(to peer: PeerID, by lane: Lane) -> FrameConnection? { links[peer]?[lane]?.connection ?? ways[peer] }

    /// Where the peer's own messages come from.
    func origin(of peer: PeerID) -> String { ways[peer]?.remoteAddress ?? "?" }

    mutating func link(_ peer: PeerID, _ lanes: [Lane: PeerLink]) { links[peer] = lanes }

    /// Forgets the peer; its links are to be stopped.
    mutating func unlink(_ peer: PeerID) -> [PeerLink] {
        refusals.forget(peer)
        return (links.removeValue(forKey: peer) ?? [:]).sorted { $0.key.rawValue < $1.key.rawValue }.map(\.value)
    }

    mutating func heard(_ peer: PeerID, on connection: FrameConnection) { ways[peer] = connection }

    mutating func closed(_ connection: FrameConnection) {
        guard let hello = connection.hello, ways[PeerID(hello.incarnation)] === connection else { return }
        ways[PeerID(hello.incarnation)] = nil
    }

    /// Whether that is news.
    mutating func refused(_ peer: PeerID, _ reason: String) -> Bool { refusals.refused(peer, reason) }

    mutating func welcomed(_ peer: PeerID) { refusals.welcomed(peer) }

    /// True once for each peer that lost what it had acknowledged.
    mutating func isNewlyRegressed(_ peer: PeerID) -> Bool { regressed.insert(peer).inserted }

    /// Whether it is worth a line in the log.
    mutating func note(_ offence: Offence, isMember: Bool, now: Nanoseconds) -> Bool {
        offences.note(offence, isMember: isMember, now: now)
    }
}
