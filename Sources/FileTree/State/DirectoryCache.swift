/// Where directories are that paths led through lately: a path then costs the row of its last part alone.
///
/// Only what is there is remembered, so that a new directory changes nothing. One that goes or moves takes everything
/// with it.
final class DirectoryCache {
    private static let countMax = 4096
    private static let pathBytesMax = 256

    private var inodes: [ArraySlice<UInt8>: UInt64] = [:]

    func inode(of path: ArraySlice<UInt8>) -> UInt64? { inodes[path] }

    func remember(_ path: ArraySlice<UInt8>, _ inode: UInt64) {
        guard path.count <= Self.pathBytesMax else { return }
        if inodes.count >= Self.countMax { forgetAll() }
        // A slice would keep the path that it is of.
        inodes[ArraySlice(Array(path))] = inode
    }

    func forgetAll() { inodes.removeAll(keepingCapacity: true) }
}
