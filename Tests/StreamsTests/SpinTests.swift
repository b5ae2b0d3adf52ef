import Glibc
import Synchronization
import Testing

@testable import Streams

/// Nothing here depends on how fast the machine is: where a test needs a sleep to have been short, it looks
/// at the clock itself and tries again where the machine was busy.
@Suite("Spin")
struct SpinTests {
    /// How often a wait in vain looks for work; 1 where it does not spin.
    private func looksInVain(_ spin: inout Spin) -> Int {
        var looks = 0
        let found = spin.wait {
            looks += 1
            return false
        }
        #expect(!found)
        return looks
    }

    /// A spin whose last sleep was short, so that it pays off.
    private func paying() throws -> Spin {
        for _ in 0..<100_000 {
            var spin = Spin()
            let start = monotonicNanoseconds()
            _ = spin.wait { false }
            spin.woken()
            if monotonicNanoseconds() - start < 40_000 { return spin }
        }
        Issue.record("this machine has no 40 µs to spare")
        return Spin()
    }

    @Test("finds work that is there at the first look, without a look at the clock's state")
    func workIsThere() throws {
        var spin = Spin()
        var looks = 0
        let found = spin.wait {
            looks += 1
            return true
        }
        #expect(found)
        #expect(looks == 1)
        // It says nothing about sleeps: a spin that paid off goes on to.
        spin = try paying()
        #expect(spin.wait { true })
        #expect(looksInVain(&spin) > 1)
    }

    @Test("looks once, and does not spin, where it never paid off")
    func firstWait() {
        var spin = Spin()
        #expect(looksInVain(&spin) == 1)
        #expect(looksInVain(&spin) == 1)
    }

    @Test("spins after a short sleep")
    func afterShortSleep() throws {
        var spin = try paying()
        #expect(looksInVain(&spin) >= 33)
    }

    @Test("finds work that comes while it spins, at the look at which it is there", arguments: 2...33)
    func workComes(atLook: Int) throws {
        // The first look and a round of 32 are made before it looks at the clock again.
        var spin = try paying()
        var looks = 0
        let found = spin.wait {
            looks += 1
            return looks == atLook
        }
        #expect(found)
        #expect(looks == atLook)
        // Work was found: spinning still pays off.
        #expect(looksInVain(&spin) >= 33)
    }

    @Test("does not spin again after it did in vain, until a sleep was short")
    func afterSpinInVain() throws {
        for _ in 0..<100_000 {
            var spin = try paying()
            #expect(looksInVain(&spin) >= 33)
            #expect(looksInVain(&spin) == 1)
            let start = monotonicNanoseconds()
            #expect(looksInVain(&spin) == 1)
            spin.woken()
            if monotonicNanoseconds() - start >= 40_000 { continue }
            #expect(looksInVain(&spin) >= 33)
            return
        }
        Issue.record("this machine has no 40 µs to spare")
    }

    @Test("the sleep after a spin in vain is measured from the end of the spin")
    func sleepAfterSpin() throws {
        for _ in 0..<100_000 {
            var spin = try paying()
            #expect(looksInVain(&spin) >= 33)
            // With the 20 µs of the spin this would be a long sleep.
            let start = monotonicNanoseconds()
            while monotonicNanoseconds() - start < 35_000 {}
            spin.woken()
            // Preempted on the way: try again.
            if monotonicNanoseconds() - start >= 45_000 { continue }
            let looks = looksInVain(&spin)
            if looks == 1 { continue }
            #expect(looks >= 33)
            return
        }
        Issue.record("it never spun again")
    }

    @Test("does not spin after a long sleep")
    func afterLongSleep() throws {
        for wasPaying in [false, true] {
            var spin = wasPaying ? try paying() : Spin()
            _ = looksInVain(&spin)
            usleep(200)
            spin.woken()
            #expect(looksInVain(&spin) == 1)
        }
    }

    @Test("spins for about 20 µs and no longer")
    func duration() throws {
        var shortest = Int64.max
        var cheapest = Int64.max
        for _ in 0..<50 {
            var spin = try paying()
            let start = monotonicNanoseconds()
            let used = cpuTime()
            _ = looksInVain(&spin)
            cheapest = min(cheapest, cpuTime() - used)
            shortest = min(shortest, monotonicNanoseconds() - start)
        }
        #expect(shortest >= 20_000)
        // Of the processor, not of the clock: it yields to others, who may take their time. The cheapest of
        // many, because interrupts count too.
        #expect(cheapest < 1_000_000)
    }

    @Test("sees work that another thread makes")
    func otherThread() throws {
        let work = Atomic<Int>(0)
        let taken = Atomic<Int>(0)
        let rounds = 100
        onThreads(2) { index in
            if index == 0 {
                for number in 1...rounds {
                    work.store(number, ordering: .sequentiallyConsistent)
                    eventually { taken.load(ordering: .sequentiallyConsistent) == number }
                }
                return
            }
            var spin = Spin()
            for number in 1...rounds {
                while !spin.wait(until: { work.load(ordering: .sequentiallyConsistent) == number }) {
                    sched_yield()
                    spin.woken()
                }
                taken.store(number, ordering: .sequentiallyConsistent)
            }
        }
        #expect(taken.load(ordering: .sequentiallyConsistent) == rounds)
    }
}
