import NIOCore

/// What a member found when it read everything that it keeps: the answer to `verify`, behind a result code of zero (2).
///
///     0   8  index of the state that was read   8  16  the digest that it carries   24  8  rows   32  8  their bytes
///     40  8  first and 48  8  last entry of the log that were read   56  8  the damaged entry, 0 for none
///     64  8  milliseconds that it took
///     72  .  what is damaged, in words; empty if nothing (length 2, bytes)
package struct Verification: Equatable, Sendable {
    package var index: UInt64 = 0
    package var digest: UInt128 = 0
    package var rows: UInt64 = 0
    package var bytes: UInt64 = 0
    package var firstEntry: UInt64 = 0
    package var lastEntry: UInt64 = 0
    package var damagedEntry: UInt64 = 0
    package var milliseconds: UInt64 = 0
    package var damage = ""

    package init() {}

    package func write(to buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(index, digest, rows, bytes, firstEntry, lastEntry, damagedEntry, milliseconds)
        buffer.writeText(damage)
    }

    package init?(from buffer: inout ByteBuffer) {
        guard
            let (index, digest, rows, bytes, first, last, damaged, milliseconds) = buffer.readMultipleIntegers(
                as: (UInt64, UInt128, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64).self),
            let damage = buffer.readText()
        else { return nil }
        self.index = index
        self.digest = digest
        self.rows = rows
        self.bytes = bytes
        firstEntry = first
        lastEntry = last
        damagedEntry = damaged
        self.milliseconds = milliseconds
        self.damage = damage
    }
}
