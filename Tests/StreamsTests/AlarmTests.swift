import Synchronization
import Testing

@testable import Streams

@Suite("Alarm")
struct AlarmTests {
    private static let hour: Int64 = 3_600_000_000_000

    @Test("a thread sleeps until the time it waits for", arguments: [0, 2_000_000])
    func time(nanoseconds: Int64) {
        let alarm = Alarm()
        let end = monotonicNanoseconds() + nanoseconds
        while monotonicNanoseconds() < end { alarm.wait(noLaterThan: end) }
        // Over: it does not sleep for a time that has passed.
        alarm.wait(noLaterThan: end)
    }

    @Test("is made sooner while a thread sleeps", arguments: [hour, Int64.max])
    func sooner(than late: Int64) {
        let alarm = Alarm()
        let end = monotonicNanoseconds() + 1_000_000
        let limit = late == .max ? late : monotonicNanoseconds() + late
        let thread = TestThread { alarm.wait(noLaterThan: limit) }
        eventually { thread.isAsleep }
        alarm.set(noLaterThan: end)
        #expect(thread.join())
    }

    @Test("a later time changes nothing")
    func later() {
        let alarm = Alarm()
        let soon = monotonicNanoseconds() + 1_000_000
        alarm.set(noLaterThan: soon)
        alarm.set(noLaterThan: soon + AlarmTests.hour)
        alarm.wait(noLaterThan: soon + AlarmTests.hour)
        alarm.wait(noLaterThan: .max)
    }

    @Test("forgets what it was set to, and only that")
    func clear() {
        let alarm = Alarm()
        alarm.set(noLaterThan: 0)
        alarm.clear()
        let thread = TestThread { alarm.wait(noLaterThan: .max) }
        eventually { thread.isAsleep }
        alarm.set(noLaterThan: 0)
        #expect(thread.join())
    }

    @Test("no deadline is missed by a thread that looks and waits")
    func race() {
        let alarm = Alarm()
        let deadlines = Mutex<[Int64]>([])
        let met = Atomic<Int>(0)
        let count = 2000
        let keeper = TestThread {
            while met.load(ordering: .sequentiallyConsistent) < count {
                alarm.clear()
                let now = monotonicNanoseconds()
                let next = deadlines.withLock { deadlines in
                    met.add(deadlines.count { $0 <= now }, ordering: .sequentiallyConsistent)
                    deadlines.removeAll { $0 <= now }
                    return deadlines.min() ?? .max
                }
                if met.load(ordering: .sequentiallyConsistent) < count { alarm.wait(noLaterThan: next) }
            }
        }
        onThreads(4) { number in
            for step in 0..<(count / 4) {
                let deadline = monotonicNanoseconds() + Int64((step * 7 + number) % 50) * 1000
                deadlines.withLock { $0.append(deadline) }
                alarm.set(noLaterThan: deadline)
            }
        }
        #expect(keeper.join())
    }
}
