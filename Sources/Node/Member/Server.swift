import BanyanClient
import FileTree
import Glibc
import LMDB
import Logging
import NIOCore
import Raft
import RaftLog
import Transport
import WireProtocol

/// One member: its directory, its event loop and its port. It begins as a stranger that waits for its cluster, if the
/// directory is new, and then runs as a `Replica`.
///
/// Everything but `start` and `stop` happens on the loop's thread.
package final class Server {
    enum Phase {
        case waiting(Bootstrap)
        /// Until a cluster's leader takes this member in.
        case joining(Bootstrap)
        /// The log can't be read through: a snapshot is being taken from the others.
        case repairing
        /// The state is being opened.
        case starting
        case running(Replica)
        case ended
    }

    let options: ServerOptions
    let directory: DataDirectory
    var identity: Identity
    let address: Address
    let loop: any EventLoop
    let logger: Logger
    let fatal: @Sendable (String) -> Void
    let restart: @Sendable (String) -> Void
    let began = Clock.now
    var phase = Phase.ended
    /// What the log held when this member started; taken once.
    var recovered: LogStore.Recovered?
    var repairing: Task<Void, Never>?
    /// Its disk is full, and what was under way when that was found is left as it was.
    var isTakenIn = false
    var isWaitingForRoom = false
    /// Kept for its threads, which are left where they are.
    var leftReplica: Replica?
    private var port: (any Channel)?
    var lastConnection: UInt64 = 0
    let memory = ClientMemory()
    /// Those that were greeted.
    var connections: [UInt64: FrameConnection] = [:]
    /// Those that have not said hello.
    var strangers: [UInt64: FrameConnection] = [:]
    var admission = Admission(.ofProcess)
    let unfinishedFrames = UnfinishedFrames()
    /// When last a connection could not be taken in, for want of a descriptor; nil again a second later.
    var starvedAt: Nanoseconds?
    private var looking: RepeatedTask?
    /// Peers that were refused, by their directory.
    var refusedPeers = Refusals<UInt64>()

    /// Opens the directory and decides who this member is. Nothing runs yet.
    ///
    /// - Parameters:
    ///   - fatal: called when the member can't go on: its disk failed, or it was refused for good.
    ///   - restart: called when the process must begin anew, with this directory: it has to be, or was, repaired.
    package init(
        _ options: ServerOptions, on loop: any EventLoop, logger: Logger, fatal: @escaping @Sendable (String) -> Void,
        restart: @escaping @Sendable (String) -> Void
    ) throws {
        self.restart = restart
        var options = options
        directory = try DataDirectory(path: options.data)
        var listed: [ListedMember] = []
        (identity, listed) = try Self.begin(&options, directory)
        let memberID = identity.memberID
        if identity.genesis != nil {
            let repair = LogRepair(options: options, store: directory.store, identity: identity, logger: logger)
            do { recovered = try repair.recover() } catch let error as LogError {
                throw StartError("\(options.data): \(error)")
            }
        }
        let configuration =
            recovered?.log.configuration ?? (try? directory.store.damaged())?.configuration ?? identity.genesis
        if let configuration, !listed.isEmpty {
            options.moved = try Self.moves(
                listed, identity.founders, configuration, directory.store, logger)
        }
        let own = configuration?.member(PeerID(identity.incarnation)).map(options.moved.address)
        let recorded = own.flatMap { Address($0) }
        let configured = recorded ?? options.cluster.first { $0.id == memberID }?.address
        guard let address = options.listen ?? configured else {
            throw StartError(
                "\(options.data): its recorded address '\(own ?? "")' is none that one can listen at; say this member's: --id "
                    + "\(memberID) --cluster \(memberID)=HOST:PORT")
        }
        self.address = address
        self.options = options
        self.loop = loop
        self.logger = logger
        self.fatal = fatal
    }

    /// Makes the directory this member's, as is decided by what it holds and `options`, which then say what counts.
    ///
    /// - Returns: who this member is, and the list that says where the members of its cluster are now.
    private static func begin(
        _ options: inout ServerOptions, _ directory: DataDirectory
    ) throws -> (Identity, listed: [ListedMember]) {
        let stored = try directory.store.identity()
        if stored == nil { try directory.refuseLostLog() }
        let decision: StartDecision
        do throws(StartDecision.Refusal) { decision = try StartDecision(stored, options) } catch {
            if stored == nil { directory.discard() }
            throw StartError(error.words(options.data))
        }
        switch (decision, stored) {
        case (.member(let listed), .some(let stored)):
            options.id = stored.memberID
            options.cluster = MemberList.recorded(stored.founders)
            return (stored, listed)
        case (.waitOn, .some(let stored)):
            options.id = stored.memberID
            options.cluster = MemberList.recorded(stored.founders)
            return (stored, [])
        case (.first(let newcomer), _), (.anew(let newcomer), _):
            options.id = newcomer.id
            options.cluster = newcomer.cluster
            // It was an empty one that stood there, and is this member's now.
            if stored == nil { DataDirectory.makePrivate(options.data) }
            let identity = Identity(
                memberID: newcomer.id, incarnation: UInt64.random(in: 1...UInt64.max), founders: options.clusterText,
                isJoining: newcomer.isJoining)
            try directory.store.save(identity)
            return (identity, [])
        case (.member, nil), (.waitOn, nil): preconditionFailure("an empty directory would be taken for a member's")
        }
    }

    package var description: String { "member \(identity.memberID) on \(address)" }

    /// Listens, and runs. On the loop's thread.
    package func start() -> EventLoopFuture<Void> {
        let this = NIOLoopBound(self, eventLoop: loop)
        return listen(until: .now() + Self.portPatience).flatMapThrowing { channel in try this.value.started(channel) }
    }

    /// What is left of a connection that had this port lasts for a minute.
    private static let portPatience = TimeAmount.seconds(75)

    private func listen(until end: NIODeadline, isFirst: Bool = true) -> EventLoopFuture<any Channel> {
        let this = NIOLoopBound(self, eventLoop: loop)
        let (address, loop) = (address, loop)
        return Listener.bind(
            address, on: loop, accept: { this.value.makeConnection() }, starved: { this.value.starved($0) }
        )
        .flatMapError { error in
            let code = (error as? IOError)?.errnoCode
            let reason = code.map { String(cString: strerror($0)) } ?? "\(error)"
            let failure = StartError("can't listen on \(address): \(reason)")
            guard code == EADDRINUSE, .now() < end else { return loop.makeFailedFuture(failure) }
            return Listener.isTaken(address, on: loop).flatMap { isTaken in
                guard !isTaken else { return loop.makeFailedFuture(failure) }
                if isFirst {
                    this.value.logger.notice(
                        "the port belongs to a connection that ends: waiting for it",
                        metadata: ["address": "\(address)"])
                }
                return loop.scheduleTask(in: .milliseconds(250)) {}.futureResult.flatMap {
                    this.value.listen(until: end, isFirst: false)
                }
            }
        }
    }

    private func started(_ channel: any Channel) throws {
        port = channel
        let this = NIOLoopBound(self, eventLoop: loop)
        unfinishedFrames.onExcess = { this.value.endLongestFrame() }
        looking = loop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { _ in
            this.value.lookAtConnections()
        }
        if identity.genesis != nil {
            if let recovered { try run(recovered) } else { repair() }
        } else if identity.isJoining {
            let bootstrap = makeBootstrap()
            phase = .joining(bootstrap)
            bootstrap.start()
            logger.notice(
                "waiting to be taken in",
                metadata: [
                    "run": "banyan member add \(identity.memberID) \(address) (or: member replace \(identity.memberID))"
                ])
        } else if options.cluster.count == 1 {
            try found(members: [(identity.memberID, identity.incarnation)])
        } else {
            logger.info("waiting for the other members", metadata: ["members": "\(options.clusterText)"])
            let bootstrap = makeBootstrap()
            phase = .waiting(bootstrap)
            bootstrap.start()
        }
    }

    /// Takes no part in the cluster before its log is sound.
    private func repair() {
        phase = .repairing
        logger.notice("taking a sound copy from the other members")
        let repair = LogRepair(options: options, store: directory.store, identity: identity, logger: logger)
        let this = NIOLoopBound(self, eventLoop: loop)
        let (loop, restart) = (loop, restart)
        repairing = Task {
            do {
                try await repair.run()
                restart("repaired")
            } catch is CancellationError {} catch { loop.execute { this.value.unwritable(error) } }
        }
    }

    /// A file of the directory can't be written. Where room is all that lacks, it is waited for.
    func unwritable(_ error: any Error) {
        if StartError.isFull(error) { waitForRoom("\(error)") } else { fatal("\(error)") }
    }

    /// The disk filled up in the midst of a commit, of which nobody knows what reached it: none is tried again by this process.
    /// It serves nothing more, and begins anew with what is on the disk once there is room.
    func waitForRoom(_ reason: String) {
        guard !isWaitingForRoom else { return }
        isWaitingForRoom = true
        logger.critical(
            "this member waits until there is room on its disk, and then starts again by itself",
            metadata: ["directory": "\(options.data)", "reason": "\(reason)"])
        // Its threads are not ended: one of them would commit.
        leftReplica = replica
        _ = stop()
        let restart = restart
        let room = NIOLoopBoundBox(Room(in: options.data), eventLoop: loop)
        loop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { task in
            guard room.value.isThere(now: Clock.now) else { return }
            task.cancel()
            restart("there is room on the disk again")
        }
    }

    var replica: Replica? {
        if case .running(let replica) = phase { return replica }
        return nil
    }

    /// Hands leadership over, if this member leads, and answers what it took up: a clean end costs the cluster no election
    /// timeout, and leaves no client in doubt. On the loop's thread.
    package func handOver() -> EventLoopFuture<Void> {
        let done = loop.makePromise(of: Void.self)
        guard let replica else { return loop.makeSucceededVoidFuture() }
        replica.drain { done.succeed() }
        return done.futureResult
    }

    /// Closes the port and every connection. On the loop's thread; the answer lets the threads finish, off the loop.
    package func stop() -> @Sendable () -> Void {
        port?.close(promise: nil)
        looking?.cancel()
        let old = phase
        phase = .ended
        switch old {
        case .running(let replica):
            replica.stop()
            let threads = replica.closeThreads
            return { for close in threads { close() } }
        case .waiting(let bootstrap), .joining(let bootstrap):
            bootstrap.stop()
            return {}
        case .repairing, .starting, .ended:
            repairing?.cancel()
            return {}
        }
    }
}
