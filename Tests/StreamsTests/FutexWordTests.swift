import Glibc
import Synchronization
import Testing

@testable import Streams

@Suite("FutexWord")
struct FutexWordTests {
    @Test("reads, writes and exchanges whole words", arguments: [0, 1, 0x1234_5678, UInt32.max])
    func values(value: UInt32) {
        let word = FutexWord(value)
        #expect(word.value == value)
        word.store(~value)
        #expect(word.value == ~value)
        #expect(word.exchange(value) == ~value)
        #expect(word.value == value)
    }

    @Test("does not sleep where the word has another value")
    func otherValue() {
        let word = FutexWord(1)
        word.wait(while: 0)
        word.wait(while: 0, nanoseconds: .max)
        #expect(word.value == 1)
    }

    @Test("sleeps no longer than it is told", arguments: [0, 1, 2_000_000])
    func limit(nanoseconds: Int64) {
        let word = FutexWord(0)
        let start = monotonicNanoseconds()
        word.wait(while: 0, nanoseconds: nanoseconds)
        let elapsed = monotonicNanoseconds() - start
        #expect(elapsed >= nanoseconds)
        #expect(elapsed < Int64(patience) * 1_000_000_000)
        #expect(word.value == 0)
    }

    @Test("does not sleep for a negative time", arguments: [-1, -1_000_000_000, Int64.min])
    func negativeLimit(nanoseconds: Int64) {
        FutexWord(0).wait(while: 0, nanoseconds: nanoseconds)
    }

    @Test("a signal may end a sleep, which the word does not show")
    func interrupted() {
        installInterruption()
        let word = FutexWord(0)
        let wakes = Atomic<Int>(0)
        let thread = TestThread {
            while word.value == 0 {
                word.wait(while: 0)
                wakes.add(1, ordering: .sequentiallyConsistent)
            }
        }
        for number in 1...20 {
            eventually { thread.isAsleep }
            thread.interrupt()
            eventually { wakes.load(ordering: .sequentiallyConsistent) == number }
        }
        word.store(1)
        word.wake()
        thread.join()
    }

    @Test("waking nobody does nothing")
    func wakingNobody() {
        let word = FutexWord(0)
        word.wake()
        word.wake(100)
        #expect(word.value == 0)
    }

    @Test("a thread that sleeps is woken by a change", arguments: [nil, Int64.max])
    func waking(limit: Int64?) {
        for round in 0..<200 {
            let word = FutexWord(0)
            let thread = TestThread {
                while word.value == 0 { word.wait(while: 0, nanoseconds: limit) }
            }
            // Half of them are woken out of their sleep, the others on the way to it.
            if round % 2 == 0 { eventually { thread.isAsleep } }
            word.store(1)
            word.wake()
            thread.join()
        }
    }

    @Test("all that sleep are woken at once")
    func wakingAll() {
        for _ in 0..<20 {
            let word = FutexWord(0)
            let threads = (0..<8).map { _ in
                TestThread { while word.value == 0 { word.wait(while: 0) } }
            }
            for thread in threads { eventually { thread.isAsleep } }
            word.store(1)
            word.wake(.max)
            for thread in threads { thread.join() }
        }
    }

    @Test("one wake is enough for one sleeper, however many there are")
    func wakingOneByOne() {
        // As many permits as threads, each woken for once: a lost one leaves a thread asleep.
        let permits = FutexWord(0)
        let taken = Atomic<Int>(0)
        let threads = (0..<6).map { _ in
            TestThread {
                while permits.exchange(0) == 0 { permits.wait(while: 0) }
                taken.add(1, ordering: .sequentiallyConsistent)
            }
        }
        for thread in threads { eventually { thread.isAsleep } }
        for number in 1...6 {
            permits.store(1)
            permits.wake()
            eventually { taken.load(ordering: .sequentiallyConsistent) == number }
        }
        for thread in threads { thread.join() }
    }

    @Test("two threads hand a turn to each other thousands of times")
    func turns() {
        let turn = FutexWord(0)
        let rounds = 3000
        onThreads(2) { index in
            let mine = UInt32(index)
            for _ in 0..<rounds {
                while turn.value != mine { turn.wait(while: 1 - mine) }
                turn.store(1 - mine)
                turn.wake()
            }
        }
        #expect(turn.value == 0)
    }

    @Test("a lock that is made of it excludes, and shows what was written under it")
    func lock() {
        // Not atomic on purpose: only the lock orders the threads, which the thread sanitizer checks.
        final class Unguarded: @unchecked Sendable { var number = 0 }
        let unguarded = Unguarded()
        // 0 is free, 1 is held, 2 is held and perhaps waited for.
        let word = FutexWord(0)
        onThreads(4) { _ in
            for _ in 0..<2000 {
                while word.exchange(2) != 0 { word.wait(while: 2) }
                unguarded.number += 1
                if word.exchange(0) == 2 { word.wake() }
            }
        }
        #expect(unguarded.number == 8000)
    }
}
