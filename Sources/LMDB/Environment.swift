import CLMDB
import CrashPoints
import Glibc

/// One LMDB environment: a memory-mapped file `data.mdb` and its lock file, in a directory of its own.
///
/// Commits are synchronous (neither `NOSYNC` nor `WRITEMAP` is ever set): when `commit()` returns, the data is on the
/// disk. Read transactions belong to no thread (`MDB_NOTLS`), so that one may be handed to the thread that needs it.
// Sendable: the handle is immutable, and LMDB allows an environment to be used by all threads; the write lock inside it
// admits one write transaction at a time.
package final class Environment: @unchecked Sendable {
    let handle: OpaquePointer
    package let path: String

    /// Opens, or creates, the environment in the existing directory `path`.
    ///
    /// - Parameters:
    ///   - mapSize: the largest size of the data in bytes. It only reserves addresses; the file grows as it is used.
    ///   - databases: how many named databases it may hold.
    package init(path: String, mapSize: Int, databases: Int) throws(LMDBError) {
        var created: OpaquePointer?
        try LMDBError.check(mdb_env_create(&created))
        guard let created else { throw LMDBError(code: MDB_PANIC) }
        var code = mdb_env_set_maxdbs(created, UInt32(databases))
        if code == MDB_SUCCESS { code = mdb_env_set_mapsize(created, mapSize) }
        if code == MDB_SUCCESS { code = Self.makeFileIfMissing(in: path) }
        if code == MDB_SUCCESS { code = Self.makeRoomForReaders(path) }
        if code == MDB_SUCCESS { code = mdb_env_open(created, path, UInt32(MDB_NOTLS), 0o600) }
        // A state that has come near its map's end gets a larger one, at the only time when nobody uses it.
        if code == MDB_SUCCESS, Self.usedBytes(created) > mapSize / 2 {
            code = mdb_env_set_mapsize(created, Self.usedBytes(created) * 4)
        }
        // A process that died while it read leaves its slot in the lock file, which would pin old pages for ever.
        var staleReaders: Int32 = 0
        if code == MDB_SUCCESS { code = mdb_reader_check(created, &staleReaders) }
        // LMDB syncs its files and not the directory that names them: a power cut could take a new file away as a whole, with
        // what is committed to it next.
        if code == MDB_SUCCESS { code = Self.syncDirectory(path) }
        if code == MDB_SUCCESS { code = Self.coverUsedPages(of: created, path) }
        guard code == MDB_SUCCESS else {
            mdb_env_close(created)
            throw LMDBError(code: code, operation: "its file was opened")
        }
        handle = created
        self.path = path
    }

    deinit { mdb_env_close(handle) }

    /// Makes the file under another name first. LMDB does not sync the pages that a file begins with before its first commit:
    /// a power cut could leave some of their sectors, and what it left could never be opened again.
    private static func makeFileIfMissing(in path: String) -> Int32 {
        let (file, new) = (path + "/data.mdb", path + "/new.mdb")
        var status = stat()
        // Whatever else keeps it from being seen: nothing may take its place.
        guard lstat(file, &status) != 0 else { return MDB_SUCCESS }
        guard errno == ENOENT else { return errno }
        // Left by a process that did not come to the end of this.
        unlink(new)
        var code = makeFile(new)
        unlink(new + "-lock")
        CrashPoint.fileMade.reach()
        if code == MDB_SUCCESS, rename(new, file) != 0 { code = errno }
        CrashPoint.fileNamed.reach()
        if code != MDB_SUCCESS { unlink(new) }
        return code
    }

    private static func makeFile(_ path: String) -> Int32 {
        var created: OpaquePointer?
        var code = mdb_env_create(&created)
        guard let created else { return code }
        defer { mdb_env_close(created) }
        if code == MDB_SUCCESS { code = mdb_env_open(created, path, UInt32(MDB_NOSUBDIR), 0o600) }
        if code == MDB_SUCCESS { code = mdb_env_sync(created, 1) }
        return code
    }

    /// The table of readers is a file of its own that LMDB writes through a map. Without blocks of its own on the disk, the
    /// first reader on a full disk would be a signal that ends the process; so it has them before it is mapped.
    private static func makeRoomForReaders(_ path: String) -> Int32 {
        let file = open(path + "/lock.mdb", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else { return errno }
        defer { close(file) }
        return posix_fallocate(file, 0, readersBytes)
    }

    /// What LMDB makes of it for its usual number of readers.
    private static let readersBytes: off_t = 8192

    /// Lets the file reach as far as its last page in use. A sound file may lack the end, where pages are free and were
    /// never written; of one that was cut short, zeros are read, which are refused as damaged, where a read behind the
    /// file's end would be a signal that ends the process.
    private static func coverUsedPages(of handle: OpaquePointer, _ path: String) -> Int32 {
        var status = stat()
        guard stat(path + "/data.mdb", &status) == 0 else { return errno }
        let used = usedBytes(handle)
        if Int(status.st_size) < used, truncate(path + "/data.mdb", used) != 0 { return errno }
        return MDB_SUCCESS
    }

    private static func syncDirectory(_ path: String) -> Int32 {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return errno }
        defer { close(descriptor) }
        return fsync(descriptor) == 0 ? MDB_SUCCESS : errno
    }

    /// The longest key in bytes (511 with LMDB's usual build).
    package var keyBytesMax: Int { Int(mdb_env_get_maxkeysize(handle)) }

    /// Bytes of the file that hold data or are free for reuse: the last used page's end, as of the last commit.
    package var usedBytes: Int { Self.usedBytes(handle) }

    private static func usedBytes(_ handle: OpaquePointer) -> Int {
        var info = MDB_envinfo()
        var stat = MDB_stat()
        mdb_env_info(handle, &info)
        mdb_env_stat(handle, &stat)
        return (info.me_last_pgno + 1) * Int(stat.ms_psize)
    }

    /// Bytes that the file may still grow by, until its map is full.
    package var unmappedBytes: Int {
        var info = MDB_envinfo()
        mdb_env_info(handle, &info)
        return max(0, info.me_mapsize - usedBytes)
    }

    /// Bytes that are free on the disk under the file; 0 when that can't be found out.
    package var freeDiskBytes: UInt64 {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else { return 0 }
        return UInt64(status.f_bavail) * UInt64(status.f_frsize)
    }

    /// A write that the system did in part, since there was no room for the rest, is an I/O error to LMDB.
    func cause(of code: Int32) -> Int32 {
        code == EIO && freeDiskBytes < Self.fullBelowBytes ? ENOSPC : code
    }

    private static let fullBelowBytes: UInt64 = 1 << 20

    /// Bytes of pages within the file that hold nothing, as of the last commit; found by a scan of their list.
    package func reusableBytes() throws(LMDBError) -> Int {
        let transaction = try beginRead()
        var stat = MDB_stat()
        mdb_env_stat(handle, &stat)
        // Database 0 is LMDB's own: for each transaction the pages that it freed, their number first.
        var cursor = try transaction.cursor(Database(identifier: 0))
        var pages = 0
        var isThere = try cursor.first()
        while isThere {
            // LMDB has no checksums: a flipped bit here must not end the process.
            let words = cursor.value.byteCount / MemoryLayout<Int>.size
            guard words > 0 else { throw LMDBError(code: MDB_CORRUPTED) }
            let count = unsafe cursor.value.unsafeLoadUnaligned(fromByteOffset: 0, as: Int.self)
            guard (0..<words).contains(count) else { throw LMDBError(code: MDB_CORRUPTED) }
            pages += count
            isThere = try cursor.next()
        }
        return pages * Int(stat.ms_psize)
    }

    /// Whether the file that is open is still the one under this environment's path. One that was deleted or replaced takes
    /// every write, and nobody will ever find them again.
    package var isInPlace: Bool {
        var descriptor: mdb_filehandle_t = -1
        var (opened, named) = (stat(), stat())
        guard mdb_env_get_fd(handle, &descriptor) == MDB_SUCCESS, fstat(descriptor, &opened) == 0,
            stat(path + "/data.mdb", &named) == 0
        else { return false }
        return opened.st_ino == named.st_ino && opened.st_dev == named.st_dev
    }

    /// How many commits have been made since the oldest view that is still open, whose pages can't be reused; 0 when there
    /// is none.
    package var oldestReaderCommits: Int {
        var info = MDB_envinfo()
        mdb_env_info(handle, &info)
        var oldest = info.me_last_txnid
        // Each line that LMDB gives is a reader: its process, its thread, and the commit that it sees, or a dash.
        _ = withUnsafeMutablePointer(to: &oldest) { oldest in
            mdb_reader_list(
                handle,
                { line, context in
                    guard let line, let oldest = context?.assumingMemoryBound(to: Int.self) else { return 0 }
                    let text = String(cString: line)
                    if let seen = text.split(whereSeparator: \.isWhitespace).last.flatMap({ Int($0) }) {
                        oldest.pointee = min(oldest.pointee, seen)
                    }
                    return 0
                }, oldest)
        }
        return info.me_last_txnid - oldest
    }

    /// Opens the database `name`, creating it when it is missing, in a write transaction of its own.
    package func database(_ name: String) throws(LMDBError) -> Database {
        let transaction = try beginWrite()
        var identifier: MDB_dbi = 0
        try LMDBError.check(mdb_dbi_open(transaction.handle, name, UInt32(MDB_CREATE), &identifier))
        try transaction.commit()
        return Database(identifier: identifier)
    }

    /// Begins the write transaction; waits while another one is open. It must end on the thread that began it.
    package func beginWrite() throws(LMDBError) -> WriteTransaction { try WriteTransaction(environment: self) }

    /// Begins a read transaction: a view of the last commit that never changes and pins its pages until it ends.
    package func beginRead() throws(LMDBError) -> ReadTransaction { try ReadTransaction(environment: self) }
}

/// A named, ordered set of key-value pairs inside an environment. Keys compare as bytes.
package struct Database: Sendable {
    let identifier: MDB_dbi
}

/// Lends `bytes` to `body` as LMDB's own descriptor. LMDB reads a key and never writes to it, so that the cast away of
/// `const` is one of C's signatures alone.
@inline(__always)
func withValue<Result>(_ bytes: RawSpan, _ body: (inout MDB_val) -> Result) -> Result {
    bytes.withUnsafeBytes { buffer in
        var value = MDB_val(mv_size: buffer.count, mv_data: UnsafeMutableRawPointer(mutating: buffer.baseAddress))
        return body(&value)
    }
}
