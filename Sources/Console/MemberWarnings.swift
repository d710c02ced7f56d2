/// What of a member's statistics somebody should know without being asked, in sentences.
package enum MemberWarnings {
    /// A write that waits for so long, in milliseconds, is no slow disk's any more.
    static let diskWaitMin: UInt64 = 1000

    package static func lines(of id: UInt64, _ statistics: [String: UInt64]) -> [String] {
        var lines: [String] = []
        let sorted = statistics.sorted { $0.key < $1.key }
        if let wait = statistics["disk_waiting_ms"], wait >= diskWaitMin {
            lines.append("its disk has not finished a write for \(Double(wait / 100) / 10) s: look at the disk")
        }
        let offences = sorted.compactMap { name, count -> String? in
            guard count > 0, let kind = suffix(of: name, behind: "offences_") else { return nil }
            return "\(count) \(kind.replacing("_", with: " "))"
        }
        if !offences.isEmpty {
            lines.append(
                "it refused what no sound member or client sends (its log says from whom): "
                    + offences.joined(separator: ", "))
        }
        return lines.map { "member \(id): \($0)" }
    }

    private static func suffix(of name: String, behind prefix: String) -> String? {
        name.hasPrefix(prefix) ? String(name.dropFirst(prefix.count)) : nil
    }
}
