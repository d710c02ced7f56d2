import Foundation

/// What all clients of a run did, in any order.
package typealias History = [Operation]

/// A history in a file of JSON lines, one operation a line, so that other checkers can read it:
///
///     {"client":0,"file":2,"operation":"put","value":17,"invoked":120,"returned":480,"outcome":"done"}
///     {"client":1,"file":2,"operation":"get","invoked":130,"returned":500,"outcome":"value","seen":17}
///     {"client":0,"file":2,"operation":"compare-and-set","expected":17,"value":18,"invoked":510,"outcome":"unknown"}
///     {"client":1,"file":2,"operation":"delete","invoked":520,"returned":530,"outcome":"refused"}
///
/// `invoked` and `returned` are nanoseconds of one clock; what has no `returned` has an unknown outcome: it may have
/// happened at any time after `invoked`, or never. Each value is written once in a run; 0 stands for "no file". `refused`:
/// the condition did not hold, or there was nothing to delete.
package enum HistoryFile {
    private struct Line: Codable {
        var client: Int
        var file: Int
        var operation: String
        var expected: Int?
        var value: Int?
        var invoked: UInt64
        var returned: UInt64?
        var outcome: String
        var seen: Int?
    }

    package struct Malformed: Error, CustomStringConvertible {
        let line: Int
        package var description: String { "line \(line) is no operation of a history" }
    }

    package static func encode(_ history: History) throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        var data = Data()
        for operation in history {
            data += try encoder.encode(line(operation))
            data.append(10)
        }
        return data
    }

    package static func decode(_ data: Data) throws -> History {
        let decoder = JSONDecoder()
        return try data.split(separator: 10).enumerated().map { number, bytes in
            guard let line = try? decoder.decode(Line.self, from: bytes), let operation = operation(line) else {
                throw Malformed(line: number + 1)
            }
            return operation
        }
    }

    private static func line(_ operation: Operation) -> Line {
        var line = Line(
            client: operation.client, file: operation.file, operation: "", invoked: operation.invoked,
            returned: operation.returned, outcome: "")
        switch operation.kind {
        case .put(let value): (line.operation, line.value) = ("put", value)
        case .get: line.operation = "get"
        case .compareAndSet(let old, let new):
            (line.operation, line.expected, line.value) = ("compare-and-set", old, new)
        case .delete: line.operation = "delete"
        }
        switch operation.outcome {
        case .done: line.outcome = "done"
        case .value(let value): (line.outcome, line.seen) = ("value", value)
        case .refused: line.outcome = "refused"
        case .unknown: line.outcome = "unknown"
        }
        return line
    }

    private static func operation(_ line: Line) -> Operation? {
        let kind: Operation.Kind
        switch (line.operation, line.expected, line.value) {
        case ("put", nil, let value?): kind = .put(value)
        case ("get", nil, nil): kind = .get
        case ("compare-and-set", let old?, let new?): kind = .compareAndSet(old, new)
        case ("delete", nil, nil): kind = .delete
        default: return nil
        }
        let outcome: Operation.Outcome
        switch (line.outcome, line.seen) {
        case ("done", nil): outcome = .done
        case ("value", let seen?): outcome = .value(seen)
        case ("refused", nil): outcome = .refused
        case ("unknown", nil): outcome = .unknown
        default: return nil
        }
        guard (line.returned == nil) == (outcome == .unknown), line.returned.map({ $0 >= line.invoked }) ?? true else {
            return nil
        }
        return Operation(
            client: line.client, file: line.file, kind: kind, invoked: line.invoked, returned: line.returned,
            outcome: outcome)
    }
}
