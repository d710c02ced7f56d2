import CrashPoints
import FileTree
import Glibc
import LMDB
import NIOCore
import Raft
import RaftLog
import Threads
import WireProtocol

/// The thread that writes the state anew beside the one in use: every row once, in the order of the keys, so that the new
/// file has no page that holds nothing. LMDB gives freed pages to later writes and never back to the disk.
package final class RewriteThread: Sendable {
    private enum Job: Sendable {
        case copy(StateEnvironment, number: UInt64, rate: Int?, @Sendable (Result<Applied, StateError>) -> Void)
        case catchUp(number: UInt64, through: Index, @Sendable (Result<Applied, StateError>) -> Void)
    }

    private let thread: OwnedThread<Job>
    private let loop: any EventLoop
    private let progress = WorkProgress()

    init(log: LogStore, directory: String, reserve: UInt64, knownVersion: UInt16, loop: any EventLoop) {
        self.loop = loop
        let progress = progress
        thread = OwnedThread(name: "rewrite") {
            (
                handle: { jobs in
                    for job in jobs {
                        switch job {
                        case .copy(let environment, let number, let rate, let done):
                            done(
                                Self.result { () throws(StateError) in
                                    var pace = Pace(rate: rate, progress)
                                    return try Self.copy(
                                        environment, to: DataDirectory.statePath(in: directory, number),
                                        reserve: reserve
                                    ) { bytes throws(StateError) in
                                        pace.passed(bytes)
                                        if pace.isStopped { throw .store(ECANCELED) }
                                    }
                                })
                        case .catchUp(let number, let index, let done):
                            done(
                                Self.result { () throws(StateError) in
                                    try Self.catchUp(
                                        DataDirectory.statePath(in: directory, number), through: index, log,
                                        knownVersion)
                                })
                        }
                    }
                }, finish: {}
            )
        }
    }

    /// Copies the last commit of `environment` into the new directory of the state `number`, and answers on the loop's thread
    /// with what was applied in it. Every row is checked on the way, and the digest at the end.
    func copy(
        _ environment: StateEnvironment, to number: UInt64, rate: Int?,
        done: @escaping @Sendable (Result<Applied, StateError>) -> Void
    ) {
        let loop = loop
        thread.send(.copy(environment, number: number, rate: rate) { result in loop.execute { done(result) } })
    }

    /// Executes in the copy what the log has behind it, up to `index`, makes that durable, and closes the copy.
    func catchUp(
        _ number: UInt64, through index: Index, done: @escaping @Sendable (Result<Applied, StateError>) -> Void
    ) {
        let loop = loop
        thread.send(.catchUp(number: number, through: index) { result in loop.execute { done(result) } })
    }

    /// Bytes that the copying under way has written.
    var bytes: UInt64 { progress.bytes }

    /// What is under way is given up.
    func close() {
        progress.stop()
        thread.close()
    }

    private static func result(_ work: () throws(StateError) -> Applied) -> Result<Applied, StateError> {
        do throws(StateError) { return .success(try work()) } catch { return .failure(error) }
    }

    /// Copies the last commit of `environment` into the new directory `path`, durably, and answers with what was applied in it.
    ///
    /// - Parameter passed: called with the bytes of each row.
    package static func copy(
        _ environment: StateEnvironment, to path: String, reserve: UInt64,
        passed: (Int) throws(StateError) -> Void = { _ in }
    ) throws(StateError) -> Applied {
        do { try DataDirectory.makeDirectory(path) } catch { throw .store(errno) }
        let view = try StateView(environment)
        let copy = try StateImport(path: path, reserve: reserve)
        var audit = StateAudit()
        try view.forEach { key, row throws(StateError) in
            try audit.add(key: key, row: row)
            try copy.add(key: key, row: row)
            try passed(key.byteCount + row.byteCount)
        }
        let applied = try audit.finish()
        try copy.finish()
        CrashPoint.rewriteBeforeSync.reach()
        // The log must never name a state whose directory a power cut may take away.
        do { try DataDirectory.sync(path + "/..") } catch { throw .store(errno) }
        return applied
    }

    /// Executes in the state in `path` what the log has behind it, up to `index`, and makes that durable.
    static func catchUp(
        _ path: String, through index: Index, _ log: LogStore, _ knownVersion: UInt16
    ) throws(StateError) -> Applied {
        let tree = try DurableTree(path: path, knownVersion: knownVersion)
        try tree.replay(through: index, from: log) { () throws(StateError) in _ = try tree.keepUp(now: Clock.now) }
        try tree.commit()
        CrashPoint.rewriteCopied.reach()
        return tree.applied
    }
}

extension DurableTree {
    /// Executes what the log has behind the applied index, through `index`. Nobody gets the answers.
    ///
    /// - Parameter executed: called after each command.
    func replay(
        through index: Index, from log: LogStore, executed: () throws(StateError) -> Void
    ) throws(StateError) {
        guard applied.index < index else { return }
        var failure: StateError?
        do throws(LogError) {
            try log.scan(from: applied.index + 1, through: index) { entry, _ in
                guard entry.header.index <= index else { return false }
                var discarded = ByteBuffer()
                do throws(StateError) {
                    try apply(
                        index: entry.header.index, term: entry.header.term, kind: entry.header.kind,
                        payload: entry.payload, answer: &discarded)
                    try executed()
                } catch {
                    failure = error
                    return false
                }
                return true
            }
        } catch {
            switch error {
            case .corruptEntry(let index): throw .damagedEntry(index)
            case .store(let code) where LMDBError(code: code).isDamage: throw .damagedEntry(applied.index + 1)
            case .store(let code): throw .store(code)
            case .unreadableHardState, .unknownFormat: throw .unknownFormat
            }
        }
        if let failure { throw failure }
    }
}
