import NIOCore

/// What became of a state that was written anew: the answer to `rewriteState`, behind a result code of zero (2).
///
///     0   8  bytes of the state's file before   8  8  bytes after   16  8  milliseconds that it took
///     24  .  why the old one is still in use, in words; empty if it is not (length 2, bytes)
package struct StateRewrite: Equatable, Sendable {
    package var bytesBefore: UInt64
    package var bytesAfter: UInt64
    package var milliseconds: UInt64
    package var failure: String

    package init(bytesBefore: UInt64, bytesAfter: UInt64, milliseconds: UInt64, failure: String = "") {
        self.bytesBefore = bytesBefore
        self.bytesAfter = bytesAfter
        self.milliseconds = milliseconds
        self.failure = failure
    }

    package func write(to buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(bytesBefore, bytesAfter, milliseconds)
        buffer.writeText(failure)
    }

    package init?(from buffer: inout ByteBuffer) {
        guard
            let (before, after, milliseconds) = buffer.readMultipleIntegers(as: (UInt64, UInt64, UInt64).self),
            let failure = buffer.readText()
        else { return nil }
        self.init(bytesBefore: before, bytesAfter: after, milliseconds: milliseconds, failure: failure)
    }
}
