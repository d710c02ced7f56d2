import CPowerCut
import Foundation
import Raft

/// What a disk holds of a directory whose files were written and synced in a known order, and what a power cut leaves.
///
/// Kept by a cut: a file's bytes through its last sync, names through the last sync of their directory. The rest may or
/// may not be there: any subset of the sectors of 512 bytes that were written since, and the changes of names up to any.
struct Disk {
    private static let sectorBytes = 512

    private final class File {
        var synced: [UInt8] = []
        var pending: [(offset: Int, bytes: [UInt8])] = []

        /// Makes everything that was written durable.
        func sync() {
            for write in pending { Self.apply(write.bytes[...], at: write.offset, to: &synced) }
            pending = []
        }

        /// Makes the last write durable, and of those before it only the ones that it overwrites.
        func syncLast() {
            guard let last = pending.popLast() else { return }
            let end = last.offset + last.bytes.count
            let isOverwritten = { (write: (offset: Int, bytes: [UInt8])) in
                write.offset < end && last.offset < write.offset + write.bytes.count
            }
            for write in pending.filter(isOverwritten) + [last] {
                Self.apply(write.bytes[...], at: write.offset, to: &synced)
            }
            pending.removeAll(where: isOverwritten)
        }

        static func apply(_ bytes: ArraySlice<UInt8>, at offset: Int, to content: inout [UInt8]) {
            let end = offset + bytes.count
            if content.count < end { content.append(contentsOf: repeatElement(0, count: end - content.count)) }
            content.replaceSubrange(offset..<end, with: bytes)
        }

        func afterCut(keeping share: Double, _ generator: inout SeededGenerator) -> [UInt8] {
            var content = synced
            for write in pending {
                var start = 0
                while start < write.bytes.count {
                    let absolute = write.offset + start
                    let end = min(write.bytes.count, start + Disk.sectorBytes - absolute % Disk.sectorBytes)
                    if Double.random(in: 0..<1, using: &generator) < share {
                        Self.apply(write.bytes[start..<end], at: absolute, to: &content)
                    }
                    start = end
                }
            }
            return content
        }
    }

    private enum Node {
        case file(File)
        case directory
    }

    private enum NameChange {
        case create(String, Node)
        case rename(String, String)
        case unlink(String)

        var path: String {
            switch self {
            case .create(let path, _), .rename(_, let path), .unlink(let path): path
            }
        }

        func apply(to names: inout [String: Node]) {
            switch self {
            case .create(let path, let node): names[path] = node
            case .rename(let old, let new): names[new] = names.removeValue(forKey: old)
            case .unlink(let path): names[path] = nil
            }
        }
    }

    private let root: String
    private let isLying: Bool
    /// As the running process sees them, and as the disk has them for sure.
    private var names: [String: Node] = [:]
    private var syncedNames: [String: Node] = [:]
    private var pendingNames: [NameChange] = []
    /// The last operation may be cut in its midst: it joins the rest with the next one.
    private var last: powercut_operation?

    /// - Parameter isLying: syncs of files do nothing.
    init(root: String, isLying: Bool) {
        self.root = root
        self.isLying = isLying
    }

    /// Lets the last operation be over.
    mutating func settle() {
        if let last, last.is_synced != 0, last.kind == Int32(powercut_write) {
            file(String(cString: last.path))?.syncLast()
        }
        last = nil
    }

    mutating func perform(_ operation: powercut_operation) {
        settle()
        last = operation
        let path = String(cString: operation.path)
        guard path == root || path.hasPrefix(root + "/") else { return }
        switch Int(operation.kind) {
        case powercut_write:
            let bytes = [UInt8](UnsafeBufferPointer(start: operation.bytes, count: operation.length))
            file(path)?.pending.append((Int(operation.offset), bytes))
        case powercut_sync: if !isLying { file(path)?.sync() }
        case powercut_create:
            change(.create(path, operation.is_synced != 0 ? .directory : .file(File())))
        case powercut_rename: change(.rename(path, String(cString: operation.target)))
        case powercut_unlink: change(.unlink(path))
        default:
            let isDurable = { (change: NameChange) in (change.path as NSString).deletingLastPathComponent == path }
            for change in pendingNames where isDurable(change) { change.apply(to: &syncedNames) }
            pendingNames.removeAll(where: isDurable)
        }
    }

    private func file(_ path: String) -> File? {
        if case .file(let file) = names[path] { return file }
        return nil
    }

    private mutating func change(_ change: NameChange) {
        change.apply(to: &names)
        pendingNames.append(change)
    }

    /// Writes what a cut now would leave into the empty directory `target`.
    func cut(into target: String, _ generator: inout SeededGenerator) throws {
        var left = syncedNames
        for change in pendingNames.prefix(Int.random(in: 0...pendingNames.count, using: &generator)) {
            change.apply(to: &left)
        }
        // Everything, nothing, or a part of what was not synced.
        let share: Double = [0, 0.5, 0.9, 1].randomElement(using: &generator) ?? 0
        for (path, node) in left.sorted(by: { $0.key < $1.key }) {
            let copy = target + path.dropFirst(root.count)
            switch node {
            case .directory: try FileManager.default.createDirectory(atPath: copy, withIntermediateDirectories: true)
            case .file(let file):
                guard FileManager.default.fileExists(atPath: (copy as NSString).deletingLastPathComponent) else {
                    continue
                }
                try Data(file.afterCut(keeping: share, &generator)).write(to: URL(fileURLWithPath: copy))
            }
        }
    }
}
