import Histogram

/// What a load saw.
package struct LoadResult: Sendable {
    package typealias Latencies = Histogram<UInt64>

    /// Acknowledged within the time that was measured.
    package internal(set) var operations = 0
    /// Refused: it is certain that nothing happened, or will.
    package internal(set) var refused = 0
    /// Sent, and never answered: it may have happened.
    package internal(set) var unknown = 0
    /// Of an open loop: due within the time that was measured, and never sent, since all clients waited for answers.
    package internal(set) var unsent = 0
    package internal(set) var firstError: String?
    /// Measured.
    package internal(set) var seconds: Double
    /// Microseconds, of all that was acknowledged: from when a request was sent, and in an open loop from when it was due.
    package internal(set) var latency = Self.latencies
    package internal(set) var latencyByOperation: [Load.Operation: Latencies] = [:]
    package internal(set) var timeline: [Second] = []
    /// Who led, and since which second.
    package internal(set) var leaders: [(second: Double, member: UInt64)] = []
    package internal(set) var faults: [FaultReport] = []
    /// How much of a processor's time the thread that makes the load used, from 0 to 1: near 1 it is itself the limit.
    package internal(set) var threadShare = 0.0
    /// How much of all processors' time was used, by anybody, from 0 to 1; nil where the system does not say.
    package internal(set) var machineShare: Double?

    package var errors: Int { refused + unknown }
    package var operationsPerSecond: Double { seconds > 0 ? Double(operations) / seconds : 0 }
    /// Of all that was due: what was refused, is unknown, or was never sent.
    package var errorRate: Double {
        let all = operations + errors + unsent
        return all == 0 ? 0 : Double(errors + unsent) / Double(all)
    }

    init(seconds: Double) { self.seconds = seconds }

    static var latencies: Latencies {
        Histogram<UInt64>(highestTrackableValue: 60_000_000, numberOfSignificantValueDigits: .three)
    }

    /// What was answered in one second.
    package struct Second: Sendable {
        /// From 1 on.
        package var second: Int
        package var operations = 0
        package var errors = 0
        /// Milliseconds.
        package var median = 0.0
        package var percentile99 = 0.0
        package var longest = 0.0
        /// 0: none that answers.
        package var leader: UInt64 = 0
    }

    /// What a fault did.
    package struct FaultReport: Sendable {
        package var description: String
        package var second: Double
        /// The longest time without any acknowledgement, from the fault on.
        package var gapSeconds = 0.0
        /// What became of the requests that were under way when it struck.
        package var acknowledged = 0
        package var refused = 0
        package var unknown = 0
    }
}

/// Something bad that is done to the cluster while it is loaded.
package struct Fault: Sendable {
    /// Since the measuring began.
    package var after: Duration
    /// Finds whom to strike, and answers with what will be done, and how to do it.
    package var aim: @Sendable () async throws -> (description: String, strike: @Sendable () -> Void)

    package init(
        after: Duration,
        aim: @escaping @Sendable () async throws -> (description: String, strike: @Sendable () -> Void)
    ) {
        self.after = after
        self.aim = aim
    }
}
