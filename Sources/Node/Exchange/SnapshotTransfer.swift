import FileTree
import NIOCore
import Raft
import Snapshots
import Transport
import WireProtocol

/// A snapshot on its way to one peer, on a connection of its own. Some pieces are under way at once, no more in a second
/// than is allowed. A peer that has some of it from an earlier connection says so, and gets the rest.
///
/// On the loop's thread.
final class SnapshotTransfer {
    /// Unanswered pieces, of about 1 MiB each at most.
    private static let piecesInFlightMax: UInt32 = 4

    /// A peer that answers no piece for so long is given up.
    private static let silenceMax = TimeAmount.seconds(8)

    let peer: PeerID
    /// The last entry that the snapshot covers; nil before there is one.
    var index: Index? { spool?.header.metadata.index }
    /// Bytes sent so far.
    private(set) var bytes = 0
    /// Why it broke off, if the reason is not the connection's end.
    private(set) var failure: String?
    private(set) var spool: Spool?
    /// The first piece that was sent to a peer which had those before it; 0 when there was none.
    private(set) var resumedAt: UInt32 = 0
    private let from: PeerID
    private let term: Term
    private let loop: any EventLoop
    private let reader: ReaderThread
    /// Bytes a second.
    private let rate: Int
    private let ended: (SnapshotTransfer, _ isInstalled: Bool) -> Void
    private var link: PeerLink?
    private var connection: FrameConnection?
    /// The next piece to send, and the next that the peer is to answer. The header is answered before anything follows.
    private var next: UInt32 = 0
    private var unanswered: UInt32 = 0
    private var isReading = false
    private var isAtEnd = false
    private var isOver = false
    private var mayLeaveAt = NIODeadline.now()
    private var silence: Scheduled<Void>?

    /// - Parameter ended: called once, when the peer confirmed the last piece or the transfer broke off.
    init(
        from: PeerID, to peer: PeerID, term: Term, rate: Int, reader: ReaderThread, loop: any EventLoop,
        ended: @escaping (SnapshotTransfer, _ isInstalled: Bool) -> Void
    ) {
        self.from = from
        self.peer = peer
        self.term = term
        self.rate = rate
        self.reader = reader
        self.loop = loop
        self.ended = ended
    }

    /// Sends `spool` to the peer at `address`.
    func start(_ spool: Spool, to address: Address, hello: @escaping () -> Hello) {
        guard !isOver else { return }
        self.spool = spool
        let link = PeerLink(
            to: address, on: loop, hello: hello,
            onWelcome: { [weak self] _, connection, _ in
                self?.connection = connection
                self?.sendMore()
                return self != nil
            },
            onBreak: { [weak self] _, goodbye, _ in self?.end(isInstalled: false, failure: goodbye?.reason) },
            onFrame: { [weak self] _, _, frame in self?.received(frame) })
        self.link = link
        link.start()
        expectAnswer()
    }

    private func sendMore() {
        guard let spool, !isOver, !isReading, !isAtEnd, next - unanswered < Self.piecesInFlightMax,
            next == 0 || unanswered > 0
        else { return }
        isReading = true
        let this = NIOLoopBound(self, eventLoop: loop)
        let (number, loop) = (next, loop)
        loop.scheduleTask(deadline: max(mayLeaveAt, .now())) {
            spool.whenAvailable(number) {
                loop.execute {
                    guard !this.value.isOver else { return }
                    this.value.reader.piece(number, of: spool) { result in this.value.send(result) }
                }
            }
        }
    }

    private func send(_ piece: Result<ReaderThread.Piece, SnapshotError>) {
        isReading = false
        guard !isOver else { return }
        switch piece {
        case .failure(let error): end(isInstalled: false, failure: "\(error)")
        case .success(let piece):
            let count = piece.bytes.readableBytes
            let frame = SnapshotPiece(
                from: from, to: peer, term: term, number: next, isLast: piece.isLast, mayResume: next == 0,
                bytes: piece.bytes)
            next += 1
            bytes += count
            isAtEnd = piece.isLast
            mayLeaveAt = max(mayLeaveAt, .now()) + .nanoseconds(Int64(count) * 1_000_000_000 / Int64(max(1, rate)))
            connection?.write { frame.write(to: &$0) }
            connection?.flush()
            sendMore()
        }
    }

    private func received(_ frame: Frame) {
        guard let receipt = try? SnapshotReceipt(frame) else {
            return end(isInstalled: false, failure: "an answer can't be read")
        }
        expectAnswer()
        // A peer answers what was sent, once and in order; only to the header it may say that it has more.
        let isResumed = receipt.outcome == .resumed && unanswered == 0
        guard isResumed || (receipt.number == unanswered && receipt.number < next) else {
            return end(isInstalled: false, failure: "an answer to piece \(receipt.number) came out of order")
        }
        switch receipt.outcome {
        case .taken:
            unanswered += 1
            sendMore()
        case .resumed where isResumed && receipt.number < .max - Self.piecesInFlightMax:
            unanswered = receipt.number + 1
            next = unanswered
            resumedAt = next
            sendMore()
        case .complete: end(isInstalled: true)
        case .refused, .resumed: end(isInstalled: false, failure: "the peer refused piece \(receipt.number)")
        }
    }

    private func expectAnswer() {
        silence?.cancel()
        let this = NIOLoopBound(self, eventLoop: loop)
        silence = loop.scheduleTask(in: Self.silenceMax) {
            let transfer = this.value
            // With nothing unanswered it is this side that is slow.
            if transfer.connection != nil, transfer.next == transfer.unanswered {
                transfer.expectAnswer()
            } else {
                transfer.end(isInstalled: false, failure: "the peer does not answer")
            }
        }
    }

    func end(isInstalled: Bool, failure: String? = nil) {
        guard !isOver else { return }
        isOver = true
        self.failure = failure
        silence?.cancel()
        link?.stop()
        link = nil
        ended(self, isInstalled)
    }
}
