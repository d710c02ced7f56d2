import Raft

extension Message.Body {
    /// The message in a line of a trace.
    var summary: String {
        switch self {
        case .preVote(let index, let term): "pre-vote? last \(index) of term \(term)"
        case .preVoteResponse(let granted): granted ? "pre-vote yes" : "pre-vote no"
        case .timeoutNow: "campaign now"
        case .vote(let index, let term, _): "vote? last \(index) of term \(term)"
        case .voteResponse(let granted): granted ? "vote yes" : "vote no"
        case .append(let append):
            append.entries.isEmpty
                ? "append nothing after \(append.previousIndex) of term \(append.previousTerm), commit \(append.commit)"
                : "append \(append.previousIndex + 1) to \(append.previousIndex + UInt64(append.entries.count)), "
                    + "commit \(append.commit)"
        case .appendResponse(.accepted(let match)): "accepted to \(match)"
        case .appendResponse(.rejected(let index, let hint, let term)):
            "rejected after \(index), perhaps \(hint) of term \(term)"
        case .heartbeat(let commit, let round): "heartbeat, commit \(commit), round \(round)"
        case .heartbeatResponse(let round): "heartbeat heard, round \(round)"
        case .readIndex(let context): "read index? \(context)"
        case .readIndexResponse(let context, let index): "read \(context) at \(index.map { "\($0)" } ?? "no index")"
        case .installSnapshot(let snapshot): "snapshot at \(snapshot.index) of term \(snapshot.term)"
        }
    }
}
