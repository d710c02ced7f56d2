import FileTree
import NIOCore
import Raft
import Snapshots
import Transport
import WireProtocol

/// A snapshot on its way to one peer: spooled to a file, then sent on a connection of its own. Some pieces are under way
/// at once; each is read by the reader's thread when the one so many before it was taken.
///
/// On the loop's thread.
final class SnapshotTransfer {
    /// Unanswered pieces, of about 1 MiB each at most.
    private static let piecesInFlightMax: UInt32 = 4

    /// A peer that answers no piece for so long is given up.
    private static let silenceMax = TimeAmount.seconds(20)

    let peer: PeerID
    /// What the snapshot covers at the least: the log must keep what follows.
    let floor: Index
    /// The last entry that the snapshot covers; nil before it is spooled.
    private(set) var index: Index?
    /// Bytes sent so far.
    private(set) var bytes = 0
    /// Why it broke off, if the reason is not the connection's end.
    private(set) var failure: String?
    private let id: UInt64
    private let from: PeerID
    private let term: Term
    private let loop: any EventLoop
    private let reader: ReaderThread
    private let ended: (SnapshotTransfer, _ isInstalled: Bool) -> Void
    private var link: PeerLink?
    private var connection: FrameConnection?
    private var sent: UInt32 = 0
    private var answered: UInt32 = 0
    private var isReading = false
    private var isAtEnd = false
    private var isOver = false
    private var silence: Scheduled<Void>?

    /// - Parameters:
    ///   - id: of this transfer alone, for the reader.
    ///   - ended: called once, when the peer confirmed the last piece or the transfer broke off.
    init(
        id: UInt64, from: PeerID, to peer: PeerID, term: Term, floor: Index, reader: ReaderThread, loop: any EventLoop,
        ended: @escaping (SnapshotTransfer, _ isInstalled: Bool) -> Void
    ) {
        self.id = id
        self.from = from
        self.peer = peer
        self.term = term
        self.floor = floor
        self.reader = reader
        self.loop = loop
        self.ended = ended
    }

    /// Spools the last commit of `environment` and sends it to the peer at `address`.
    func start(_ environment: StateEnvironment, to address: Address, hello: @escaping () -> Hello) {
        link = PeerLink(
            to: address, on: loop, hello: hello,
            onWelcome: { [weak self] _, connection, _ in
                self?.connection = connection
                self?.sendMore()
                return self != nil
            },
            onBreak: { [weak self] _, goodbye, _ in self?.end(isInstalled: false, failure: goodbye?.reason) },
            onFrame: { [weak self] _, _, frame in self?.received(frame) })
        let this = NIOLoopBound(self, eventLoop: loop)
        reader.spool(environment, for: id) { result in
            let transfer = this.value
            guard !transfer.isOver else { return transfer.reader.endTransfer(transfer.id) }
            switch result {
            case .success(let header):
                transfer.index = header.metadata.index
                transfer.link?.start()
                transfer.expectAnswer()
            case .failure(let error): transfer.end(isInstalled: false, failure: "\(error)")
            }
        }
    }

    private func sendMore() {
        guard !isOver, !isReading, !isAtEnd, sent - answered < Self.piecesInFlightMax else { return }
        isReading = true
        let this = NIOLoopBound(self, eventLoop: loop)
        reader.piece(of: id) { result in this.value.send(result) }
    }

    private func send(_ next: Result<(bytes: ByteBuffer, isLast: Bool), SnapshotError>) {
        isReading = false
        guard !isOver else { return }
        switch next {
        case .failure(let error): end(isInstalled: false, failure: "\(error)")
        case .success(let next):
            let piece = SnapshotPiece(
                from: from, to: peer, term: term, number: sent, isLast: next.isLast, bytes: next.bytes)
            sent += 1
            bytes += next.bytes.readableBytes
            isAtEnd = next.isLast
            connection?.write { piece.write(to: &$0) }
            connection?.flush()
            sendMore()
        }
    }

    private func received(_ frame: Frame) {
        guard let receipt = try? SnapshotReceipt(frame) else {
            return end(isInstalled: false, failure: "an answer can't be read")
        }
        // A peer answers what was sent, once and in order.
        guard receipt.number == answered, receipt.number < sent else {
            return end(isInstalled: false, failure: "an answer to piece \(receipt.number) came out of order")
        }
        expectAnswer()
        switch receipt.outcome {
        case .taken:
            answered += 1
            sendMore()
        case .complete: end(isInstalled: true)
        case .refused: end(isInstalled: false, failure: "the peer refused piece \(receipt.number)")
        }
    }

    private func expectAnswer() {
        silence?.cancel()
        let this = NIOLoopBound(self, eventLoop: loop)
        silence = loop.scheduleTask(in: Self.silenceMax) {
            let transfer = this.value
            // With nothing unanswered it is this side that is slow: its reader may be spooling for another peer.
            if transfer.connection != nil, transfer.sent == transfer.answered {
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
        reader.endTransfer(id)
        ended(self, isInstalled)
    }
}
