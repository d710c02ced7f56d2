import DequeModule
import Raft

/// Messages that tell what is on this member's disk, each held until its own write is there.
struct Promises {
    private var held: Deque<HeldMessage> = []
    /// The last write that is on the disk.
    private(set) var completedWrite: UInt64 = 0

    init() {}

    var count: Int { held.count }

    mutating func hold(_ messages: [HeldMessage]) { held.append(contentsOf: messages) }

    mutating func completed(_ write: UInt64) { completedWrite = max(completedWrite, write) }

    /// Those that may leave, in the order in which they were made: writes complete in their order.
    mutating func release() -> [Message] {
        var released: [Message] = []
        while let first = held.first, first.write <= completedWrite {
            released.append(first.message)
            held.removeFirst()
        }
        return released
    }

    /// Takes out those of which a planted fault says that they need not wait.
    mutating func release(where isEarly: (Message) -> Bool) -> [Message] {
        let early = held.filter { isEarly($0.message) }.map(\.message)
        held.removeAll { isEarly($0.message) }
        return early
    }
}
