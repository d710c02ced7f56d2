/// What holds between any two steps, in release builds as well. What comes from outside is refused before it can reach one of
/// these: each that falls is a fault of this program, and going on would make it a fault of the data.
extension RaftCore {
    func checkInvariants() {
        precondition(
            log.compactedIndex <= applied && applied <= dispatched && dispatched <= commit && commit <= log.lastIndex,
            "compacted to \(log.compactedIndex), executed to \(applied), handed out to \(dispatched), committed to \(commit), "
                + "last \(log.lastIndex): what was never decided would be executed, or what is needed is gone")
        precondition(
            log.lastTerm <= term, "an entry of term \(log.lastTerm) stands in a log of term \(term): it has no leader")
        precondition(
            durableTerm <= term && savedHardState.term <= term,
            "term \(term) after \(savedHardState.term) was saved: a vote could be given twice")
        precondition(
            (touched ?? log.firstIndex) >= log.firstIndex || installing != nil,
            "entry \(touched ?? 0) would be written into a log that begins at \(log.firstIndex)")
        precondition(uncommittedBytes >= 0, "a leader would take in more than it may hold")
        guard role == .leader else {
            precondition(
                peers.isEmpty && transfer == nil, "a \(role) counts what its peers hold, and could commit by it")
            return
        }
        precondition(leader == id && ledTerm == term, "two would lead term \(term)")
        for peer in peers {
            precondition(
                peer.match <= log.lastIndex && peer.bytesInFlight >= 0,
                "\(peer.peer) holds entry \(peer.match), and the log ends at \(log.lastIndex): it would be counted for entries "
                    + "that nobody sent it")
        }
    }
}
