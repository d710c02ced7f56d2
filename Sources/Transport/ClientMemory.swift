/// What clients may make this member hold in memory, all together, and what they do: one account for all connections of an
/// event loop.
///
/// Held are the answers that nobody has taken in yet, the room that reads under way may need for theirs, requests that
/// wait for their turn, and frames that have not wholly arrived.
package final class ClientMemory {
    /// Beyond it, whoever holds something gets no more of it.
    package static let bytesMax = 64 << 20
    /// While requests that wait hold so much, a connection gets no second one to wait.
    package static let waitingBytesMax = 32 << 20
    /// So much every connection may need, whatever the others hold: a small answer.
    package static let shareBytes = 64 << 10

    /// Room for the answers of reads under way.
    package private(set) var reservedBytes = 0
    /// Requests that wait.
    package private(set) var waitingBytes = 0
    /// The rest, as it was when somebody last looked, and what was left unread since.
    package private(set) var measuredBytes = 0

    package init() {}

    package var heldBytes: Int { reservedBytes + waitingBytes + measuredBytes }
    /// Whether answers have no room. What waits for it does not count: it would wait for itself.
    package var isFull: Bool { reservedBytes + measuredBytes >= Self.bytesMax }
    package var isCrowded: Bool { waitingBytes >= Self.waitingBytesMax }

    func reserve(_ bytes: Int) { reservedBytes += bytes }
    func release(_ bytes: Int) { reservedBytes -= bytes }
    package func requestWaits(_ bytes: Int) { waitingBytes += bytes }
    package func requestGoesOn(_ bytes: Int) { waitingBytes -= bytes }
    func answersWait(_ bytes: Int) { measuredBytes += bytes }
    package func measured(_ bytes: Int) { measuredBytes = bytes }
}
