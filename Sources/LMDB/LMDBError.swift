import CLMDB

/// What LMDB or the operating system answered, with the code that it gave.
package struct LMDBError: Error, Equatable, CustomStringConvertible {
    /// LMDB's own code (negative) or the system's `errno` (positive).
    package let code: Int32

    package init(code: Int32) { self.code = code }

    package var description: String { "LMDB: \(String(cString: mdb_strerror(code))) (code \(code))" }

    package static let keyExists = LMDBError(code: MDB_KEYEXIST)
    package static let mapFull = LMDBError(code: MDB_MAP_FULL)
    /// Whether the file itself is damaged: a page is missing, of the wrong kind, or none of LMDB's.
    package var isDamage: Bool { [MDB_PAGE_NOTFOUND, MDB_CORRUPTED, MDB_INVALID].contains(code) }

    package static let invalidFile = LMDBError(code: MDB_INVALID)
    package static let versionMismatch = LMDBError(code: MDB_VERSION_MISMATCH)

    /// Throws unless `code` is success.
    static func check(_ code: Int32) throws(LMDBError) {
        if code != MDB_SUCCESS { throw LMDBError(code: code) }
    }

    /// Success is true, "no such key" false; anything else is thrown.
    static func found(_ code: Int32) throws(LMDBError) -> Bool {
        if code == MDB_NOTFOUND { return false }
        try check(code)
        return true
    }
}
