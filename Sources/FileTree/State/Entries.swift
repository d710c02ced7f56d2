import NIOCore

/// An entry of a directory, without inline content.
struct Entry {
    var metadata: Metadata
    /// The chunks of a file whose content is not inline.
    var chunks: [ContentHash]

    init(row: RawSpan) throws(StateError) {
        guard let metadata = Metadata(row: row) else { throw .corruptRow(table: StateKey.Table.entries.rawValue) }
        self.metadata = metadata
        chunks = []
        guard metadata.place == .chunks else { return }
        var offset = Metadata.byteCount
        while offset + ContentHash.byteCount <= row.byteCount {
            let hash = row.extracting(offset..<offset + ContentHash.byteCount).withUnsafeBytes { Array($0) }
            chunks.append(ContentHash(bytes: hash))
            offset += ContentHash.byteCount
        }
    }
}

/// How far a path leads into the tree.
enum Resolution {
    case root
    /// The entry is there.
    case entry(parent: UInt64, key: [UInt8], Entry)
    /// Its parent is there, the entry is not.
    case missing(parent: UInt64, key: [UInt8])
    /// The directories from `components[depth]` on are not there either; `parent` holds the first of them.
    case missingParents(parent: UInt64, depth: Int)
}

extension FileTree where Store: ~Copyable {
    borrowing func entry(_ key: [UInt8]) throws(StateError) -> Entry? {
        try readRow(key) { row throws(StateError) in
            guard let row else { return nil }
            return try Entry(row: row)
        }
    }

    /// Why there is no entry to change, as a command's outcome.
    struct Obstacle: Error {
        let outcome: Outcome
    }

    /// The entry at `path`, of which the condition holds.
    ///
    /// - Parameter error: what a command comes to that names the root.
    borrowing func find(
        _ path: TreePath, if condition: Condition, orOfRoot error: TreeError
    ) throws(StateError) -> Result<(key: [UInt8], entry: Entry), Obstacle> {
        func failed(_ error: TreeError, _ revision: UInt64 = 0) -> Result<(key: [UInt8], entry: Entry), Obstacle> {
            .failure(Obstacle(outcome: .failed(error, revision: revision)))
        }
        switch try resolve(path) {
        case .failure(let error): return failed(error)
        case .success(.root): return failed(error)
        case .success(.entry(_, let key, let entry)):
            let revision = entry.metadata.revision
            return condition.holds(revision) ? .success((key, entry)) : failed(.conditionFailed, revision)
        case .success: return failed(condition.holds(0) ? .notFound : .conditionFailed)
        }
    }

    /// Walks down `path`.
    ///
    /// - Throws: a fault of the state. A file on the way is the path's own fault, and comes back as a `TreeError`.
    borrowing func resolve(_ path: TreePath) throws(StateError) -> Result<Resolution, TreeError> {
        if let name = path.name, let parent = directories.inode(of: path.parentBytes) {
            let key = StateKey.entry(in: parent, name)
            guard let entry = try entry(key) else { return .success(.missing(parent: parent, key: key)) }
            return .success(.entry(parent: parent, key: key, entry))
        }
        var parent = FileTreeLimits.rootInode
        let names = path.components
        for (depth, name) in names.enumerated() {
            let isLast = depth == names.count - 1
            if isLast, depth > 0 { directories.remember(path.parentBytes, parent) }
            let key = StateKey.entry(in: parent, name)
            guard let entry = try entry(key) else {
                return .success(
                    isLast ? .missing(parent: parent, key: key) : .missingParents(parent: parent, depth: depth))
            }
            if isLast { return .success(.entry(parent: parent, key: key, entry)) }
            guard entry.metadata.kind == .directory else { return .failure(.notDirectory) }
            parent = entry.metadata.inode
        }
        return .success(.root)
    }

    borrowing func isEmptyDirectory(_ inode: UInt64) throws(StateError) -> Bool {
        var isEmpty = true
        try store.scan(from: StateKey.entry(in: inode, [])) { key, _ in
            isEmpty = !StateKey.isEntry(key, of: inode)
            return false
        }
        return isEmpty
    }

    mutating func allocateInode() -> UInt64 {
        defer { applied.nextInode += 1 }
        return applied.nextInode
    }

    mutating func setDirectory(_ key: [UInt8], mode: UInt16, inode: UInt64, mtime: Int64) throws(StateError) {
        let metadata = Metadata(
            kind: .directory, place: .none, mode: mode, inode: inode, revision: applied.index, mtime: mtime, size: 0)
        try setRow(key, byteCount: Metadata.byteCount) { metadata.write(to: $0) }
    }

    /// Makes the directories `path.components[depth...]` below `parent`, up to `end`, and answers with the last one's
    /// inode.
    mutating func makeDirectories(
        _ path: TreePath, from depth: Int, to end: Int, below parent: UInt64, mode: UInt16, mtime: Int64
    ) throws(StateError) -> UInt64 {
        var parent = parent
        for name in path.components[depth..<end] {
            let inode = allocateInode()
            try setDirectory(StateKey.entry(in: parent, name), mode: mode, inode: inode, mtime: mtime)
            parent = inode
        }
        return parent
    }

    // MARK: content

    /// Stores one more reference to the chunk, and its bytes with the first.
    mutating func retainChunk(_ hash: ContentHash, _ content: ByteBuffer) throws(StateError) {
        let count = try references(to: hash)
        if count == 0 {
            try setRow(StateKey.chunk(hash), byteCount: content.readableBytes) { row in
                content.withUnsafeReadableBytes { row.copyMemory(from: $0) }
            }
        }
        try setRow(StateKey.references(hash), byteCount: 8) { $0.storeBigEndian(count + 1, at: 0) }
    }

    /// Gives up one reference of each of the entry's chunks, and counts the file out.
    mutating func releaseContent(of entry: Entry) throws(StateError) {
        for hash in entry.chunks {
            let count = try references(to: hash)
            guard count > 0 else { throw .corruptRow(table: StateKey.Table.references.rawValue) }
            if count == 1 {
                try deleteRow(StateKey.chunk(hash))
                try deleteRow(StateKey.references(hash))
            } else {
                try setRow(StateKey.references(hash), byteCount: 8) { $0.storeBigEndian(count - 1, at: 0) }
            }
        }
        applied.files -= 1
        applied.bytes -= entry.metadata.size
    }

    private borrowing func references(to hash: ContentHash) throws(StateError) -> UInt64 {
        try readRow(StateKey.references(hash)) { row in row?.bigEndian(at: 0, as: UInt64.self) ?? 0 }
    }
}
