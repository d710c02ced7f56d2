import DequeModule
import Driver
import Raft
import Transport

/// Clients' reads on their way to the state thread: those that wait until their connection takes more answers in, those that
/// ask what they must not miss, and those that go to the state thread in one piece.
///
/// What waiting requests hold is counted in the clients' memory while they stand here, and nowhere else.
struct ReadQueue {
    /// While the state thread answers so many, the loop prepares the next.
    static let readsAtOnce = 16

    private let memory: ClientMemory
    /// By connection, those that it has too many answers under way for.
    private var waiting: [UInt64: Deque<PendingRead>] = [:]
    private var admitted: [PendingRead] = []
    private var served: [StateThread.Read] = []

    init(memory: ClientMemory) { self.memory = memory }

    func isWaiting(_ connection: UInt64) -> Bool { waiting[connection] != nil }

    /// Takes up a read at once, if its connection has room and nothing waits before it.
    mutating func admitNow(_ read: PendingRead, from connection: FrameConnection) -> Bool {
        let answerBytesMax = read.answerBytesMax ?? connection.answerBytesMax
        guard waiting.isEmpty || waiting[connection.id] == nil, connection.mayRead(answerBytesMax) else { return false }
        begin(read, answerBytesMax, on: connection)
        return true
    }

    private mutating func begin(_ read: PendingRead, _ answerBytesMax: Int, on connection: FrameConnection) {
        connection.readBegins(answerBytesMax)
        var read = read
        read.waiter.answerBytesMax = answerBytesMax
        admitted.append(read)
    }

    mutating func wait(_ read: PendingRead) {
        memory.requestWaits(read.heldBytes)
        waiting[read.waiter.connection, default: []].append(read)
    }

    /// It was asked for before those that wait.
    mutating func waitFirst(_ read: PendingRead) {
        memory.requestWaits(read.heldBytes)
        waiting[read.waiter.connection, default: []].prepend(read)
    }

    /// Takes up a connection's reads as far as its answers go out: a client that asks faster than it takes its answers in makes
    /// itself wait, and fills nobody's memory.
    ///
    /// - Returns: those that waited too long.
    mutating func admit(from connection: FrameConnection, now: Nanoseconds) -> [PendingRead] {
        // Out of the table while it is changed, so that nothing is copied.
        guard var reads = waiting.removeValue(forKey: connection.id) else { return [] }
        var late: [PendingRead] = []
        while let read = reads.first, case let answerBytesMax = read.answerBytesMax ?? connection.answerBytesMax,
            connection.mayRead(answerBytesMax)
        {
            reads.removeFirst()
            memory.requestGoesOn(read.heldBytes)
            if read.deadline < now {
                late.append(read)
            } else {
                begin(read, answerBytesMax, on: connection)
            }
        }
        if !reads.isEmpty { waiting[connection.id] = reads }
        return late
    }

    /// Those that may begin now.
    mutating func takeAdmitted() -> [PendingRead] {
        defer { admitted = [] }
        return admitted
    }

    /// Everything that the read may not miss is with the state thread.
    ///
    /// - Returns: whether enough stand here to be sent.
    mutating func serve(_ read: PendingRead) -> Bool {
        served.append(
            StateThread.Read(
                query: read.query, waiter: read.waiter, isStale: read.kind == .stale(ageMax: 0),
                deadline: read.deadline))
        return served.count >= Self.readsAtOnce
    }

    /// In one piece, behind what they must not miss: a thread that is woken costs more than a read.
    mutating func takeServed() -> [StateThread.Read] {
        defer { served.removeAll() }
        return served
    }

    /// Those whose clients wait no longer.
    mutating func expire(now: Nanoseconds) -> [PendingRead] {
        var late: [PendingRead] = []
        for id in waiting.keys.sorted() {
            waiting[id]?.removeAll { read in
                guard read.deadline < now else { return false }
                late.append(read)
                return true
            }
            if waiting[id]?.isEmpty == true { waiting[id] = nil }
        }
        for read in late { memory.requestGoesOn(read.heldBytes) }
        return late
    }

    /// The connections that have reads here.
    var connections: [UInt64] { waiting.keys.sorted() }

    mutating func closed(_ connection: UInt64) {
        for read in waiting.removeValue(forKey: connection) ?? [] { memory.requestGoesOn(read.heldBytes) }
    }
}
