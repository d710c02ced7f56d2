import Raft
import Transport

/// The connections of those that were greeted, clients and peers, by their numbers, and which have something to say at the
/// end of the turn.
struct ClientTable {
    /// Of all of them.
    let memory: ClientMemory
    private var connections: [UInt64: FrameConnection] = [:]
    private var dirty: [FrameConnection] = []

    /// Who leaves answers unread for so long while there is no room for others' is let go.
    static let unreadMax: Nanoseconds = 5_000_000_000

    init(memory: ClientMemory) { self.memory = memory }

    subscript(_ id: UInt64) -> FrameConnection? { connections[id] }

    /// A copy: who is sent away is gone from the table.
    var all: [FrameConnection] { Array(connections.values) }
    var count: Int { connections.count }

    mutating func opened(_ connection: FrameConnection) { connections[connection.id] = connection }

    mutating func closed(_ connection: FrameConnection) { connections[connection.id] = nil }

    mutating func markDirty(_ connection: FrameConnection) {
        if dirty.last !== connection { dirty.append(connection) }
    }

    /// Those that have something to say, to be flushed by whoever takes them: a connection that finds its socket broken closes,
    /// and that changes this table.
    mutating func takeDirty() -> [FrameConnection] {
        var taken: [FrameConnection] = []
        swap(&taken, &dirty)
        return taken
    }

    /// Looks at what each holds.
    ///
    /// - Returns: who keeps the room from others.
    func measure(now: Nanoseconds) -> [FrameConnection] {
        let wasFull = memory.isFull
        var bytes = 0
        var idle: [FrameConnection] = []
        for connection in connections.values {
            let held = connection.measure(now: now)
            bytes += held.bytes
            if wasFull, let since = held.unreadSince, now - since >= Self.unreadMax { idle.append(connection) }
        }
        memory.measured(bytes)
        return idle
    }
}
