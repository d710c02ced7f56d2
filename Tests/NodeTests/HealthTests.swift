import Driver
import Raft
import Testing

@testable import Node

@Suite("Health")
struct HealthTests {
    private func damage(_ kind: StateDamage.Kind, _ reason: String = "x") -> StateDamage {
        StateDamage(kind: kind, reason: reason)
    }

    @Test("worse damage takes the place of milder, and milder changes nothing")
    func kinds() {
        var health = Health()
        #expect(health.found(damage(.rotten), isAlone: false, now: 1) == Health.Response())
        #expect(health.found(damage(.rotten), isAlone: false, now: 1) == nil)
        #expect(health.found(damage(.stopped), isAlone: false, now: 1) == Health.Response(refusesBackups: true))
        let worst = Health.Response(refusesBackups: true, dropsSpools: true)
        #expect(health.found(damage(.wrong), isAlone: false, now: 1) == worst)
        #expect(health.found(damage(.rotten), isAlone: false, now: 1) == nil)
        #expect(health.becameSound() && !health.becameSound() && health.damage == nil)
    }

    @Test("a lone member serves what it can, and tells of each damage once")
    func alone() {
        var health = Health()
        #expect(health.found(damage(.rotten), isAlone: true, now: 1) == Health.Response(isAlone: true))
        #expect(health.damage == nil)
        #expect(
            health.found(damage(.rotten), isAlone: true, now: 1) == Health.Response(isAlone: true, isNews: false))
        #expect(
            health.found(damage(.stopped, "y"), isAlone: true, now: 1)
                == Health.Response(isAlone: true, refusesBackups: true))
        #expect(health.damage?.kind == .stopped)
    }

    @Test("what is served of a damaged state depends on the kind of damage, and on what the reader may miss")
    func service() {
        let kinds: [(StateDamage.Kind?, linearizable: Bool, stale: Bool, snapshots: Bool, writes: Bool)] = [
            (nil, true, true, true, true), (.rotten, true, true, true, true), (.stopped, false, true, true, false),
            (.wrong, false, false, false, false), (.contradicted, false, false, true, false),
        ]
        for (kind, linearizable, stale, snapshots, writes) in kinds {
            var health = Health()
            if let kind { _ = health.found(damage(kind), isAlone: false, now: 1) }
            #expect(health.mustRefuse(.linearizable) == !linearizable, "\(kind.map { "\($0)" } ?? "sound")")
            #expect(health.mustRefuse(.stale(ageMax: 0)) == !stale)
            #expect(health.isFitForSnapshots == snapshots && health.isFitForWrites == writes)
        }
    }

    @Test("a damaged leader gives way now and then, a sound one never")
    func givingWay() {
        var health = Health()
        let start: Nanoseconds = 10_000_000_000
        #expect(health.givesWay(now: start) == false)
        _ = health.found(damage(.rotten), isAlone: false, now: start)
        #expect(health.givesWay(now: start) && !health.givesWay(now: start + Health.giveWayPause - 1))
        #expect(health.givesWay(now: start + Health.giveWayPause) == true)
    }

    @Test("a sound reading disproves rot that was found before it began, and nothing worse")
    func disproved() {
        var health = Health()
        #expect(health.isDisproved(bySoundReadingSince: 9) == false)
        _ = health.found(damage(.rotten), isAlone: false, now: 5)
        #expect(!health.isDisproved(bySoundReadingSince: 5) && health.isDisproved(bySoundReadingSince: 6))
        _ = health.found(damage(.wrong), isAlone: false, now: 5)
        #expect(health.isDisproved(bySoundReadingSince: 6) == false)
    }
}
