import CLMDB
import Glibc

/// What LMDB or the operating system answered, with the code that it gave.
package struct LMDBError: Error, Sendable, CustomStringConvertible {
    /// LMDB's own code (negative) or the system's `errno` (positive).
    package let code: Int32
    /// What was being done, if that is known.
    package let operation: String?

    package init(code: Int32, operation: String? = nil) {
        self.code = code
        self.operation = operation
    }

    package var description: String {
        let what = operation.map { " while \($0)" } ?? ""
        // The system's own words say what is wrong; behind LMDB's there may be much.
        return isFull
            ? "the disk is full\(what): \(String(cString: strerror(code)))"
            : "LMDB: \(String(cString: mdb_strerror(code))) (code \(code))\(what)"
    }

    package static let keyExists = LMDBError(code: MDB_KEYEXIST)
    package static let mapFull = LMDBError(code: MDB_MAP_FULL)
    /// Whether the file itself is damaged: a page is missing, of the wrong kind, or none of LMDB's.
    package var isDamage: Bool { [MDB_PAGE_NOTFOUND, MDB_CORRUPTED, MDB_INVALID].contains(code) }
    /// Whether there is no room on the disk, or not for this user: that passes.
    package var isFull: Bool { [ENOSPC, EDQUOT].contains(code) }

    package static let invalidFile = LMDBError(code: MDB_INVALID)
    package static let versionMismatch = LMDBError(code: MDB_VERSION_MISMATCH)

    /// Throws unless `code` is success.
    static func check(_ code: Int32, _ operation: String? = nil) throws(LMDBError) {
        if code != MDB_SUCCESS { throw LMDBError(code: code, operation: operation) }
    }

    /// Success is true, "no such key" false; anything else is thrown.
    static func found(_ code: Int32) throws(LMDBError) -> Bool {
        if code == MDB_NOTFOUND { return false }
        try check(code)
        return true
    }
}

extension LMDBError: Equatable {
    /// What was being done is for people alone.
    package static func == (one: LMDBError, other: LMDBError) -> Bool { one.code == other.code }
}
