import Raft

/// How often each entry is sent from one leader to one peer. Where nothing is lost once is enough, however late the answers
/// come: what is merely slow must not be taken for lost.
///
/// Links must keep their order for that to hold. A message that is lost, a refusal, a snapshot, or a process that ends makes
/// sending again right: counting begins anew.
struct Resending {
    private struct Link {
        var term: Term = 0
        var copies: [Index: Int] = [:]
    }
    private var links: [[Link]] = []
    /// Entries sent, each as often as it was, and how many of them had been sent before.
    private(set) var sent = 0
    private(set) var again = 0

    mutating func addMember() {
        for from in links.indices { links[from].append(Link()) }
        links.append(Array(repeating: Link(), count: links.count + 1))
    }

    mutating func startOver(_ from: Int, _ to: Int) {
        links[from][to].copies.removeAll(keepingCapacity: true)
        links[to][from].copies.removeAll(keepingCapacity: true)
    }

    /// A process ended, or began.
    mutating func startOver(_ member: Int) { for other in links.indices { startOver(member, other) } }

    /// - Returns: how often the entry of it that was sent most often was sent by now.
    mutating func send(_ append: Message.Append, term: Term, from: Int, to: Int) -> Int {
        if links[from][to].term != term { links[from][to] = Link(term: term) }
        var most = 0
        for entry in append.entries {
            let copies = (links[from][to].copies[entry.index] ?? 0) + 1
            links[from][to].copies[entry.index] = copies
            most = max(most, copies)
            sent += 1
            if copies > 1 { again += 1 }
        }
        return most
    }
}
