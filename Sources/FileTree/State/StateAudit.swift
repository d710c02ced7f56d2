import Crypto

/// Reads a whole state, row by row in the order of the keys, and finds whatever is wrong with it: a row whose checksum
/// fails, content that its SHA-256 does not name, and, by the digest, a row that is missing, too many or out of date.
package struct StateAudit {
    private var digest = StateDigest()
    private var applied: Applied?
    private var lastKey: [UInt8] = []
    /// How many rows were read, and their bytes with their keys.
    package private(set) var rows: UInt64 = 0
    package private(set) var bytes: UInt64 = 0

    package init() {}

    package mutating func add(key: RawSpan, row: RawSpan) throws(StateError) {
        guard key.byteCount > 0, lastKey.isEmpty || lastKey.order(to: key) < 0 else { throw .unknownFormat }
        let value = try RowChecksum.verify(key: key, row: row)
        switch StateKey.Table(rawValue: key.bigEndian(at: 0, as: UInt8.self)) {
        case .meta:
            if StateKey.applied.order(to: key) == 0 { applied = try Applied(row: value) }
        case .entries, .references, .orphans: digest.add(try weight(key, row))
        case .chunks:
            let hash = value.withUnsafeBytes { bytes in
                var hash = SHA256()
                hash.update(bufferPointer: bytes)
                return hash.finalize()
            }
            guard key.extracting(droppingFirst: 1).withUnsafeBytes({ hash.elementsEqual($0) }) else {
                throw .corruptRow(table: StateKey.Table.chunks.rawValue)
            }
            digest.add(try weight(key, row))
        case .sessions: digest.add(try Sessions.digest(ofRow: key, value))
        case .oneTimeWrites: digest.add(try OneTimeWrites.digest(ofRow: key, value))
        case nil: throw .unknownFormat
        }
        lastKey = key.withUnsafeBytes { Array($0) }
        rows += 1
        bytes += UInt64(key.byteCount + row.byteCount)
    }

    private func weight(_ key: RawSpan, _ row: RawSpan) throws(StateError) -> UInt128 {
        // Its row comes before all of those.
        guard let applied else { throw .unknownFormat }
        return StateDigest.row(key: key, row: row, clusterVersion: applied.clusterVersion)
    }

    /// What the rows say was applied, after the last row.
    package func finish() throws(StateError) -> Applied {
        guard let applied else { throw .unknownFormat }
        guard applied.digest == digest else { throw .wrongDigest }
        return applied
    }
}
