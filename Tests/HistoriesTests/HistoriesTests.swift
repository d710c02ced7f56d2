import Foundation
import Testing

@testable import Histories

@Suite("The checker of histories")
struct LinearizabilityTests {
    private static func operation(
        _ kind: Histories.Operation.Kind, _ outcome: Histories.Operation.Outcome, _ invoked: UInt64,
        _ returned: UInt64?, client: Int = 0
    ) -> Histories.Operation {
        Histories.Operation(client: client, file: 0, kind: kind, invoked: invoked, returned: returned, outcome: outcome)
    }

    @Test("good histories have an order")
    func good() {
        let put = Self.operation(.put(1), .done, 1, 4)
        let histories: [History] = [
            [], [put, Self.operation(.get, .value(1), 5, 6)],
            // Reads beside a put may see it or not, in the order of their moments.
            [put, Self.operation(.get, .value(0), 2, 3, client: 1), Self.operation(.get, .value(1), 3, 5, client: 2)],
            // An unknown put may happen late, or never.
            [
                Self.operation(.put(1), .unknown, 1, nil), Self.operation(.get, .value(0), 2, 3, client: 1),
                Self.operation(.get, .value(1), 4, 5, client: 1),
            ],
            [Self.operation(.put(1), .unknown, 1, nil), Self.operation(.get, .value(0), 9, 10, client: 1)],
            [
                put, Self.operation(.compareAndSet(1, 2), .done, 5, 8),
                Self.operation(.compareAndSet(1, 3), .refused, 5, 8, client: 1), Self.operation(.get, .value(2), 9, 10),
            ],
            [put, Self.operation(.delete, .done, 5, 6), Self.operation(.delete, .refused, 7, 8)],
        ]
        for history in histories { #expect(Linearizability.check(history) == .linearizable, "\(history)") }
    }

    @Test("bad histories have none")
    func bad() {
        let put = Self.operation(.put(1), .done, 1, 2)
        let histories: [History] = [
            // A stale read.
            [put, Self.operation(.get, .value(0), 3, 4)],
            // A value that was never written.
            [put, Self.operation(.get, .value(9), 3, 4)],
            // A value that comes back.
            [
                put, Self.operation(.put(2), .done, 3, 4), Self.operation(.get, .value(2), 5, 6),
                Self.operation(.get, .value(1), 7, 8),
            ],
            // Two clients win the same comparison.
            [
                put, Self.operation(.compareAndSet(1, 2), .done, 3, 6),
                Self.operation(.compareAndSet(1, 3), .done, 3, 6, client: 1),
            ],
            // Seen, and then unseen.
            [
                Self.operation(.put(1), .unknown, 1, nil), Self.operation(.get, .value(1), 2, 3, client: 1),
                Self.operation(.get, .value(0), 4, 5, client: 1),
            ],
            [put, Self.operation(.delete, .refused, 3, 4)],
        ]
        for history in histories { #expect(Linearizability.check(history) == .violated, "\(history)") }
    }

    @Test("a history is read back from its file as it was written, and anything else is refused")
    func file() throws {
        let history: History = [
            Self.operation(.put(17), .done, 1, 4), Self.operation(.get, .value(17), 5, 6, client: 1),
            Self.operation(.compareAndSet(17, 18), .unknown, 7, nil), Self.operation(.delete, .refused, 8, 9),
        ]
        let data = try HistoryFile.encode(history)
        #expect(try HistoryFile.decode(data) == history)
        let line = String(decoding: data.prefix { $0 != 10 }, as: UTF8.self)
        #expect(
            line == #"{"client":0,"file":0,"invoked":1,"operation":"put","outcome":"done","returned":4,"value":17}"#)
        for wrong in [
            "{}", "x", line.replacingOccurrences(of: "put", with: "get"),
            line.replacingOccurrences(of: "\"returned\":4", with: "\"returned\":0"),
            line.replacingOccurrences(of: ",\"returned\":4", with: ""),
        ] {
            #expect(throws: HistoryFile.Malformed.self, "\(wrong)") { try HistoryFile.decode(Data(wrong.utf8)) }
        }
    }
}
