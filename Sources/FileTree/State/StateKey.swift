import Deflate

/// The keys of the replicated state. All integers are big-endian, so that the order of bytes is the order of numbers.
///
///     01 'a'                   what was applied: index, term, digest, clocks, counters (see `Applied`)
///     01 'c'                   the configuration at that index, as its entry encoded it
///     02 inode(8) name         a directory's entry: metadata (40), then the content (inline) or its chunks' SHA-256s
///     03 sha256(32)            a chunk's bytes
///     04 sha256(32)            how many files name that chunk (8)
///     05 inode(8)              an unlinked directory whose entries wait to be reclaimed: revision of the delete (8)
///     06 session(8)            a client's session and the answers that it may ask for again (see `Sessions`)
///     07 log time(8) id(16)    a write of no session, and its answer (see `OneTimeWrites`)
///
/// Every value ends in the CRC32 of its key and of what stands before the checksum. The digest covers the tables 02 to
/// 05 by their rows (of table 03 the keys alone: they are hashes of the values), and 06 and 07 by what the rows say, except
/// for the lowest sequence. Every table is part of a snapshot.
package enum StateKey {
    enum Table: UInt8 {
        case meta = 1
        case entries = 2
        case chunks = 3
        case references = 4
        case orphans = 5
        case sessions = 6
        case oneTimeWrites = 7
    }

    static let applied: [UInt8] = [Table.meta.rawValue, UInt8(ascii: "a")]
    static let configuration: [UInt8] = [Table.meta.rawValue, UInt8(ascii: "c")]

    static func entry(in parent: UInt64, _ name: ArraySlice<UInt8>) -> [UInt8] {
        [UInt8](byteCount: 9 + name.count) { key in
            key[0] = Table.entries.rawValue
            key.storeBigEndian(parent, at: 1)
            UnsafeMutableRawBufferPointer(rebasing: key[9...]).copyBytes(from: name)
        }
    }

    static func chunk(_ hash: ContentHash) -> [UInt8] { [Table.chunks.rawValue] + hash.bytes }
    static func references(_ hash: ContentHash) -> [UInt8] { [Table.references.rawValue] + hash.bytes }

    static func orphan(_ inode: UInt64) -> [UInt8] { key(.orphans, inode) }
    static func session(_ id: UInt64) -> [UInt8] { key(.sessions, id) }

    static func oneTimeWrite(_ name: OneTimeWrites.Name) -> [UInt8] {
        let (high, low) = (UInt64(truncatingIfNeeded: name.id >> 64), UInt64(truncatingIfNeeded: name.id))
        return [UInt8](byteCount: 25) { key in
            key[0] = Table.oneTimeWrites.rawValue
            key.storeBigEndian(name.until, at: 1)
            key.storeBigEndian(high, at: 9)
            key.storeBigEndian(low, at: 17)
        }
    }

    private static func key(_ table: Table, _ number: UInt64) -> [UInt8] {
        [table.rawValue] + (0..<8).map { UInt8(truncatingIfNeeded: number >> (56 - 8 * $0)) }
    }

    /// Whether `key` names an entry of `parent`.
    static func isEntry(_ key: RawSpan, of parent: UInt64) -> Bool { directory(of: key) == parent }

    /// The directory whose entry `key` names, if it names one.
    static func directory(of key: RawSpan) -> UInt64? {
        guard key.byteCount > 9, key.bigEndian(at: 0, as: UInt8.self) == Table.entries.rawValue else { return nil }
        return key.bigEndian(at: 1, as: UInt64.self)
    }
}

/// The end of every row: a CRC32 over the key and the value before it.
enum RowChecksum {
    static let byteCount = 4

    static func of(key: RawSpan, value: UnsafeRawBufferPointer) -> UInt32 {
        var checksum = CRC32()
        checksum.add(key)
        checksum.add(value)
        return checksum.value
    }

    /// Lets `fill` write all of the row but its end, and puts the checksum there.
    static func seal(
        _ row: UnsafeMutableRawBufferPointer, of key: [UInt8], _ fill: (UnsafeMutableRawBufferPointer) -> Void
    ) {
        let value = UnsafeMutableRawBufferPointer(rebasing: row[..<(row.count - byteCount)])
        fill(value)
        row.storeBigEndian(of(key: key.span.bytes, value: UnsafeRawBufferPointer(value)), at: value.count)
    }

    /// The row without its checksum.
    @_lifetime(copy row)
    static func verify(key: RawSpan, row: RawSpan) throws(StateError) -> RawSpan {
        guard key.byteCount > 0 else { throw .corruptRow(table: 0) }
        let table = key.bigEndian(at: 0, as: UInt8.self)
        guard row.byteCount >= byteCount else { throw .corruptRow(table: table) }
        let value = row.extracting(droppingLast: byteCount)
        let expected = row.bigEndian(at: row.byteCount - byteCount, as: UInt32.self)
        guard value.withUnsafeBytes({ of(key: key, value: $0) }) == expected else { throw .corruptRow(table: table) }
        return value
    }
}
