/// What the core knows of its log without holding it: bounds, the terms as runs, sizes of recent entries, and the
/// configurations.
package struct LogView: Sendable {
    /// The index before the first entry of the log, and its term: the end of what a snapshot covers.
    package private(set) var compactedIndex: Index
    package private(set) var compactedTerm: Term
    package private(set) var lastIndex: Index

    private struct TermRun: Sendable {
        var first: Index
        var term: Term
    }
    /// Ascending; the first run begins at `compactedIndex`.
    private var runs: [TermRun]

    /// The headers of `windowFirst...lastIndex`, after `windowOffset` slots that are already given up.
    private var window: [Slot] = []
    private var windowOffset = 0

    private struct Slot: Sendable {
        var entry: EntryHeader
        /// Bytes appended over the life of this value, this entry included: sums of ranges are differences.
        var end: UInt64
    }
    private var appendedBytes: UInt64 = 0

    /// Ascending by index; the last is in force. Those at or before `compactedIndex` but one are forgotten.
    private var configurations: [IndexedConfiguration]
    /// Grows whenever another configuration comes into force, so that a driver need not compare them.
    package private(set) var configurationChanges: UInt64 = 0

    /// - Parameters:
    ///   - entries: every entry of the log, in order, starting after `compactedIndex`. Only their terms are kept.
    ///   - configurations: the one in force at `compactedIndex`, and those of the entries.
    package init(
        compactedIndex: Index, compactedTerm: Term, entries: some Sequence<EntryHeader>,
        configurations: [IndexedConfiguration]
    ) {
        precondition(!configurations.isEmpty, "a log without a configuration belongs to no cluster")
        self.compactedIndex = compactedIndex
        self.compactedTerm = compactedTerm
        lastIndex = compactedIndex
        runs = [TermRun(first: compactedIndex, term: compactedTerm)]
        self.configurations = configurations
        for entry in entries {
            noteTerm(of: entry)
            lastIndex = entry.index
        }
    }

    package var configuration: Configuration { configurations[configurations.count - 1].configuration }
    /// The entry that brought it.
    package var configurationIndex: Index { configurations[configurations.count - 1].index }

    /// The configuration in force at `index`.
    package func configuration(at index: Index) -> Configuration {
        (configurations.last { $0.index <= index } ?? configurations[0]).configuration
    }

    /// The configurations that entries in `range` brought.
    package func configurations(in range: Range<Index>) -> [IndexedConfiguration] {
        configurations.filter { range.contains($0.index) }
    }

    package var firstIndex: Index { compactedIndex + 1 }
    package var lastTerm: Term { runs[runs.count - 1].term }
    /// The first index whose header, and whose payload at the driver, is in memory; `lastIndex + 1` when none is.
    package var windowFirst: Index { lastIndex + 1 - UInt64(window.count - windowOffset) }

    /// The term of the entry at `index`, or nil when it is compacted or not there yet.
    package func term(at index: Index) -> Term? {
        guard index >= compactedIndex, index <= lastIndex else { return nil }
        return runs[run(of: index)].term
    }

    /// The largest index at or before `index` whose term is at most `term`; the compacted index at the least.
    package func lastIndex(atMost index: Index, termAtMost term: Term) -> Index {
        let clamped = min(max(index, compactedIndex), lastIndex)
        let position = run(of: clamped)
        if runs[position].term <= term { return clamped }
        guard let earlier = runs[..<position].lastIndex(where: { $0.term <= term }) else { return compactedIndex }
        return runs[earlier + 1].first - 1
    }

    /// The run that holds `index`, by bisection.
    private func run(of index: Index) -> Int {
        var low = 0
        var high = runs.count - 1
        while low < high {
            let middle = (low + high + 1) / 2
            if runs[middle].first <= index { low = middle } else { high = middle - 1 }
        }
        return low
    }

    private mutating func noteTerm(of entry: EntryHeader) {
        precondition(entry.index == lastIndex + 1, "the log has a gap before entry \(entry.index)")
        precondition(entry.term >= lastTerm, "terms in a log never fall")
        if entry.term > lastTerm { runs.append(TermRun(first: entry.index, term: entry.term)) }
    }

    mutating func append(_ entry: EntryHeader) {
        noteTerm(of: entry)
        lastIndex = entry.index
        appendedBytes += UInt64(entry.size)
        window.append(Slot(entry: entry, end: appendedBytes))
    }

    mutating func append(contentsOf entries: some Collection<EntryHeader>) {
        for entry in entries { append(entry) }
    }

    mutating func append(_ configuration: IndexedConfiguration) {
        configurations.append(configuration)
        configurationChanges += 1
    }

    /// Removes the entries from `index` on. A configuration among them is undone (section 6 of the paper).
    mutating func truncate(from index: Index, undoesConfigurations: Bool = true) {
        precondition(index > compactedIndex, "what a snapshot covers is committed")
        while windowFirst <= lastIndex, lastIndex >= index {
            window.removeLast()
            lastIndex -= 1
        }
        lastIndex = min(lastIndex, index - 1)
        appendedBytes = window.last?.end ?? appendedBytes
        while runs.count > 1, runs[runs.count - 1].first > lastIndex { runs.removeLast() }
        while undoesConfigurations, configurations.count > 1, configurationIndex > lastIndex {
            configurations.removeLast()
            configurationChanges += 1
        }
    }

    /// Forgets the entries through `index`.
    mutating func compact(through index: Index) {
        guard index > compactedIndex else { return }
        precondition(index <= lastIndex, "only entries that are there can be compacted")
        let position = run(of: index)
        compactedTerm = runs[position].term
        compactedIndex = index
        runs.removeFirst(position)
        runs[0].first = index
        if let kept = configurations.lastIndex(where: { $0.index <= index }) { configurations.removeFirst(kept) }
        while windowFirst <= min(index, lastIndex) { dropWindowFirst() }
    }

    /// Starts over behind a snapshot. The tail stays only if the log holds the snapshot's last entry.
    mutating func reset(to snapshot: SnapshotMetadata, keepsTail: Bool) {
        if keepsTail {
            compact(through: snapshot.index)
            return
        }
        let changes = configurationChanges + 1
        self = LogView(
            compactedIndex: snapshot.index, compactedTerm: snapshot.term, entries: EmptyCollection(),
            configurations: [IndexedConfiguration(index: snapshot.index, configuration: snapshot.configuration)])
        configurationChanges = changes
    }

    /// Gives up headers through `index` while the window holds more than `bytesMax`.
    mutating func shrinkWindow(bytesMax: Int, through index: Index) {
        while windowBytes > bytesMax, windowFirst <= index, windowFirst < lastIndex { dropWindowFirst() }
    }

    private mutating func dropWindowFirst() {
        windowOffset += 1
        // Moving the rest down once half is given up costs one move an entry.
        if windowOffset * 2 > window.count {
            window.removeFirst(windowOffset)
            windowOffset = 0
        }
    }

    private var windowBytes: Int { bytes(in: windowFirst..<lastIndex + 1) }

    /// The headers from `first` on, `bytesMax` in sum at most, but one at least. `first` must be in the window.
    func entries(from first: Index, bytesMax: Int) -> [EntryHeader] {
        precondition(first >= windowFirst, "entry \(first) is no longer in memory")
        let start = position(of: first)
        let endMax = window[start].end - UInt64(window[start].entry.size) + UInt64(bytesMax)
        var end = start + 1
        while end < window.count, window[end].end <= endMax { end += 1 }
        return window[start..<end].map(\.entry)
    }

    /// Bytes of the entries in `range`, as far as the window remembers them.
    func bytes(in range: Range<Index>) -> Int {
        let first = max(range.lowerBound, windowFirst)
        let end = min(range.upperBound, lastIndex + 1)
        guard first < end else { return 0 }
        let before = window[position(of: first)]
        return Int(window[position(of: end - 1)].end - before.end) + Int(before.entry.size)
    }

    private func position(of index: Index) -> Int { windowOffset + Int(index - windowFirst) }
}
