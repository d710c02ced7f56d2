import DequeModule
import FileTree

/// The client's side of its session: which sequences are taken, and which of them are unanswered.
struct Session {
    /// A write's place in a session.
    struct Ticket {
        let session: UInt64
        let sequence: UInt64
    }

    private(set) var id: UInt64?
    private var lowestUnanswered: UInt64 = 1
    /// Whether the sequences from the lowest on are settled.
    private var isSettled: Deque<Bool> = []

    var isOpen: Bool { id != nil }

    mutating func open(_ id: UInt64) {
        self = Session()
        self.id = id
    }

    func isOf(_ ticket: Ticket) -> Bool { ticket.session == id }

    /// Nil when there is no session, or no room in it.
    mutating func issueTicket() -> Ticket? {
        guard let id, isSettled.count < FileTreeLimits.unansweredMax else { return nil }
        isSettled.append(false)
        return Ticket(session: id, sequence: lowestUnanswered + UInt64(isSettled.count) - 1)
    }

    /// What a write of this ticket says of the answers that the client needs no more.
    func lowestUnanswered(for ticket: Ticket) -> UInt64 { isOf(ticket) ? lowestUnanswered : ticket.sequence }

    /// The write has its answer, or its client waits no longer for one.
    mutating func settle(_ ticket: Ticket) {
        guard isOf(ticket), ticket.sequence >= lowestUnanswered else { return }
        isSettled[Int(ticket.sequence - lowestUnanswered)] = true
        while isSettled.first == true {
            isSettled.removeFirst()
            lowestUnanswered += 1
        }
    }
}
