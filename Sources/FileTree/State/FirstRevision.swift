/// Where the revisions of a new cluster begin that goes on with another's tree: one that is restored from a backup, or
/// recovered from what a single member has.
///
/// A client may hold a revision that the old cluster gave out after the backup was made, or that another cluster did which
/// began with the same one. No number may come back for something else, and nobody knows how far they went. So a new
/// cluster begins where the time is: at 2^20 revisions for each second since 2020, which is more than a cluster can give
/// out meanwhile. Whoever begins later begins beyond all that an earlier one has given out till then, and every number
/// stays below 2^53, where a program that keeps numbers as floating point would lose some, until the year 2292.
///
/// A clock that is behind what the tree has says nothing: then the numbers leap by 2^40 and a random part of that. What this
/// can't keep apart are two that began with the same tree and live on beside each other: the earlier comes to where the
/// later began once it has executed a million commands for each second between. They have different cluster ids, which
/// clients tell apart.
package enum FirstRevision {
    package static let perSecond: UInt64 = 1 << 20
    /// All are below this.
    package static let end: UInt64 = 1 << 53
    /// 1 January 2020, in seconds since 1970.
    private static let epoch: Int64 = 1_577_836_800
    private static let leap: UInt64 = 1 << 40
    /// What a cluster must have left when it begins: centuries of writes.
    private static let room: UInt64 = 1 << 50

    /// The last revision that is left out, so that the new cluster's first is the one behind it.
    ///
    /// - Parameters:
    ///   - last: the last revision of the tree that goes on.
    ///   - wallTime: nanoseconds since 1970.
    /// - Returns: nil when there are none left: the clock is centuries ahead, or was.
    package static func base(after last: UInt64, wallTime: Int64, random: UInt64) -> (
        index: UInt64, isClockBehind: Bool
    )? {
        let seconds = wallTime / 1_000_000_000 - epoch
        let part = UInt64(max(0, wallTime % 1_000_000_000)) * perSecond / 1_000_000_000
        guard seconds < Int64(end / perSecond), last < end else { return nil }
        let byTime = seconds < 0 ? 0 : UInt64(seconds) * perSecond + part
        let isClockBehind = byTime <= last
        let index = isClockBehind ? last + leap + random % leap : byTime
        return index < end - room ? (index, isClockBehind) : nil
    }
}
