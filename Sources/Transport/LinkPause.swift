import NIOCore

/// How long a link waits before it connects again. Nothing that is said at the other end stops it for good: it may have been
/// said by anybody who sits at that address today.
package struct LinkPause: Sendable {
    private static let broken = (first: TimeAmount.milliseconds(20), last: TimeAmount.milliseconds(500))
    /// What was refused for a reason will be refused again.
    private static let refused = (first: TimeAmount.milliseconds(250), last: TimeAmount.seconds(5))
    /// A connection that was of use for so long begins anew; one that says welcome and ends at once is like one that never was.
    private static let steady = (afterBreak: TimeAmount.seconds(1), afterRefusal: TimeAmount.seconds(10))

    private var afterBreak = Self.broken.first
    private var afterRefusal = Self.refused.first

    package init() {}

    /// - Parameters:
    ///   - wasReadyFor: how long the connection that ended was ready; nil if it never was.
    ///   - isRefused: the other side said why it wants none, or is not the one that was meant.
    package mutating func next(wasReadyFor: TimeAmount?, isRefused: Bool) -> TimeAmount {
        if let wasReadyFor, wasReadyFor >= Self.steady.afterBreak { afterBreak = Self.broken.first }
        if let wasReadyFor, wasReadyFor >= Self.steady.afterRefusal { afterRefusal = Self.refused.first }
        let pause = isRefused ? afterRefusal : afterBreak
        if isRefused {
            afterRefusal = min(pause * 2, Self.refused.last)
        } else {
            afterBreak = min(pause * 2, Self.broken.last)
        }
        return pause
    }
}
