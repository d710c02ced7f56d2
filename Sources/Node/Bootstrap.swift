import Logging
import NIOCore
import Raft
import RaftLog
import Transport
import WireProtocol

/// The making of a new cluster. Each member is started once with the same list. The one with the lowest id asks every
/// other; when all of them are there, empty and with the same list, it draws the cluster's id and stores the first
/// entry, and its replica sends that to the others. Nobody votes before it has stored it.
final class Bootstrap {
    private let options: ServerOptions
    private let identity: Identity
    private let loop: any EventLoop
    private let logger: Logger
    private let complete: ([(id: UInt64, incarnation: UInt64)]) throws -> Void
    private let fatal: @Sendable (String) -> Void
    private var links: [PeerLink] = []
    private var heard: [(id: UInt64, incarnation: UInt64)]
    private var isOver = false

    init(
        options: ServerOptions, identity: Identity, loop: any EventLoop, logger: Logger,
        complete: @escaping ([(id: UInt64, incarnation: UInt64)]) throws -> Void,
        fatal: @escaping @Sendable (String) -> Void
    ) {
        self.options = options
        self.identity = identity
        self.loop = loop
        self.logger = logger
        self.complete = complete
        self.fatal = fatal
        heard = [(identity.memberID, identity.incarnation)]
    }

    /// The lowest id founds; the others ask as well, to learn of a cluster that knows them by another directory.
    func start() {
        for member in options.cluster where member.id != identity.memberID {
            let link = PeerLink(
                to: member.address, on: loop, hello: { [unowned self] in hello },
                onWelcome: { [weak self] link, connection, welcome in
                    self?.welcomed(welcome, member.id)
                    return self != nil
                },
                onBreak: { [weak self] _, goodbye, _ in self?.refused(goodbye, by: member.id) })
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
        hello.members = options.clusterText
        return hello
    }

    private func welcomed(_ welcome: Welcome, _ id: UInt64) {
        guard !isOver else { return }
        guard welcome.memberID == id else {
            fatal("the address of member \(id) is answered by member \(welcome.memberID); correct --cluster")
            return
        }
        guard welcome.isBootstrapping else { return }
        heard.removeAll { $0.id == id }
        heard.append((id, welcome.incarnation))
        guard heard.count == options.cluster.count, options.cluster.first?.id == identity.memberID else { return }
        do { try complete(heard) } catch { fatal("\(error)") }
    }

    private func refused(_ goodbye: Goodbye?, by id: UInt64) {
        guard !isOver, let goodbye else { return }
        switch goodbye.code {
        case .unknownIncarnation, .wrongCluster, .differentMembers, .noCommonVersion, .recovered:
            fatal("member \(id) refuses this one: \(goodbye.reason)")
        case .protocolError, .shuttingDown, .busy:
            logger.warning("peer refused", metadata: ["peer": "\(id)", "reason": "\(goodbye.reason)"])
        }
    }
}
