import NIOCore

/// The first pages of directories that were listed lately and have not changed since: one costs a copy, and not the reading
/// and checking of all rows that it was made of.
///
/// Whatever changes an entry's row has its directory forgotten, by `setRow` and `deleteRow`. All rows of a page were sound
/// when it was made; one that rots later is found by the scrub, or when the directory is listed after a change.
final class ListingCache {
    /// Of all pages together, in bytes of memory.
    static let bytesMax = 2 << 20
    static let countMax = 4096
    /// Of one page: a larger one would push many others out.
    static let pageBytesMax = 64 << 10

    private struct Page {
        let bytes: ByteBuffer
        /// The most entries that may be asked for, for this to be the answer: a page of all there are is right for any number
        /// from theirs on.
        let limits: ClosedRange<UInt32>
    }

    private var pages: [UInt64: Page] = [:]
    private(set) var bytes = 0

    func page(of directory: UInt64, limit: UInt32) -> ByteBuffer? {
        guard let page = pages[directory], page.limits.contains(limit) else { return nil }
        return page.bytes
    }

    /// - Parameters:
    ///   - page: copied, since it shares the memory of all answers that were made with it.
    ///   - limit: the most entries that it was made for.
    ///   - count: the entries that it holds; nil when the directory has more.
    func remember(_ page: ByteBufferView, of directory: UInt64, limit: UInt32, whole count: UInt32?) {
        forget(directory)
        guard page.count <= Self.pageBytesMax else { return }
        let page = Page(bytes: ByteBuffer(bytes: page), limits: count.map { $0...UInt32.max } ?? limit...limit)
        if pages.count >= Self.countMax || bytes + page.bytes.storageCapacity > Self.bytesMax {
            (pages, bytes) = ([:], 0)
        }
        pages[directory] = page
        bytes += page.bytes.storageCapacity
    }

    func forget(_ directory: UInt64) {
        guard !pages.isEmpty, let old = pages.removeValue(forKey: directory) else { return }
        bytes -= old.bytes.storageCapacity
    }
}
