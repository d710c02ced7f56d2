import Histogram

/// What a load saw.
package struct LoadResult: Sendable {
    package typealias Latencies = Histogram<UInt64>

    /// Acknowledged within the time that was measured.
    package internal(set) var operations = 0
    /// Due within the time that was measured. Of an open loop, the schedule's; of a closed one, what was sent.
    package internal(set) var due = 0
    /// Due before that time, and ended within it: what the warm-up left. Every request that was due ended in one way:
    /// `due + carried` is `operations + late + refused + unknown + unsent`.
    package internal(set) var carried = 0
    /// Due within that time, and acknowledged after it.
    package internal(set) var late = 0
    /// Refused: it is certain that nothing happened, or will.
    package internal(set) var refused = 0
    /// Sent, and never answered: it may have happened.
    package internal(set) var unknown = 0
    /// Of an open loop: due within the time that was measured, and not sent until a second after it, since all clients waited
    /// for answers.
    package internal(set) var unsent = 0
    package internal(set) var firstError: String?
    /// Measured.
    package internal(set) var seconds: Double
    /// Microseconds that requests which were due within the measured time waited for their end, whatever that was: from
    /// when one was sent, and in an open loop from when it was due. What was never sent waited until all answers were in.
    package internal(set) var latency = Self.latencies
    package internal(set) var latencyByOperation: [Load.Operation: Latencies] = [:]
    package internal(set) var timeline: [Second] = []
    package internal(set) var leaders: [LeaderChange] = []
    package internal(set) var faults: [FaultReport] = []
    /// How much of a processor's time the thread that makes the load used, from 0 to 1: near 1 it is itself the limit.
    package internal(set) var threadShare = 0.0
    /// For how much of the time that thread could have run, and waited for a processor; nil where the system does not say.
    package internal(set) var threadWaiting: Double?
    /// How much of all processors' time was used, by anybody, from 0 to 1; nil where the system does not say.
    package internal(set) var machineShare: Double?

    package var errors: Int { refused + unknown }
    package var operationsPerSecond: Double { seconds > 0 ? Double(operations) / seconds : 0 }
    /// Of all that was due: what was refused, is unknown, or was never sent.
    package var errorRate: Double {
        let all = operations + late + errors + unsent
        return all == 0 ? 0 : Double(errors + unsent) / Double(all)
    }

    init(seconds: Double) { self.seconds = seconds }

    static var latencies: Latencies {
        // It grows with what it has to keep: a wait of hours is kept like any other.
        Histogram<UInt64>(numberOfSignificantValueDigits: .three)
    }

    /// What was answered in a part of the time: a second, or a tenth of one where the whole is short.
    package struct Second: Sendable, Encodable {
        /// At which its part ends.
        package var second: Double
        /// How long its part is.
        package var length: Double
        package var operations = 0
        package var errors = 0
        /// Milliseconds, of what was acknowledged; nil when nothing was.
        package var p50: Double?
        package var p99: Double?
        package var max: Double?
        /// 0: none that answers.
        package var leader: UInt64 = 0

        package var operationsPerSecond: Double { Double(operations) / length }
    }

    /// Who led from a second on; 0: nobody that answers.
    package struct LeaderChange: Sendable, Encodable {
        package var second: Double
        package var member: UInt64
    }

    /// What a fault did.
    package struct FaultReport: Sendable, Encodable {
        package var description: String
        package var second: Double
        /// The longest time without any acknowledgement (of a write, if the load has any) from the fault on.
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
    package var aim: @Sendable () async throws -> (description: String, strike: @Sendable () throws -> Void)

    package init(
        after: Duration,
        aim: @escaping @Sendable () async throws -> (description: String, strike: @Sendable () throws -> Void)
    ) {
        self.after = after
        self.aim = aim
    }
}
