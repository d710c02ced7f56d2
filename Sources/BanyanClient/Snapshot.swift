import NIOCore
import WireProtocol

extension BanyanClient {
    /// How long a member may take to begin a snapshot, and to make each of its pieces.
    private static let pieceTimeout = TimeAmount.seconds(60)

    /// Takes a snapshot of the member at `address`: of everything that was acknowledged before the call, and perhaps more.
    ///
    /// - Parameter receive: called with each piece in order; the pieces one after the other are a snapshot file.
    package func snapshot(of address: String, _ receive: (ByteBuffer) throws -> Void) async throws {
        _ = try await ask(.openSnapshot, ByteBuffer(), address)
        var next = piece(0, address)
        var number: UInt32 = 0
        while true {
            var answer = try await next.get()
            // The next one is on its way while this one is looked at.
            number += 1
            guard let isLast = answer.readInteger(as: UInt8.self) else { throw Self.malformedPiece }
            if isLast == 0 { next = piece(number, address) }
            try receive(answer)
            if isLast != 0 { return }
        }
    }

    private static let malformedPiece = BanyanError.protocolViolation("a piece of a snapshot can't be read")

    private func piece(_ number: UInt32, _ address: String) -> EventLoopFuture<ByteBuffer> {
        request(.readSnapshot, ByteBuffer(integer: number), address)
    }

    private func ask(_ kind: Frame.Kind, _ body: ByteBuffer, _ address: String) async throws -> ByteBuffer {
        try await request(kind, body, address).get()
    }

    /// A request to one member, whose answer begins with a result code.
    private func request(_ kind: Frame.Kind, _ body: ByteBuffer, _ address: String) -> EventLoopFuture<ByteBuffer> {
        let promise = makePromise(of: Frame.self)
        perform(kind, body, to: address, within: Self.pieceTimeout) {
            promise.completeWith($0.mapError { $0 as any Error })
        }
        return promise.futureResult.flatMapThrowing { frame in
            var body = frame.body
            guard body.readInteger(as: UInt16.self) == 0 else { throw Self.malformedPiece }
            return body
        }
    }
}
