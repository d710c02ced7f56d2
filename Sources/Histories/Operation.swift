/// What a client asked of one file, and what it was told. Each value is written once in a run, and so names the write
/// that brought it; 0 stands for "no file".
package struct Operation: Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        case put(Int)
        case get
        /// Writes the second value if the file holds the first.
        case compareAndSet(Int, Int)
        case delete
    }

    package enum Outcome: Equatable, Sendable {
        case done
        case value(Int)
        /// The condition did not hold, or there was nothing to delete.
        case refused
        /// No answer came: it may have happened, may happen yet, or never.
        case unknown
    }

    package var client: Int
    package var file: Int
    package var kind: Kind
    package var invoked: UInt64
    /// Nil while the outcome is not known.
    package var returned: UInt64?
    package var outcome = Outcome.unknown

    package init(
        client: Int, file: Int, kind: Kind, invoked: UInt64, returned: UInt64? = nil, outcome: Outcome = .unknown
    ) {
        self.client = client
        self.file = file
        self.kind = kind
        self.invoked = invoked
        self.returned = returned
        self.outcome = outcome
    }

    /// The file's value afterwards, if the operation can take effect at `value` with its outcome; else nil.
    package func effect(on value: Int) -> Int? {
        switch (kind, outcome) {
        case (.put(let new), .done), (.put(let new), .unknown): new
        case (.get, .value(let seen)): seen == value ? value : nil
        case (.compareAndSet(let old, let new), .done): old == value ? new : nil
        case (.compareAndSet(let old, _), .refused): old == value ? nil : value
        case (.compareAndSet(let old, let new), .unknown): old == value ? new : value
        case (.delete, .done): value == 0 ? nil : 0
        case (.delete, .refused): value == 0 ? 0 : nil
        case (.delete, .unknown): 0
        default: nil
        }
    }
}
