/// Log replication: section 5.3 of the paper, batched and pipelined (section 10.2 of the thesis).
extension RaftCore {
    func progress(of peer: PeerID) -> Progress? { peers.first { $0.peer == peer } }

    func position(of peer: PeerID) -> Int? { peers.firstIndex { $0.peer == peer } }

    // MARK: a leader's side

    mutating func propose(_ sizes: [UInt32]) {
        precondition(role == .leader, "only a leader proposes; ask proposalRefusal first")
        for size in sizes { appendOwn(kind: .command, size: size) }
        broadcastAppend()
    }

    mutating func appendOwn(kind: EntryKind, size: UInt32) {
        let entry = EntryHeader(index: log.lastIndex + 1, term: term, kind: kind, size: size)
        log.append(entry)
        touch(entry.index)
        uncommittedBytes += Int(size)
    }

    mutating func broadcastAppend() {
        for position in peers.indices { sendAppends(to: position) }
    }

    /// Sends the peer what it lacks, as far as its limits allow.
    mutating func sendAppends(to position: Int) {
        while !peers[position].isPaused(limits) {
            let next = peers[position].next
            if peers[position].state == .replicate, next > log.lastIndex { return }
            guard let previousTerm = log.term(at: next - 1) else {
                peers[position].become(.snapshot, next: next)
                output.snapshotsToSend.append(peers[position].peer)
                return
            }
            if next <= log.lastIndex, next < log.windowFirst {
                peers[position].isReading = true
                output.entriesToRead.append(
                    EntriesRequest(
                        peer: peers[position].peer, first: next, last: log.windowFirst - 1,
                        bytesMax: limits.messageBytesMax))
                return
            }
            let entries = next > log.lastIndex ? [] : log.entries(from: next, bytesMax: limits.messageBytesMax)
            sendAppend(to: position, previousTerm: previousTerm, entries: entries)
        }
    }

    private mutating func sendAppend(to position: Int, previousTerm: Term, entries: [EntryHeader]) {
        let first = peers[position].next
        let end = first + UInt64(entries.count)
        send(
            .append(
                Message.Append(
                    previousIndex: first - 1, previousTerm: previousTerm, commit: commit, entries: entries,
                    configurations: log.configurations(in: first..<end))),
            to: peers[position].peer)
        if peers[position].state == .replicate {
            peers[position].sent(last: end - 1, bytes: entries.reduce(0) { $0 + Int($1.size) }, now: now)
        } else {
            peers[position].probed(through: end - 1, now: now)
        }
    }

    /// Sends an empty append behind everything that was sent. A peer that answers heartbeats and accepts nothing may be
    /// slow, lack something, or have forgotten in a restart what this leader confirmed to it. Its answer tells: it accepts
    /// once it has everything before, and refuses what it can't append. Nothing is sent again unless it refuses.
    mutating func ask(_ position: Int) {
        let through = peers[position].sentThrough
        guard let term = log.term(at: through) else {
            peers[position].become(.snapshot, next: peers[position].next)
            output.snapshotsToSend.append(peers[position].peer)
            return
        }
        send(
            .append(Message.Append(previousIndex: through, previousTerm: term, commit: commit, entries: [])),
            to: peers[position].peer)
        peers[position].askedAt = now
    }

    /// The reader found what the window no longer holds.
    mutating func entriesRead(_ peer: PeerID, entries: [EntryHeader]) {
        guard role == .leader, let position = position(of: peer), peers[position].isReading else { return }
        peers[position].isReading = false
        let next = peers[position].next
        // An entry that should be there can't be read: the state can stand in for it.
        if entries.isEmpty, next < log.windowFirst, log.term(at: next - 1) != nil {
            peers[position].become(.snapshot, next: next)
            output.snapshotsToSend.append(peer)
            return
        }
        // The peer may have moved on, or the log been compacted, while the reader read.
        if let first = entries.first, first.index == next, let previousTerm = log.term(at: next - 1),
            !peers[position].isPaused(limits), entries.allSatisfy({ log.term(at: $0.index) == $0.term })
        {
            sendAppend(to: position, previousTerm: previousTerm, entries: entries)
        }
        sendAppends(to: position)
    }

    mutating func handleAppendResponse(_ response: Message.AppendResponse, from peer: PeerID) {
        guard role == .leader, let position = position(of: peer) else { return }
        peers[position].lastContact = now
        switch response {
        case .accepted(let match):
            // Nobody can hold what was never sent.
            guard match <= log.lastIndex else { return offended(by: peer, .answersUnsent) }
            let isNew = peers[position].accepted(match, now: now)
            switch peers[position].state {
            // Less is an answer to something older: a notice of this term, say, which holds no index.
            case .probe where match + 1 >= peers[position].next:
                peers[position].become(.replicate, next: peers[position].match + 1)
            case .snapshot where log.term(at: peers[position].match) != nil && isNew:
                peers[position].become(.replicate, next: peers[position].match + 1)
            default: break
            }
            if isNew { advanceCommitIndex() }
            // What is committed may have changed who is replicated to, or who leads.
            if let position = self.position(of: peer) { sendAppends(to: position) }
        case .rejected(let index, let hintIndex, let hintTerm):
            guard index <= log.lastIndex else { return offended(by: peer, .answersUnsent) }
            // The two agree at the latest where this log has no younger term than the peer's has at its hint. An example, as
            // terms of the entries 1 to 8, the probe behind 7:
            //
            //     this leader   1 1 1 4 4 5 5 6
            //     the peer      1 1 1 2 2 2 2        it refuses 7, and hints at its entry 7 of term 2
            //
            // The last of this log at or before 7 whose term is at most 2 is entry 3: the next probe goes there, and skips
            // terms 4 and 5 in one step. The peer does the same before it hints, with what the leader has there.
            let agreesAt = log.lastIndex(atMost: hintIndex, termAtMost: hintTerm)
            guard peers[position].rejected(index, agreesAt: agreesAt, lastIndex: hintIndex, now: now) else { return }
            sendAppends(to: position)
        }
    }

    /// Messages on the way to the peer may be lost: it is asked where it stands as soon as it is heard.
    mutating func lostContact(to peer: PeerID) {
        guard role == .leader, let position = position(of: peer) else { return }
        peers[position].lostConnection()
    }

    // MARK: a follower's side

    mutating func handleAppend(_ append: Message.Append, from peer: PeerID) {
        follow(peer)
        // What is committed is in its leader's log, which each term's first message reaches the end of: a leader that ends
        // before it contradicts that.
        leaderEnd = max(leaderEnd, append.previousIndex + UInt64(append.entries.count))
        if leaderEnd < commit { contradictedFrom = commit }
        // Everything that a snapshot covers is committed, and so equals the leader's.
        var append = append
        if append.previousIndex < log.compactedIndex {
            append.entries.removeFirst(
                min(append.entries.count, Int(clamping: log.compactedIndex - append.previousIndex)))
            append.configurations.removeAll { $0.index <= log.compactedIndex }
            (append.previousIndex, append.previousTerm) = (log.compactedIndex, log.compactedTerm)
            if let first = append.entries.first, first.term < append.previousTerm {
                contradictedFrom = first.index
                return offended(by: peer, .overwritesCommitted)
            }
        }
        guard log.term(at: append.previousIndex) == append.previousTerm else {
            let hint = log.lastIndex(
                atMost: min(append.previousIndex, log.lastIndex), termAtMost: append.previousTerm)
            send(
                .appendResponse(
                    .rejected(append.previousIndex, hintIndex: hint, hintTerm: log.term(at: hint) ?? 0)),
                to: peer)
            return
        }
        let new = append.entries.drop { log.term(at: $0.index) == $0.term }
        if let first = new.first {
            guard first.index > commit else {
                contradictedFrom = first.index
                return offended(by: peer, .overwritesCommitted)
            }
            guard configurationsFollow(append, from: first.index) else {
                return offended(by: peer, .unrelatedConfiguration)
            }
            if first.index <= log.lastIndex {
                log.truncate(from: first.index, undoesConfigurations: mutant != .configurationNotUndone)
                truncates = true
                if mutant != .confirmedIndexKept { confirmedIndex = min(confirmedIndex, first.index - 1) }
            }
            log.append(contentsOf: new)
            for next in append.configurations where next.index >= first.index { log.append(next) }
            noteConfiguration()
            touch(first.index)
            appendedFrom = first.index
        }
        let last = append.previousIndex + UInt64(append.entries.count)
        if let from = contradictedFrom, last >= from, leaderEnd >= commit {
            contradictedFrom = nil
            heardLeader()
        }
        confirmedIndex = max(confirmedIndex, last)
        commit(through: min(append.commit, last))
        promise(.appendResponse(.accepted(match: last)), to: peer)
    }
}
