import BanyanClient
import FileTree

/// What a client needs of a tree to mirror it.
package protocol RemoteTree: Sendable {
    func list(
        _ path: TreePath, after: [UInt8], limit: Int, _ consistency: Consistency
    ) async throws -> (entries: [DirectoryEntry], hasMore: Bool)
    func stat(_ path: TreePath, _ consistency: Consistency) async throws -> FileInfo
    func get(_ path: TreePath, _ consistency: Consistency) async throws -> (content: [UInt8], info: FileInfo)
    func put(
        _ path: TreePath, _ content: [UInt8], mode: UInt16, modificationTime: Int64?, if condition: WriteCondition
    ) async throws -> UInt64
    func makeDirectory(_ path: TreePath, mode: UInt16, withParents: Bool) async throws -> UInt64
}

extension BanyanClient: RemoteTree {}

/// Everything below a directory of the tree.
///
/// The tree goes on changing while it is walked. A directory that was there and is no more is no failure, and one whose path
/// has become too long to ask for (its parent was moved) is no reason to leave out the others.
package struct TreeWalk: Sendable {
    package struct Entry: Sendable {
        /// From the directory that is walked on, without a slash at either end.
        package let path: [UInt8]
        /// Nil when the path is longer than any may be.
        package let target: TreePath?
        package let info: FileInfo
    }

    /// Directories before what is in them, and of a directory all entries together, in the order of their bytes.
    package private(set) var entries: [Entry] = []
    /// Directories that were removed meanwhile.
    package private(set) var vanished: [[UInt8]] = []
    /// The first directories whose paths are too long: what is in them can't be reached.
    package private(set) var unreachable: [[UInt8]] = []

    package static let unreachableReason =
        "its path is longer than \(TreePath.bytesMax) bytes: what is in it is out of reach until a directory above is moved "
        + "to a shorter path"

    /// - Throws: when `base` itself can't be listed.
    package init(
        _ base: TreePath, of tree: any RemoteTree, _ consistency: Consistency = .linearizable, isRecursive: Bool = true
    ) async throws {
        var directories: [(path: [UInt8], target: TreePath)] = [([], base)]
        while let (path, target) = directories.popLast() {
            var below: [(path: [UInt8], target: TreePath)] = []
            var (after, hasMore) = ([UInt8](), true)
            do {
                while hasMore {
                    let page = try await tree.list(target, after: after, limit: 4096, consistency)
                    for entry in page.entries {
                        let name = entry.nameBytes
                        let entryPath = path.isEmpty ? name : path + [UInt8(ascii: "/")] + name
                        let entryTarget = try? target.appending(name)
                        entries.append(Entry(path: entryPath, target: entryTarget, info: entry.info))
                        guard isRecursive, entry.info.kind == .directory else { continue }
                        if let entryTarget {
                            below.append((entryPath, entryTarget))
                        } else {
                            unreachable.append(entryPath)
                        }
                    }
                    (after, hasMore) = (page.entries.last?.nameBytes ?? [], page.hasMore && !page.entries.isEmpty)
                }
            } catch let error as BanyanError where error == .notFound || error == .notDirectory {
                if path.isEmpty, after.isEmpty { throw error }
                vanished.append(path)
            }
            directories += below.reversed()
        }
    }
}
