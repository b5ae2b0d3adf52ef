import Glibc
import Synchronization
import Testing

@testable import Streams

@Suite("ByteQueue")
struct ByteQueueTests {
    @Test("gives back in the order it was given, with the boundaries")
    func order() {
        let queue = ByteQueue(limit: 0)
        #expect(queue.next() == .empty)
        let counts = [8, 0, 100, 1, 70_000, 0]
        for count in counts { #expect(Seen(queue.send(Payload(count: count))) == .sent) }
        var received: [Int] = []
        while case .message(let message) = queue.receive() {
            received.append(message.count)
            #expect(message.bytes.allSatisfy { $0 == 0 })
        }
        #expect(received == counts)
        #expect(queue.next() == .empty)
    }

    // MARK: The budget

    @Test("is busy when what is queued and the message are more than the limit")
    func limit() {
        let queue = ByteQueue(limit: 24)
        #expect([queue.send(1), queue.send(2, count: 16)] == [.sent, .sent])
        #expect(queue.send(3) == .busy)
        #expect(Seen(queue.send(Payload(count: 1))) == .busy)
        #expect(Seen(queue.send(Payload(count: 0))) == .sent)
        #expect(queue.info.size == 24)
        #expect(queue.next() == .message(1))
        #expect(queue.send(4, count: 9) == .busy)
        #expect(queue.send(5) == .sent)
        #expect(queue.info.messages == 3)
    }

    @Test("takes a message larger than the limit when there is nothing else")
    func largerThanLimit() {
        let queue = ByteQueue(limit: 4)
        #expect(queue.send(1, count: 100) == .sent)
        #expect(queue.send(2, count: 100) == .busy)
        // Not even nothing, where it is over the limit already.
        #expect(Seen(queue.send(Payload(count: 0))) == .busy)
        #expect(queue.next() == .message(1))
        #expect(queue.send(3, count: 100) == .sent)
    }

    @Test("has no limit where it is 0, and none that overflows")
    func extremes() {
        for limit in [0, Int.max] {
            let queue = ByteQueue(limit: limit)
            for number in 0..<1000 { #expect(queue.send(number, count: 1000) == .sent) }
            #expect(queue.info.size == 1_000_000)
        }
    }

    // MARK: Many at once

    @Test("takes as many as fit, the first however large it is")
    func receiveMany() {
        let queue = ByteQueue(limit: 0)
        for number in 0..<6 { _ = queue.send(number, count: 10) }
        func take(_ bytes: Int, _ count: Int, _ atLeastOne: Bool = true) -> ([Int], Seen) {
            var numbers: [Int] = []
            let receipt = queue.receive(bytes: bytes, count: count, atLeastOne: atLeastOne) {
                numbers.append($0.number)
            }
            return (numbers, Seen(receipt))
        }
        #expect(take(29, 100) == ([0, 1], .message(0)))
        #expect(take(1, 100) == ([2], .message(2)))
        #expect(take(9, 100, false).0 == [])
        #expect(take(1000, 2) == ([3, 4], .message(3)))
        #expect(take(1000, 100) == ([5], .message(5)))
        #expect(take(1000, 100) == ([], .empty))
        queue.close()
        #expect(take(1000, 100) == ([], .closed))
        queue.abort()
        #expect(take(1000, 100) == ([], .aborted))
    }

    @Test("those who wait for room have their turn when many are taken at once")
    func receiveManyAdmits() {
        let queue = ByteQueue(limit: 24)
        for number in 0..<3 { _ = queue.send(number) }
        let senders = (3..<8).map { Waiting(queue, for: .send, Payload(number: $0)) }
        var numbers: [Int] = []
        _ = queue.receive(bytes: 1000, count: 1000) { numbers.append($0.number) }
        #expect(numbers == [0, 1, 2])
        #expect(senders.map(\.timesWoken) == [1, 1, 1, 0, 0])
        #expect(queue.drain() == [3, 4, 5, 6, 7])
    }

    @Test("the body may use the queue")
    func reentrantBody() {
        let queue = ByteQueue(limit: 0)
        for number in 0..<3 { _ = queue.send(number) }
        _ = queue.receive(bytes: 1000, count: 2) { _ = queue.send($0.number + 10) }
        #expect(queue.drain() == [2, 10, 11])
    }

    // MARK: The end

    @Test("what is queued can be received when it is closed, then it is closed")
    func close() {
        let queue = ByteQueue(limit: 0)
        _ = queue.send(1)
        _ = queue.send(2)
        queue.close()
        queue.close()
        #expect(queue.send(3) == .closed)
        #expect(
            [queue.next(), queue.next(), queue.next(), queue.next()] == [
                .message(1), .message(2), .closed, .closed,
            ])
    }

    @Test("what is queued is dropped when it is aborted, also after it was closed; the first time counts")
    func abort() {
        let living = Tracked.Living()
        let queue = ByteQueue(limit: 0)
        for _ in 0..<600 { _ = queue.send(tracked(living)) }
        queue.close()
        #expect(living.count == 600)
        #expect(queue.abort())
        #expect(living.count == 0)
        #expect(!queue.abort())
        queue.close()
        #expect([queue.send(1), queue.next()] == [.aborted, .aborted])
        #expect(queue.info.size == 0)
        #expect(queue.info.messages == 0)
    }

    @Test("a message that is given back to a queue that was aborted is gone, to one that was closed the next")
    func putBackAtTheEnd() throws {
        for isAborted in [false, true] {
            let queue = ByteQueue(limit: 0)
            _ = queue.send(1)
            _ = queue.send(2)
            let message = try #require(queue.receive().message)
            if isAborted { queue.abort() } else { queue.close() }
            queue.putBack(message)
            #expect(queue.next() == (isAborted ? .aborted : .message(1)))
            #expect(queue.drain() == (isAborted ? [] : [2]))
        }
    }

    /// Who ends a queue, perhaps a scheduler of the BEAM, is not kept for as long as that takes.
    @Test(
        "many messages, or large ones, are let go of on a thread of their own, few at once",
        arguments: [(10, 10, true), (20_000, 10, false), (17, 1 << 20, false)], [false, true])
    func drop(messages: (count: Int, bytes: Int, areFew: Bool), isAborted: Bool) {
        let threads = Mutex<[pthread_t: Int]>([:])
        let end = Signal()
        var queue: ByteQueue? = ByteQueue(limit: 0)
        for _ in 0..<messages.count {
            let owner = Noting {
                let isLast = threads.withLock { threads in
                    threads[pthread_self(), default: 0] += 1
                    return threads.values.reduce(0, +) == messages.count
                }
                if isLast { end.post() }
            }
            _ = queue?.send(Payload(weighing: messages.bytes, ownedBy: owner))
        }
        if isAborted {
            queue?.abort()
            #expect(queue?.info.size == 0)
        }
        queue = nil
        end.wait()
        #expect(threads.withLock(\.count) == 1)
        #expect((threads.withLock(\.keys.first) == pthread_self()) == messages.areFew)
    }

    private final class Noting: Sendable {
        private let note: @Sendable () -> Void
        init(_ note: @escaping @Sendable () -> Void) { self.note = note }
        deinit { note() }
    }

    // MARK: Giving back

    @Test("messages that are given back are the next, in the order in which they were sent", arguments: 0..<6)
    func putBack(seed: Int) {
        var random = Randomness(seed: seed)
        let queue = ByteQueue(limit: 0)
        for number in 0..<20 { _ = queue.send(number) }
        var taken: [Payload] = []
        for _ in 0..<10 { if let message = queue.receive().message { taken.append(message) } }
        let before = queue.info
        for message in taken.shuffled(using: &random) { queue.putBack(message) }
        #expect(queue.info.messages == 20)
        #expect(queue.info.size == 160)
        #expect(queue.info.messagesOut == 0)
        #expect(before.messagesOut == 10)
        #expect(queue.drain() == Array(0..<20))
    }

    @Test("counts what goes in and out, and who waits")
    func info() {
        let queue = ByteQueue(limit: 16)
        _ = queue.send(1)
        _ = queue.send(2)
        let sender = Waiting(queue, for: .send, Payload(number: 3, count: 10))
        var info = queue.info
        #expect([info.size, info.messages, info.messagesIn, info.bytesIn] == [16, 2, 2, 16])
        #expect([info.messagesOut, info.bytesOut, info.senders, info.receivers] == [0, 0, 1, 0])
        _ = queue.next()
        _ = queue.next()
        _ = queue.next()
        #expect(Seen(sender.finish()) == .sent)
        let receivers = [Waiting(queue, for: .receive), Waiting(queue, for: .receive)]
        info = queue.info
        #expect([info.size, info.messages, info.messagesIn, info.bytesIn] == [0, 0, 3, 26])
        #expect([info.messagesOut, info.bytesOut, info.senders, info.receivers] == [3, 26, 0, 2])
        #expect(info.end == nil)
        receivers[0].cancel()
        #expect(queue.info.receivers == 1)
        queue.close()
        #expect(queue.info.end == .closed)
        #expect(queue.info.receivers == 0)
    }

    // MARK: Memory and cost

    @Test("lets go of a message when it was received, and of what it held at its end")
    func lettingGo() {
        let living = Tracked.Living()
        var queue: ByteQueue? = ByteQueue(limit: 0)
        for _ in 0..<1000 { _ = queue?.send(tracked(living)) }
        for left in (500..<1000).reversed() {
            _ = queue?.receive()
            #expect(living.count == left)
        }
        queue = nil
        #expect(living.count == 0)
    }

    @Test("the end of a long queue takes no stack", arguments: [false, true])
    func longQueue(isAborted: Bool) {
        let living = Tracked.Living()
        let end = Signal()
        let thread = TestThread {
            let queue = ByteQueue(limit: 0)
            let message = tracked(living)
            for _ in 0..<1_000_000 { _ = queue.send(message) }
            _ = queue.send(Payload(weighing: 0, ownedBy: Noting { end.post() }))
            if isAborted { queue.abort() }
        }
        thread.join()
        end.wait()
        #expect(living.count == 0)
    }

    @Test("the end of a queue for which many wait takes no stack", arguments: 0..<4)
    func manyWaiters(purpose: Int) {
        let living = Tracked.Living()
        let thread = TestThread {
            let queue = ByteQueue(limit: 1)
            let isFull = purpose == 1 || purpose == 3
            if isFull { _ = queue.send(1) }
            let tracked = Tracked(living)
            for _ in 0..<300_000 {
                let wakeUp: @Sendable (Origin) -> Void = { _ in withExtendedLifetime(tracked) {} }
                let waiter =
                    switch purpose {
                    case 0: Waiter(for: .receive, wakeUp: wakeUp)
                    case 1: Waiter(for: .send, message: Payload(count: 1), wakeUp: wakeUp)
                    case 2: Waiter(for: .readable, wakeUp: wakeUp)
                    default: Waiter(for: .writable, wakeUp: wakeUp)
                    }
                _ = queue.wait(waiter)
            }
        }
        thread.join()
        #expect(living.count == 0)
    }

    @Test("costs the same at any depth")
    func costAtDepth() {
        func fastest(depth: Int) -> Int64 {
            let queue = ByteQueue(limit: 0)
            let message = Payload(count: 8)
            for _ in 0..<depth { _ = queue.send(message) }
            return (0..<5).map { _ in
                let start = cpuTime()
                for _ in 0..<1500 {
                    _ = queue.send(message)
                    _ = queue.receive()
                }
                return cpuTime() - start
            }.min() ?? .max
        }
        // One that moved every element would be many thousands of times slower.
        #expect(fastest(depth: 1_000_000) < 30 * fastest(depth: 1))
    }
}

/// A message that tells when it is let go of.
private func tracked(_ living: Tracked.Living) -> Payload {
    Payload(UnsafeRawBufferPointer(start: nil, count: 0), ownedBy: Tracked(living))
}

extension ByteQueue.Receipt {
    fileprivate var message: Payload? {
        if case .message(let message) = self { message } else { nil }
    }
}
