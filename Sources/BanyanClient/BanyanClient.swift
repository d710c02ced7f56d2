import FileTree
import NIOCore
import NIOPosix
import WireProtocol

/// A client of a Banyan cluster.
///
/// It begins with any member, follows the leader, reconnects, and keeps any number of requests under way. Every
/// operation ends within the timeout. Writes belong to a session that the client opens by itself: one whose answer was
/// lost is sent again, and takes effect once. One that got no answer in its time ends with `BanyanError.unknownOutcome`.
public final class BanyanClient: Sendable {
    /// The largest content of a file, in bytes.
    public static let contentBytesMax = FileTreeLimits.contentBytesMax

    private let core: NIOLoopBound<ClientCore>
    private let loop: any EventLoop
    private let nodes: [String]
    private let timeout: TimeAmount
    let timeoutDuration: Duration

    /// - Parameters:
    ///   - nodes: addresses of members as `host:port`, one at least.
    ///   - timeout: how long each operation may take.
    public convenience init(nodes: [String], timeout: Duration = .seconds(5)) {
        self.init(nodes: nodes, timeout: timeout, loop: MultiThreadedEventLoopGroup.singleton.next())
    }

    package init(nodes: [String], timeout: Duration, loop: any EventLoop) {
        precondition(!nodes.isEmpty, "a client needs the address of one member at least")
        self.nodes = nodes
        self.loop = loop
        timeoutDuration = timeout
        self.timeout = Self.amount(timeout)
        core = NIOLoopBound.makeCompleted(nodes: nodes, loop: loop)
    }

    /// Ends all connections. Operations under way fail.
    public func close() async {
        let core = core
        try? await loop.submit { core.value.close() }.get()
    }

    // MARK: operations

    /// Writes a whole file, and makes the directories above it. Answers with its new revision.
    public func put(
        _ path: some PathBytes, _ content: [UInt8], mode: UInt16 = 0o644, modificationTime: Int64? = nil,
        if condition: WriteCondition = .always
    ) async throws -> UInt64 {
        let put = Put(
            path: try Self.path(path), content: ByteBuffer(bytes: content), mode: mode, mtime: modificationTime,
            condition: condition.encoded)
        guard content.count <= Self.contentBytesMax else { throw BanyanError.contentTooLarge }
        return try await write { put.write(to: &$0) }
    }

    /// Reads a whole file.
    public func get(
        _ path: some PathBytes, _ consistency: Consistency = .linearizable
    ) async throws -> (content: [UInt8], info: FileInfo) {
        try await get(path, consistency, from: nil)
    }

    /// - Parameter member: the address of the one that is to answer; nil: whoever is best.
    package func get(
        _ path: some PathBytes, _ consistency: Consistency, from member: String?
    ) async throws -> (content: [UInt8], info: FileInfo) {
        var answer = try await read(.get(try Self.path(path)), consistency, from: member)
        guard let info = answer.readMetadata() else { throw Self.malformed }
        return (Array(answer.readableBytesView), FileInfo(info))
    }

    public func stat(_ path: some PathBytes, _ consistency: Consistency = .linearizable) async throws -> FileInfo {
        var answer = try await read(.stat(try Self.path(path)), consistency)
        guard let info = answer.readMetadata() else { throw Self.malformed }
        return FileInfo(info)
    }

    /// One page of a directory in the order of the names' bytes, from behind the name `after` on.
    ///
    /// A name that no entry may bear, or that is out of order, is no answer: whoever walks a tree by its names, or makes
    /// files of them, would be led astray.
    public func list(
        _ path: some PathBytes, after: some PathBytes = "", limit: Int = 1000,
        _ consistency: Consistency = .linearizable
    ) async throws -> (entries: [DirectoryEntry], hasMore: Bool) {
        var last = after.pathBytes
        guard last.count <= TreePath.nameBytesMax else { throw BanyanError.nameTooLong }
        var answer = try await read(
            .list(try Self.path(path), after: last, limit: UInt32(clamping: limit)), consistency)
        guard let (more, count) = answer.readMultipleIntegers(as: (UInt8, UInt32).self) else { throw Self.malformed }
        var entries: [DirectoryEntry] = []
        for _ in 0..<count {
            guard let length = answer.readInteger(as: UInt8.self), let name = answer.readBytes(length: Int(length)),
                let info = answer.readMetadata(), TreePath.isName(name), last.lexicographicallyPrecedes(name)
            else { throw Self.malformed }
            entries.append(DirectoryEntry(nameBytes: name, info: FileInfo(info)))
            last = name
        }
        guard more == 0 || !entries.isEmpty else { throw Self.malformed }
        return (entries, more != 0)
    }

    public func makeDirectory(
        _ path: some PathBytes, mode: UInt16 = 0o755, withParents: Bool = false
    ) async throws -> UInt64 {
        let command = MakeDirectory(path: try Self.path(path), mode: mode, makesParents: withParents)
        return try await write { command.write(to: &$0) }
    }

    /// Removes a file or a directory; `recursive` takes all below it along.
    public func remove(
        _ path: some PathBytes, recursive: Bool = false, if condition: WriteCondition = .always
    ) async throws -> UInt64 {
        let command = Delete(path: try Self.path(path), isRecursive: recursive, condition: condition.encoded)
        return try await write { command.write(to: &$0) }
    }

    /// Moves a file or a directory with all below it. A file takes the place of a file.
    public func move(
        _ source: some PathBytes, to destination: some PathBytes, if condition: WriteCondition = .always
    ) async throws -> UInt64 {
        let command = Rename(
            source: try Self.path(source), destination: try Self.path(destination), condition: condition.encoded)
        return try await write { command.write(to: &$0) }
    }

    /// A modification time that is set.
    public enum ModificationTime: Equatable, Sendable {
        /// Nanoseconds since 1970.
        case at(Int64)
        /// When the cluster's leader takes it up.
        case now
    }

    /// Sets an entry's mode, its modification time, or both, without its content; what is nil stays. What is so already is no
    /// change. Of a file the permissions of `mode` count, of a directory its twelve lowest bits.
    ///
    /// - Returns: the entry's revision.
    public func setAttributes(
        _ path: some PathBytes, mode: UInt16? = nil, modificationTime: ModificationTime? = nil,
        if condition: WriteCondition = .always
    ) async throws -> UInt64 {
        guard mode != nil || modificationTime != nil else { return try await stat(path).revision }
        let time: SetAttributes.Time? =
            switch modificationTime {
            case nil: nil
            case .at(let time): .at(time)
            case .now: .now
            }
        let command = SetAttributes(
            path: try Self.path(path), mode: mode, mtime: time, condition: condition.encoded)
        return try await write { command.write(to: &$0) }
    }

    /// Asks each member of the cluster what it believes, all at once. Members that don't answer within a second (or the
    /// timeout, if that is shorter) are reported as unreachable, and those that the leader does not know as removed. While none
    /// answers, all are asked again until the timeout.
    public func status() async throws -> [MemberReport] {
        let end = ContinuousClock.now + timeoutDuration
        while true {
            do { return try await status(within: min(.seconds(1), max(.milliseconds(100), end - .now))) } catch let
                error
                as BanyanError
            {
                guard case .unreachable = error, ContinuousClock.now + Self.statusPause < end else { throw error }
                try await Task.sleep(for: Self.statusPause)
            }
        }
    }

    private static let statusPause = Duration.milliseconds(200)

    /// - Parameter limit: how long those may take that are asked at once.
    package func status(within limit: Duration) async throws -> [MemberReport] {
        let limit = min(limit, timeoutDuration)
        var reasons: [String] = []
        var unknownHosts = 0
        var asked: Set<String> = []
        var reports: [UInt64: MemberReport] = [:]
        /// Whom the leader of the highest term knows.
        var known: (term: UInt64, ids: Set<UInt64>)?
        var toAsk = Set(nodes)
        var isReached = false
        while !toAsk.isEmpty {
            asked.formUnion(toAsk)
            let answers = await withTaskGroup(of: (String, Result<MemberStatus, BanyanError>).self) { group in
                for address in toAsk { group.addTask { (address, await self.status(of: address, within: limit)) } }
                return await group.reduce(into: []) { $0.append($1) }
            }
            toAsk = []
            for (address, answer) in answers {
                let status: MemberStatus
                switch answer {
                case .success(let answered): status = answered
                case .failure(.differentClusters(let addresses)): throw BanyanError.differentClusters(addresses)
                case .failure(.memberUnreachable(let reason)):
                    reasons.append(reason.hasPrefix("the member at ") ? String(reason.dropFirst(14)) : reason)
                    continue
                case .failure(.noSuchHost(let reason)):
                    unknownHosts += 1
                    reasons.append(reason)
                    continue
                case .failure(let error):
                    reasons.append("\(error)")
                    continue
                }
                isReached = true
                reports[status.id] = MemberReport(status, address: address)
                let members = status.members.split(separator: ",").compactMap {
                    part -> (id: UInt64, address: String)? in
                    let sides = part.split(separator: "=", maxSplits: 1)
                    guard sides.count == 2, let id = UInt64(sides[0]) else { return nil }
                    return (id, String(sides[1]))
                }
                for (id, address) in members {
                    if reports[id] == nil { reports[id] = MemberReport(unreachable: id, address: address) }
                    toAsk.insert(address)
                }
                if status.role == .leader, status.term > known?.term ?? 0 {
                    known = (status.term, Set(members.map(\.id)))
                }
            }
            toAsk.subtract(asked)
        }
        guard isReached else {
            let reasons = reasons.sorted().joined(separator: "; ")
            throw unknownHosts == nodes.count ? BanyanError.noSuchHost(reasons) : .unreachable(reasons)
        }
        if let known {
            for (id, report) in reports where !known.ids.contains(id) {
                if !report.isRunning {
                    reports[id] = report.role == "starting" ? report : nil
                } else {
                    reports[id] = report.removed
                }
            }
        }
        return reports.values.sorted { $0.id < $1.id }
    }

    private func status(of address: String, within limit: Duration) async -> Result<MemberStatus, BanyanError> {
        let promise = loop.makePromise(of: Result<Frame, BanyanError>.self)
        perform(.status, ByteBuffer(), to: address, within: Self.amount(limit)) { promise.succeed($0) }
        guard let answer = try? await promise.futureResult.get() else { return .failure(Self.malformed) }
        return answer.flatMap { frame in
            (try? MemberStatus(frame)).map { .success($0) } ?? .failure(Self.malformed)
        }
    }

    /// Makes another member lead, without the gap of an election: the one with this id, or whoever is best.
    public func transferLeadership(to id: UInt64? = nil) async throws {
        var answer = try await send(.transferLeadership, ByteBuffer(integer: id ?? 0)).body
        guard let code = answer.readInteger(as: UInt16.self) else { throw Self.malformed }
        if code != 0 { throw BanyanError.noSuchMember }
    }

    // MARK: requests

    private func write(_ encode: (inout ByteBuffer) -> Void) async throws -> UInt64 {
        var body = ByteBuffer()
        encode(&body)
        var answer = try await send(.write, body).body
        switch Outcome(from: &answer) {
        case .done(let revision): return revision
        case .failed(let error, let revision): throw BanyanError(error, revision: revision)
        case nil: throw Self.malformed
        }
    }

    private func read(
        _ query: Query, _ consistency: Consistency, from member: String? = nil
    ) async throws -> ByteBuffer {
        var body = ByteBuffer()
        let kind = consistency.begin(&body)
        query.write(to: &body)
        var answer = try await send(kind, body, to: member).body
        guard let code = answer.readInteger(as: UInt16.self) else { throw Self.malformed }
        if code == 0 { return answer }
        guard let error = TreeError(rawValue: code) else { throw Self.malformed }
        throw BanyanError(error, revision: 0)
    }

    func makePromise<Value>(of type: Value.Type) -> EventLoopPromise<Value> { loop.makePromise(of: type) }

    func send(
        _ kind: Frame.Kind, _ body: ByteBuffer, to address: String? = nil, within limit: Duration? = nil
    ) async throws -> Frame {
        let promise = loop.makePromise(of: Frame.self)
        perform(kind, body, to: address, within: limit.map(Self.amount)) {
            promise.completeWith($0.mapError { $0 as any Error })
        }
        return try await promise.futureResult.get()
    }

    /// Sends one request without a task of its own; `completion` is called on the client's loop.
    package func perform(
        _ kind: Frame.Kind, _ body: ByteBuffer, to address: String? = nil, within limit: TimeAmount? = nil,
        completion: @escaping @Sendable (Result<Frame, BanyanError>) -> Void
    ) {
        let (core, deadline) = (core, NIODeadline.now() + (limit ?? timeout))
        let request = { @Sendable () -> ClientCore.Request in
            ClientCore.Request(kind: kind, body: body, deadline: deadline, completion: completion, address: address)
        }
        // Who is there already takes no detour through the loop's tasks.
        if loop.inEventLoop { core.value.send(request()) } else { loop.execute { core.value.send(request()) } }
    }

    static func amount(_ duration: Duration) -> TimeAmount {
        let (seconds, attoseconds) = duration.components
        return .nanoseconds(seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
    }

    /// Sends a request to one member that may take long, and is given up when the member shows no progress with anything for
    /// `patience`: its answer, or work under way that goes on.
    func perform(
        _ kind: Frame.Kind, _ body: ByteBuffer, to address: String, patience: Duration,
        completion: @escaping @Sendable (Result<Frame, BanyanError>) -> Void
    ) {
        let (core, patience) = (core, Self.amount(patience))
        loop.execute {
            let request = ClientCore.Request(
                kind: kind, body: body, deadline: .now() + patience, completion: completion, address: address)
            request.patience = patience
            core.value.send(request)
            core.value.watch(request)
        }
    }

    private static let malformed = BanyanError.protocolViolation("an answer can't be read")

    private static func path(_ path: some PathBytes) throws -> TreePath {
        do { return try TreePath(bytes: path.pathBytes) } catch { throw BanyanError(error, revision: 0) }
    }
}

extension NIOLoopBound where Value == ClientCore {
    /// A core bound to its loop, made from any thread: it holds nothing before the loop uses it.
    fileprivate static func makeCompleted(nodes: [String], loop: any EventLoop) -> NIOLoopBound<ClientCore> {
        if loop.inEventLoop { return NIOLoopBound(ClientCore(nodes: nodes, loop: loop), eventLoop: loop) }
        let made = loop.submit { NIOLoopBound(ClientCore(nodes: nodes, loop: loop), eventLoop: loop) }
        do { return try made.wait() } catch { preconditionFailure("making a client's core throws nothing") }
    }
}

extension Consistency {
    /// Writes what stands before the query, and answers with the kind of the frame.
    package func begin(_ body: inout ByteBuffer) -> Frame.Kind {
        switch self {
        case .linearizable: return .read
        case .lease: return .leaseRead
        case .stale(let age):
            let milliseconds = age.map { max(1, UInt32(clamping: Int64($0 / .milliseconds(1)))) }
            body.writeInteger(milliseconds ?? 0)
            return .staleRead
        }
    }
}

extension WriteCondition {
    var encoded: Condition {
        switch self {
        case .always: .always
        case .absent: .absent
        case .revision(let revision): .revision(revision)
        }
    }
}

extension FileInfo {
    init(_ metadata: Metadata) {
        self.init(
            kind: metadata.kind == .file ? .file : .directory, size: metadata.size, mode: metadata.mode,
            modificationTime: metadata.mtime, revision: metadata.revision)
    }
}

extension BanyanError {
    package init(_ error: TreeError, revision: UInt64 = 0) {
        self =
            switch error {
            case .malformed: .protocolViolation("the cluster can't read the request")
            case .invalidPath: .invalidPath
            case .nameTooLong: .nameTooLong
            case .notFound: .notFound
            case .notDirectory: .notDirectory
            case .isDirectory: .isDirectory
            case .alreadyExists: .alreadyExists
            case .directoryNotEmpty: .directoryNotEmpty
            case .contentTooLarge: .contentTooLarge
            case .invalidMove: .invalidMove
            case .conditionFailed: .conditionFailed(currentRevision: revision)
            case .unsupported: .unsupported
            // What a session's own client never brings about.
            case .sessionEnded, .alreadyAnswered, .sequenceReused, .tooManyUnanswered:
                .protocolViolation("the session does not fit: \(error)")
            }
    }
}

extension MemberReport {
    init(_ status: MemberStatus, address: String) {
        let digits = String(status.digest, radix: 16)
        self.init(
            id: status.id, address: address, role: status.startingReason == nil ? "\(status.role)" : "starting",
            term: status.term, commitIndex: status.commit,
            appliedIndex: status.applied, digest: String(repeating: "0", count: 32 - digits.count) + digits,
            statistics: Dictionary(status.statistics.map { ($0.name, $0.value) }) { $1 },
            workUnderWay: status.workUnderWay.map {
                WorkReport(description: $0.description, bytesDone: $0.bytesDone, bytes: $0.bytes > 0 ? $0.bytes : nil)
            })
    }

    /// The member as one that the leader knows no more.
    var removed: MemberReport {
        MemberReport(
            id: id, address: address, role: "removed", term: term, commitIndex: commitIndex, appliedIndex: appliedIndex,
            digest: digest, statistics: statistics, workUnderWay: workUnderWay)
    }

    init(unreachable id: UInt64, address: String) {
        self.init(
            id: id, address: address, role: "unreachable", term: 0, commitIndex: 0, appliedIndex: 0, digest: "",
            statistics: [:], workUnderWay: [])
    }
}
