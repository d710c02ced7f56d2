import Logging
import NIOCore
import Raft
import RaftLog
import Transport
import WireProtocol

/// The making of a new cluster. Each member is started once with the same list. The one with the lowest id asks every
/// other; when all of them are there, empty and with the same list, it draws the cluster's id and stores the first
/// entry, and tells it to whoever asked. Nobody votes before it has stored it.
///
/// A member that is to join a running cluster waits the same way for the configuration that takes it in. Either is believed
/// only as the answer to this member's own question at an address of its own list, never from who came in by its port: that
/// may be anybody. Nothing that is said there ends this member, for the same reason.
final class Bootstrap {
    private let options: ServerOptions
    private let identity: Identity
    private let loop: any EventLoop
    private let logger: Logger
    private let complete: ([(id: UInt64, incarnation: UInt64)]) throws -> Void
    private let begin: (Configuration) throws -> Void
    private let fatal: @Sendable (String) -> Void
    private var links: [PeerLink] = []
    private var heard: [(id: UInt64, incarnation: UInt64)]
    private var refusals = Refusals<UInt64>()
    private var isOver = false

    /// - Parameters:
    ///   - complete: founds the cluster: all are there.
    ///   - begin: takes up what another says that this member begins with.
    ///   - fatal: called when this member can't write that down.
    init(
        options: ServerOptions, identity: Identity, loop: any EventLoop, logger: Logger,
        complete: @escaping ([(id: UInt64, incarnation: UInt64)]) throws -> Void,
        begin: @escaping (Configuration) throws -> Void, fatal: @escaping @Sendable (String) -> Void
    ) {
        self.options = options
        self.identity = identity
        self.loop = loop
        self.logger = logger
        self.complete = complete
        self.begin = begin
        self.fatal = fatal
        heard = [(identity.memberID, identity.incarnation)]
    }

    /// The lowest id founds; the others ask as well, to learn of a cluster that knows them by another directory.
    func start() {
        for member in options.cluster where member.id != identity.memberID {
            let link = PeerLink(
                to: member.address, on: loop, hello: { [unowned self] in hello },
                onWelcome: { [weak self] link, connection, welcome in
                    self?.welcomed(welcome, member.id, link)
                    return self != nil
                },
                onBreak: { [weak self] _, goodbye, _ in
                    self?.heard.removeAll { $0.id == member.id }
                    guard let goodbye, goodbye.code != .shuttingDown else { return }
                    self?.refused("member \(member.id) refuses this one: \(goodbye.reason)", by: member.id)
                },
                onFrame: { [weak self] link, connection, frame in
                    guard let self, frame.kind == .genesis, !isOver else { return }
                    guard let genesis = genesis(frame) else { return connection.close() }
                    do { try begin(genesis) } catch { fatal("\(error)") }
                })
            links.append(link)
            link.start()
        }
    }

    func stop() {
        isOver = true
        for link in links { link.stop() }
    }

    private var hello: Hello {
        var hello = Hello(role: .peer)
        hello.isBootstrapping = true
        hello.memberID = identity.memberID
        hello.incarnation = identity.incarnation
        if !identity.isJoining { hello.members = options.clusterText }
        return hello
    }

    /// What the frame says that this member begins with, if it is what this member waits for.
    private func genesis(_ frame: Frame) -> Configuration? {
        var body = frame.body
        guard let genesis = Configuration(from: &body),
            genesis.member(PeerID(identity.incarnation))?.id == identity.memberID,
            identity.isJoining || genesis.text == options.clusterText
        else { return nil }
        return genesis
    }

    private func welcomed(_ welcome: Welcome, _ id: UInt64, _ link: PeerLink) {
        guard !isOver else { return }
        guard welcome.memberID == id else {
            refused("the address of member \(id) is answered by member \(welcome.memberID); correct --cluster", by: id)
            return link.reject()
        }
        refusals.welcomed(id)
        guard welcome.isBootstrapping, !identity.isJoining else { return }
        heard.removeAll { $0.id == id }
        heard.append((id, welcome.incarnation))
        guard hasHeardAll, options.cluster.first?.id == identity.memberID else { return }
        let this = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: Self.patience) { this.value.found() }
    }

    /// Who is gone again so soon is none to found a cluster with.
    private static let patience = TimeAmount.milliseconds(100)

    private var hasHeardAll: Bool { heard.count == options.cluster.count }

    /// Those that are not there yet, in words.
    var missing: String {
        let ids = options.cluster.map(\.id).filter { id in !heard.contains { $0.id == id } }
        return ids.isEmpty
            ? "the founder" : "member\(ids.count > 1 ? "s" : "") \(ids.map(String.init).joined(separator: ", "))"
    }

    private func found() {
        guard !isOver, hasHeardAll else { return }
        do { try complete(heard) } catch { fatal("\(error)") }
    }

    private func refused(_ reason: String, by id: UInt64) {
        guard !isOver else { return }
        let reason = ForeignText.plain(reason)
        if refusals.refused(id, reason) {
            logger.warning("peer refused", metadata: ["peer": "\(id)", "reason": "\(reason)"])
        }
    }
}
