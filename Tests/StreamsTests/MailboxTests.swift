import Glibc
import Synchronization
import Testing

@testable import Streams

@Suite("Mailbox")
struct MailboxTests {
    @Test("gives back in the order it was given")
    func order() {
        let mailbox = Mailbox<Int>(limit: 10)
        #expect(mailbox.isEmpty)
        #expect(mailbox.popFirst() == nil)
        for number in 0..<10 { #expect(mailbox.push(number) == .queued) }
        #expect(mailbox.count == 10)
        for number in 0..<10 { #expect(mailbox.popFirst() == number) }
        #expect(mailbox.popFirst() == nil)
        #expect(mailbox.isEmpty)
    }

    @Test("refuses what is over its limit, and takes again when there is room")
    func limit() {
        let mailbox = Mailbox<Int>(limit: 3)
        for number in 0..<3 { #expect(mailbox.push(number) == .queued) }
        #expect(mailbox.push(3) == .full)
        #expect(mailbox.count == 3)
        #expect(mailbox.popFirst() == 0)
        #expect(mailbox.push(4) == .queued)
        #expect(mailbox.push(5) == .full)
        #expect([mailbox.popFirst(), mailbox.popFirst(), mailbox.popFirst()] == [1, 2, 4])
    }

    @Test("takes nothing where its limit is nothing", arguments: [0, -1, Int.min])
    func noRoom(limit: Int) {
        #expect(Mailbox<Int>(limit: limit).push(1) == .full)
    }

    @Test("holds optional elements like others")
    func optionalElements() {
        let mailbox = Mailbox<Int?>(limit: 4)
        #expect(mailbox.push(nil) == .queued)
        #expect(mailbox.push(1) == .queued)
        #expect(mailbox.push(nil) == .queued)
        #expect(mailbox.popFirst() == .some(.none))
        #expect(mailbox.close() == [1, nil])
    }

    @Test("shows what is in hand and what waits, oldest first")
    func shows() {
        let mailbox = Mailbox<Int>(limit: 10)
        for number in 0..<5 { _ = mailbox.push(number) }
        _ = mailbox.popFirst()
        _ = mailbox.takeFirst()
        _ = mailbox.takeFirst()
        var seen: [Int] = []
        mailbox.forEach { seen.append($0) }
        #expect(seen == [1, 2, 3, 4])
        _ = mailbox.close()
        mailbox.forEach { _ in Issue.record("it is closed") }
    }

    @Test("does what a plain array does, whatever is pushed and popped", arguments: 0..<8)
    func model(seed: Int) {
        var random = Randomness(seed: seed)
        let mailbox = Mailbox<Int>(limit: 3000)
        var model: [Int] = []
        var next = 0
        // Phases that fill and phases that drain, so that the array is made compact at many depths.
        for phase in 0..<20 {
            let filling = phase % 2 == 0
            for _ in 0..<Int.random(in: 1...1500, using: &random) {
                if Int.random(in: 0..<10, using: &random) < (filling ? 8 : 3) {
                    let outcome = mailbox.push(next)
                    #expect(outcome == (model.count < 3000 ? .queued : .full))
                    if outcome == .queued { model.append(next) }
                    next += 1
                } else {
                    let expected = model.isEmpty ? nil : model.removeFirst()
                    let element = mailbox.popFirst()
                    if element != expected { Issue.record("\(element as Any), not \(expected as Any)") }
                }
                if mailbox.count != model.count { Issue.record("\(mailbox.count), not \(model.count)") }
            }
        }
        #expect(mailbox.close() == model)
    }

    // MARK: Closing

    @Test("gives the rest when it is closed, once, and refuses from then on")
    func close() {
        let mailbox = Mailbox<Int>(limit: 10)
        for number in 0..<5 { #expect(mailbox.push(number) == .queued) }
        #expect(mailbox.popFirst() == 0)
        #expect(mailbox.popFirst() == 1)
        #expect(mailbox.close() == [2, 3, 4])
        #expect(mailbox.isEmpty)
        #expect(mailbox.popFirst() == nil)
        #expect(mailbox.push(9) == .closed)
        #expect(mailbox.isEmpty)
        #expect(mailbox.close() == [])
    }

    @Test("close gives back what is in hand too, the work that was begun first before the rest")
    func inHand() {
        let mailbox = Mailbox<Int>(limit: 10)
        #expect(mailbox.takeFirst() == nil)
        #expect(mailbox.finish(takingNext: true) == nil)
        for number in 0..<6 { #expect(mailbox.push(number) == .queued) }
        #expect(mailbox.takeFirst() == 0)
        #expect(mailbox.finish(takingNext: true) == 1)
        // On top of 1, 2 is begun and ended, then 3 and 4.
        #expect(mailbox.takeFirst() == 2)
        #expect(mailbox.finish(takingNext: false) == nil)
        #expect(mailbox.takeFirst() == 3)
        #expect(mailbox.takeFirst() == 4)
        #expect(mailbox.count == 1)
        #expect(mailbox.close() == [1, 3, 4, 5])
        #expect(mailbox.finish(takingNext: true) == nil)
        #expect(mailbox.close() == [])
    }

    @Test("an element is in hand or waiting at every moment: close finds it", arguments: 0..<50)
    func closeDuringWork(seed: Int) {
        let mailbox = Mailbox<Int>(limit: .max)
        for number in 0..<1000 { _ = mailbox.push(number) }
        let finished = Mutex<Int>(0)
        let rest = Mutex<[Int]>([])
        onThreads(2) { index in
            if index == 0 {
                var next = mailbox.takeFirst()
                while next != nil {
                    next = mailbox.finish(takingNext: true)
                    // Only what is put down before the end of all is certainly done.
                    finished.withLock { $0 += 1 }
                }
            } else {
                for _ in 0..<(seed * 20) { sched_yield() }
                rest.withLock { $0 = mailbox.close() }
            }
        }
        let left = rest.withLock { $0 }
        let done = finished.withLock { $0 }
        // Nothing between the one that was put down last and the first that was given back.
        if let first = left.first { #expect(first == done || first == done - 1) }
        #expect(left == Array((left.first ?? 1000)..<1000))
    }

    @Test("says closed, not full, where it is both")
    func closedAndFull() {
        let mailbox = Mailbox<Int>(limit: 0)
        #expect(mailbox.close() == [])
        #expect(mailbox.push(1) == .closed)
    }

    @Test("what was queued while it is closed is popped or given back, never lost", arguments: 0..<20)
    func closeDuringPushes(seed: Int) {
        let mailbox = Mailbox<Int>(limit: .max)
        let queued = Mutex<[Int]>([])
        let received = Mutex<[Int]>([])
        let queuedSoFar = Atomic<Int>(0)
        let isClosed = Atomic<Bool>(false)
        onThreads(4) { index in
            switch index {
            case 0:
                var random = Randomness(seed: seed)
                let enough = Int.random(in: 0..<200, using: &random)
                eventually { queuedSoFar.load(ordering: .relaxed) >= enough }
                let rest = mailbox.close()
                isClosed.store(true, ordering: .sequentiallyConsistent)
                received.withLock { $0 += rest }
            case 1:
                while !isClosed.load(ordering: .sequentiallyConsistent) {
                    // Slower than the producers, so that something is left at the close.
                    if let element = mailbox.popFirst() { received.withLock { $0.append(element) } }
                    sched_yield()
                }
            default:
                var mine: [Int] = []
                var next = index
                while mailbox.push(next) == .queued {
                    queuedSoFar.add(1, ordering: .relaxed)
                    mine.append(next)
                    next += 4
                }
                queued.withLock { $0 += mine }
            }
        }
        #expect(mailbox.isEmpty)
        #expect(received.withLock { $0.sorted() } == queued.withLock { $0.sorted() })
    }

    // MARK: Threads

    @Test("loses and doubles nothing between threads, and keeps each producer's order")
    func manyThreads() {
        let producers = 4
        let consumers = 3
        let each = 5000
        let mailbox = Mailbox<Int>(limit: 500)
        let left = Atomic<Int>(producers * each)
        let received = Mutex<[[Int]]>([])
        onThreads(producers + consumers) { index in
            if index < producers {
                for number in 0..<each {
                    while mailbox.push(index * each + number) == .full { sched_yield() }
                }
                return
            }
            var mine: [Int] = []
            while left.load(ordering: .sequentiallyConsistent) > 0 {
                if mailbox.count > 500 { Issue.record("the limit was passed") }
                guard let element = mailbox.popFirst() else {
                    sched_yield()
                    continue
                }
                mine.append(element)
                left.subtract(1, ordering: .sequentiallyConsistent)
            }
            received.withLock { $0.append(mine) }
        }
        let all = received.withLock { $0 }
        #expect(all.flatMap { $0 }.sorted() == Array(0..<producers * each))
        // What one consumer gets of one producer comes in the order in which it was pushed.
        for mine in all {
            for producer in 0..<producers {
                let ofProducer = mine.filter { $0 / each == producer }
                #expect(ofProducer == ofProducer.sorted())
            }
        }
        #expect(mailbox.isEmpty)
    }

    @Test("shows to the next thread what was written before the push")
    func publication() {
        // A class without any lock of its own: the thread sanitizer sees a missing order.
        final class Box: @unchecked Sendable { var number = 0 }
        let mailbox = Mailbox<Box>(limit: 64)
        let sum = Atomic<Int>(0)
        onThreads(2) { index in
            if index == 0 {
                for number in 1...2000 {
                    let box = Box()
                    box.number = number
                    while mailbox.push(box) == .full { sched_yield() }
                }
                return
            }
            for _ in 1...2000 {
                var box: Box?
                eventually {
                    box = mailbox.popFirst()
                    return box != nil
                }
                sum.add(box?.number ?? 0, ordering: .relaxed)
            }
        }
        #expect(sum.load(ordering: .relaxed) == 2000 * 2001 / 2)
    }

    // MARK: Memory

    @Test("lets go of an element when it is popped")
    func lettingGo() {
        let living = Tracked.Living()
        let mailbox = Mailbox<Tracked>(limit: 100)
        for _ in 0..<10 { #expect(mailbox.push(Tracked(living)) == .queued) }
        #expect(living.count == 10)
        for left in (0..<10).reversed() {
            #expect(mailbox.popFirst() != nil)
            #expect(living.count == left)
        }
    }

    @Test("lets go of what it refuses, of what was left at its close, and of what it held at its end")
    func lettingGoOfRest() {
        let living = Tracked.Living()
        var mailbox: Mailbox<Tracked>? = Mailbox(limit: 2)
        for _ in 0..<5 { _ = mailbox?.push(Tracked(living)) }
        #expect(living.count == 2)
        #expect(mailbox?.close().count == 2)
        #expect(living.count == 0)
        mailbox = Mailbox(limit: 2)
        for _ in 0..<5 { _ = mailbox?.push(Tracked(living)) }
        mailbox = nil
        #expect(living.count == 0)
    }

    @Test("does not grow with what has passed through it", arguments: [0, 1, 10, 1000, 5000])
    func compaction(depth: Int) {
        let mailbox = Mailbox<Int>(limit: .max)
        for number in 0..<depth { #expect(mailbox.push(number) == .queued) }
        var most = 0
        for number in depth..<depth + 30_000 {
            _ = mailbox.push(number)
            if mailbox.popFirst() != number - depth { Issue.record("out of order") }
            if number % 64 == 0 { most = max(most, mailbox.reserved) }
        }
        #expect(mailbox.count == depth)
        // Twice what waits and what is not worth moving, and the array's own growth by two.
        #expect(most <= 4 * (depth + 1024))
    }

    @Test("gives the memory of a burst back when it is empty", arguments: [5000, 50_000])
    func memoryAfterBurst(burst: Int) {
        let mailbox = Mailbox<Int>(limit: .max)
        for number in 0..<burst { _ = mailbox.push(number) }
        for _ in 0..<burst { _ = mailbox.popFirst() }
        #expect(mailbox.isEmpty)
        #expect(mailbox.reserved <= 2048)
    }

    @Test("gives all memory back at its close")
    func memoryAfterClose() {
        let mailbox = Mailbox<Int>(limit: .max)
        for number in 0..<5000 { _ = mailbox.push(number) }
        #expect(mailbox.close().count == 5000)
        #expect(mailbox.reserved == 0)
    }

    @Test("costs the same at any depth")
    func costAtDepth() {
        func fastest(depth: Int) -> Int64 {
            let mailbox = Mailbox<Int>(limit: .max)
            for number in 0..<depth { _ = mailbox.push(number) }
            return (0..<5).map { _ in
                let start = cpuTime()
                for number in 0..<1500 {
                    _ = mailbox.push(number)
                    _ = mailbox.popFirst()
                }
                return cpuTime() - start
            }.min() ?? .max
        }
        // One that moved every element would be hundreds of times slower.
        #expect(fastest(depth: 1 << 18) < 30 * fastest(depth: 16))
    }
}

extension Mailbox {
    /// For how many elements memory is held.
    fileprivate var reserved: Int { contents.withLock { $0.elements.capacity } }
}
