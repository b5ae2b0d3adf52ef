import Glibc
import Synchronization
import Testing

@testable import Streams

@Suite("KeyBell")
struct KeyBellTests {
    /// Whether a loop would be woken now.
    private func isReadable(_ bell: KeyBell) -> Bool {
        var waiting = pollfd(fd: bell.descriptor.number, events: Int16(POLLIN), revents: 0)
        return poll(&waiting, 1, 0) == 1
    }

    @Test("is readable while there are keys, and gives each once")
    func keys() throws {
        let bell = try KeyBell()
        #expect(!isReadable(bell))
        #expect(bell.drain() == [])
        bell.ring(3)
        #expect(isReadable(bell))
        bell.ring(1)
        bell.ring(3)
        #expect(bell.drain() == [3, 1, 3])
        #expect(!isReadable(bell))
        #expect(bell.drain() == [])
        bell.ring(Int.min)
        #expect(isReadable(bell))
        #expect(bell.drain() == [Int.min])
    }

    @Test("closes its descriptor, and no program that is executed inherits it")
    func descriptor() throws {
        for _ in 0..<3000 {
            let bell = try KeyBell()
            bell.ring(1)
            // The kernel hands out the lowest free number.
            if bell.descriptor.number >= 2500 { Issue.record("number \(bell.descriptor.number)") }
        }
        let bell = try KeyBell()
        withExtendedLifetime(bell) { #expect(closesOnExec(bell.descriptor.number)) }
    }

    @Test("no key of many threads is lost: whoever sleeps until it is readable gets all")
    func manyThreads() throws {
        let bell = try KeyBell()
        let ringers = 4
        let each = 3000
        let drained = Mutex<[Int]>([])
        onThreads(ringers + 1) { index in
            if index < ringers {
                for number in 0..<each { bell.ring(index * each + number) }
                return
            }
            var mine: [Int] = []
            while mine.count < ringers * each {
                var waiting = pollfd(fd: bell.descriptor.number, events: Int16(POLLIN), revents: 0)
                // A key without a wake-up would be waited for in vain.
                guard poll(&waiting, 1, Int32(patience * 1000)) == 1 else {
                    Issue.record("it was not rung after \(mine.count) keys")
                    break
                }
                mine += bell.drain()
            }
            drained.withLock { $0 = mine }
        }
        let all = drained.withLock { $0 }
        #expect(all.sorted() == Array(0..<ringers * each))
        for ringer in 0..<ringers {
            let ofRinger = all.filter { $0 / each == ringer }
            #expect(ofRinger == ofRinger.sorted())
        }
        #expect(!isReadable(bell))
    }
}
