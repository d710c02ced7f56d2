import NIOCore

/// The first pages of directories that were listed lately and have not changed since: one costs a copy, and not the reading
/// and checking of all rows that it was made of.
///
/// Whatever changes an entry's row has its directory forgotten, by `setRow` and `deleteRow`.
final class ListingCache {
    /// Of all pages together, in bytes.
    static let bytesMax = 2 << 20
    /// Of one page: a larger one is made so seldom that it would only take the others' room.
    static let pageBytesMax = 64 << 10

    private var pages: [UInt64: (limit: UInt32, page: ByteBuffer)] = [:]
    private(set) var bytes = 0

    /// The page as it stood in an answer, if it was made for as many entries.
    func page(of directory: UInt64, limit: UInt32) -> ByteBuffer? {
        guard let found = pages[directory], found.limit == limit else { return nil }
        return found.page
    }

    /// - Parameter page: copied, since it shares the memory of all answers that were made with it.
    func remember(_ page: ByteBufferView, of directory: UInt64, limit: UInt32) {
        forget(directory)
        guard page.count <= Self.pageBytesMax else { return }
        if bytes + page.count > Self.bytesMax { (pages, bytes) = ([:], 0) }
        pages[directory] = (limit, ByteBuffer(bytes: page))
        bytes += page.count
    }

    func forget(_ directory: UInt64) {
        guard !pages.isEmpty, let old = pages.removeValue(forKey: directory) else { return }
        bytes -= old.page.readableBytes
    }
}
