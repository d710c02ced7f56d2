/// What somebody may have meant who typed something else.
package enum Nearest {
    /// The word that takes the fewest changes to reach (a letter more, less, another, or two in the other order), if they are
    /// few for its length; or the only one that begins with what was typed.
    package static func word(to typed: String, among words: [String]) -> String? {
        let typed = typed.lowercased()
        guard !typed.isEmpty else { return nil }
        let beginning = words.filter { $0.hasPrefix(typed) }
        if beginning.count == 1 { return beginning.first }
        let ranked = words.map { (word: $0, distance: distance(Array(typed.utf8), Array($0.utf8))) }
        guard let best = ranked.min(by: { $0.distance < $1.distance }) else { return nil }
        return best.distance <= max(1, min(typed.count, best.word.count) / 2) ? best.word : nil
    }

    /// Optimal string alignment.
    static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        var (before, last) = ([Int](), Array(0...right.count))
        for (row, byte) in left.enumerated() {
            var this = [row + 1]
            for (column, other) in right.enumerated() {
                var least = min(last[column + 1] + 1, this[column] + 1, last[column] + (byte == other ? 0 : 1))
                if row > 0, column > 0, byte == right[column - 1], left[row - 1] == other {
                    least = min(least, before[column - 1] + 1)
                }
                this.append(least)
            }
            (before, last) = (last, this)
        }
        return last[right.count]
    }
}
