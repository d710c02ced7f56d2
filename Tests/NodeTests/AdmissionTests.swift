import Raft
import Testing
import Transport

@Suite("Connections that a member has")
struct AdmissionTests {
    private static let second: Nanoseconds = 1_000_000_000

    private static func limits(clients: Int, operators: Int = 1, peers: Int = 2, strangers: Int = 2)
        -> Admission.Limits
    {
        var limits = Admission.Limits(descriptors: 1024)
        (limits.clients, limits.operators, limits.peers, limits.strangers) = (clients, operators, peers, strangers)
        return limits
    }

    @Test(
        "descriptors are left for peers, operators and files, however few there are",
        arguments: [64, 256, 1024, 1 << 20])
    func reserve(descriptors: Int) {
        let limits = Admission.Limits(descriptors: descriptors)
        let all = limits.clients + limits.operators + limits.peers + limits.strangers
        #expect(all <= descriptors - descriptors / 5 || all <= descriptors - 128)
        #expect(limits.clients >= 8 && limits.clients <= 4096)
    }

    @Test("the longest idle client gives way to a newcomer, and none that has something under way")
    func givingWay() {
        var admission = Admission(Self.limits(clients: 2))
        func greet(_ id: UInt64, isPeer: Bool = false, at now: Nanoseconds, _ isBusy: (UInt64) -> Bool)
            -> Admission.Verdict
        {
            admission.greeted(id, isPeer: isPeer, at: now, isBusy: isBusy)
        }
        let idle: (UInt64) -> Bool = { _ in false }
        #expect(greet(1, at: 1, idle) == .welcome(insteadOf: nil))
        #expect(greet(2, at: 2, idle) == .welcome(insteadOf: nil))
        admission.heard(1, at: 3)
        #expect(greet(3, at: 4, idle) == .welcome(insteadOf: 2))
        #expect(greet(4, at: 5) { $0 == 1 } == .welcome(insteadOf: 3))
        // Peers have places of their own.
        #expect(greet(5, isPeer: true, at: 6, idle) == .welcome(insteadOf: nil))
        admission.closed(4)
        #expect(greet(6, at: 7) { _ in true } == .welcome(insteadOf: nil))
    }

    @Test("while all are busy, some are let in for administration, and then nobody; a peer always")
    func busy() {
        var admission = Admission(Self.limits(clients: 1))
        func greet(_ id: UInt64, isPeer: Bool = false, at now: Nanoseconds, _ isBusy: (UInt64) -> Bool)
            -> Admission.Verdict
        {
            admission.greeted(id, isPeer: isPeer, at: now, isBusy: isBusy)
        }
        let busy: (UInt64) -> Bool = { _ in true }
        #expect(greet(1, at: 1, busy) == .welcome(insteadOf: nil))
        #expect(greet(2, at: 2, busy) == .operators(insteadOf: nil))
        #expect(greet(3, at: 3, busy) == .full)
        #expect(greet(4, at: 4) { $0 == 1 } == .operators(insteadOf: 2))
        for id in 5...6 {
            #expect(greet(UInt64(id), isPeer: true, at: 5, busy) == .welcome(insteadOf: nil))
        }
        #expect(greet(7, isPeer: true, at: 6, busy) == .welcome(insteadOf: 6))
    }

    @Test("who says no hello is sent away in time, and gives way before to who comes")
    func strangers() {
        var admission = Admission(Self.limits(clients: 2))
        func greet(_ id: UInt64, isPeer: Bool = false, at now: Nanoseconds, _ isBusy: (UInt64) -> Bool)
            -> Admission.Verdict
        {
            admission.greeted(id, isPeer: isPeer, at: now, isBusy: isBusy)
        }
        func open(_ id: UInt64, at now: Nanoseconds) -> UInt64? { admission.opened(id, at: now) }
        #expect(open(1, at: 0) == nil)
        #expect(open(2, at: 1) == nil)
        #expect(open(3, at: 2) == 1)
        #expect(admission.overdue(at: Admission.helloMax).isEmpty)
        #expect(admission.overdue(at: Admission.helloMax + 1) == [2])
        _ = greet(2, at: 3) { _ in false }
        admission.closed(3)
        #expect(admission.overdue(at: 100 * Self.second).isEmpty)
    }

    @Test("a frame that comes byte by byte ends, one without its last byte too, and one that gets on does not")
    func frames() {
        func end(_ count: UInt64, bytesAt: (UInt64) -> UInt64, framesAt: (UInt64) -> UInt64 = { _ in 0 }) -> UInt64? {
            var deadline = FrameDeadline()
            return (0..<count).first {
                deadline.isOver(frames: framesAt($0), bytes: bytesAt($0), isUnfinished: true, at: $0 * Self.second)
            }
        }
        #expect(end(100) { $0 } == 10)
        #expect(end(100) { _ in 1 << 20 } == 10)
        #expect(end(100) { $0 * (7 << 10) } == nil)
        #expect(end(100) { $0 * (6 << 10) } == 10)
        // Small ones, one after the other: each is another.
        #expect(end(100, bytesAt: { $0 }, framesAt: { $0 }) == nil)
        var idle = FrameDeadline()
        for time in 0..<100 {
            let isOver = idle.isOver(frames: 1, bytes: 40, isUnfinished: false, at: UInt64(time) * Self.second)
            #expect(!isOver)
        }
    }
}
