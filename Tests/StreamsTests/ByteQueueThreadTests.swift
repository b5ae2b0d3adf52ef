import Glibc
import Synchronization
import Testing

@testable import Streams

/// Producers and consumers on threads of their own, of which some give up at any moment.
@Suite("ByteQueue: threads")
struct ByteQueueThreadTests {
    private enum Style: CaseIterable { case atOnce, waits, offers, many, givesUp, cancels }

    /// Waits as a thread does; nil where it gives up after so many looks.
    private static func wait(
        _ queue: ByteQueue, _ purpose: Waiter.Purpose, _ message: Payload?, looks: Int, isCancelling: Bool
    ) -> Waiter.Outcome? {
        let waiting = Waiting(queue, for: purpose, message)
        var looked = 0
        while !waiting.isSettled, looked < looks {
            sched_yield()
            looked += 1
        }
        guard isCancelling else { return waiting.finish() }
        waiting.cancel()
        return nil
    }

    /// Sends a message for certain. False where the queue has ended.
    private static func send(_ message: Payload, to queue: ByteQueue, _ random: inout Randomness) -> Bool {
        while true {
            let outcome: Waiter.Outcome?
            switch Style.allCases.randomElement(using: &random) ?? .atOnce {
            case .atOnce, .many:
                switch queue.send(message) {
                case .sent: return true
                case .busy: outcome = nil
                case .closed, .aborted: return false
                }
            case .waits:
                outcome = wait(queue, .send, message, looks: .max, isCancelling: false)
            case .offers:
                outcome = wait(queue, .offer, message, looks: .max, isCancelling: false)
            case .givesUp:
                let purpose: Waiter.Purpose = Bool.random(using: &random) ? .send : .offer
                outcome = wait(
                    queue, purpose, message, looks: .random(in: 0..<5, using: &random), isCancelling: false)
            case .cancels:
                // Only of an offer it is known that it was not sent; one that was settled at once has been.
                let offer = Waiting(queue, for: .offer, message)
                if offer.isSettledAtOnce {
                    outcome = offer.finish()
                } else {
                    for _ in 0..<Int.random(in: 0..<5, using: &random) { sched_yield() }
                    offer.cancel()
                    outcome = nil
                }
            }
            switch outcome {
            case .sent: return true
            case nil: sched_yield()
            default: return false
            }
        }
    }

    /// Receives until the queue has ended.
    private static func receiveAll(_ queue: ByteQueue, _ random: inout Randomness, givingBack: Bool) -> [Int]
    {
        var numbers: [Int] = []
        while true {
            let outcome: Waiter.Outcome?
            switch Style.allCases.randomElement(using: &random) ?? .atOnce {
            case .atOnce, .offers:
                switch queue.receive() {
                case .message(let message): outcome = .message(message)
                case .empty: outcome = nil
                case .closed, .aborted: outcome = .closed
                }
            case .many:
                let receipt = queue.receive(
                    bytes: .random(in: 0..<100, using: &random), count: .random(in: 1..<9, using: &random)
                ) { numbers.append($0.number) }
                if case .closed = receipt { outcome = .closed } else { outcome = nil }
            case .waits:
                outcome = wait(queue, .receive, nil, looks: .max, isCancelling: false)
            case .givesUp:
                outcome = wait(
                    queue, .receive, nil, looks: .random(in: 0..<5, using: &random), isCancelling: false)
            case .cancels:
                outcome =
                    givingBack
                    ? wait(
                        queue, .receive, nil, looks: .random(in: 0..<5, using: &random), isCancelling: true)
                    : nil
            }
            switch outcome {
            case .message(let message): numbers.append(message.number)
            case nil: sched_yield()
            default: return numbers
            }
        }
    }

    /// Sends `each` numbers from each producer to the consumers. What each consumer has got.
    private static func run(
        _ seed: Int, limit: Int, producers: Int, consumers: Int, each: Int, givingBack: Bool
    ) -> [[Int]] {
        let queue = ByteQueue(limit: limit)
        let producing = Atomic<Int>(producers)
        let received = Mutex<[[Int]]>([])
        onThreads(producers + consumers) { index in
            var random = Randomness(seed: seed * 100 + index)
            if index < producers {
                for number in 0..<each {
                    let message = Payload(number: index * each + number, count: 8 + number % 3)
                    if !send(message, to: queue, &random) { Issue.record("it was not sent") }
                }
                if producing.subtract(1, ordering: .sequentiallyConsistent).newValue == 0 { queue.close() }
                return
            }
            let mine = receiveAll(queue, &random, givingBack: givingBack)
            received.withLock { $0.append(mine) }
        }
        var all = received.withLock { $0 }
        // What somebody has given back after the others had seen the end.
        all.append(queue.drain())
        let info = queue.info
        #expect(info.messagesIn == producers * each)
        #expect(info.messagesOut == producers * each)
        #expect(info.bytesIn == info.bytesOut)
        #expect([info.size, info.messages, info.senders, info.receivers] == [0, 0, 0, 0])
        #expect(all.flatMap { $0 }.sorted() == Array(0..<producers * each))
        return all
    }

    /// Whether the messages of each producer are in its order.
    private static func keepsOrder(_ numbers: [Int], producers: Int, each: Int) -> Bool {
        (0..<producers).allSatisfy { producer in
            let ofProducer = numbers.filter { $0 / each == producer }
            return ofProducer == ofProducer.sorted()
        }
    }

    @Test("many producers and consumers lose and double nothing, whoever gives up", arguments: 0..<6)
    func many(seed: Int) {
        _ = Self.run(
            seed, limit: [0, 1, 64][seed % 3], producers: 4, consumers: 4, each: 500, givingBack: true)
    }

    @Test("each consumer gets each producer's messages in their order", arguments: 0..<4)
    func order(seed: Int) {
        let all = Self.run(
            seed, limit: seed % 2 * 64, producers: 3, consumers: 3, each: 500, givingBack: false)
        for numbers in all { #expect(Self.keepsOrder(numbers, producers: 3, each: 500)) }
    }

    @Test("one consumer that gives messages back gets all in the producers' order", arguments: 0..<4)
    func oneConsumer(seed: Int) {
        let all = Self.run(seed, limit: 64, producers: 3, consumers: 1, each: 700, givingBack: true)
        #expect(Self.keepsOrder(all[0], producers: 3, each: 700))
        #expect(all[1].isEmpty)
    }

    @Test(
        "an end in the middle leaves nobody waiting, and loses nothing that can be received", arguments: 0..<8
    )
    func end(seed: Int) {
        let queue = ByteQueue(limit: 64)
        let sent = Atomic<Int>(0)
        let received = Mutex<[Int]>([])
        onThreads(5) { index in
            var random = Randomness(seed: seed * 100 + index)
            switch index {
            case 0:
                eventually { sent.load(ordering: .relaxed) >= 50 + 10 * seed }
                if seed % 2 == 0 { queue.close() } else { queue.abort() }
            case 1, 2:
                var number = index
                while Self.send(Payload(number: number), to: queue, &random) {
                    number += 4
                    sent.add(1, ordering: .relaxed)
                }
            default:
                let mine = Self.receiveAll(queue, &random, givingBack: true)
                received.withLock { $0 += mine }
            }
        }
        let numbers = received.withLock { $0 } + queue.drain()
        let info = queue.info
        #expect(Set(numbers).count == numbers.count)
        if seed % 2 == 0 {
            #expect(numbers.count == sent.load(ordering: .relaxed))
            #expect(info.messagesOut == info.messagesIn)
        }
        #expect([info.size, info.messages, info.senders, info.receivers] == [0, 0, 0, 0])
    }

    @Test("shows to the next thread what was written before the send")
    func publication() {
        // A class without any lock of its own: the thread sanitizer sees a missing order.
        final class Box: @unchecked Sendable { var number = 0 }
        let queue = ByteQueue(limit: 0)
        let sum = Atomic<Int>(0)
        onThreads(2) { index in
            if index == 0 {
                for number in 1...2000 {
                    let box = Box()
                    box.number = number
                    _ = queue.send(Payload(UnsafeRawBufferPointer(start: nil, count: 0), ownedBy: box))
                }
                return
            }
            for _ in 1...2000 {
                let outcome = Self.wait(queue, .receive, nil, looks: .max, isCancelling: false)
                guard case .message(let message) = outcome, let box = message.owner as? Box else {
                    Issue.record("no message")
                    return
                }
                sum.add(box.number, ordering: .relaxed)
            }
        }
        #expect(sum.load(ordering: .relaxed) == 2000 * 2001 / 2)
    }

    @Test("who is told that it is readable or writable while others send and receive hears of it every time")
    func told() {
        let queue = ByteQueue(limit: 8)
        let rounds = 2000
        onThreads(2) { index in
            for number in 0..<rounds {
                let told = Waiting(queue, for: index == 0 ? .writable : .readable)
                eventually { told.isSettled }
                #expect(Seen(told.finish()) == .ready)
                // There is only one on each side, so that it must be so still.
                if index == 0 {
                    if queue.send(number) != .sent { Issue.record("no room") }
                } else if queue.next() != .message(number) {
                    Issue.record("no message")
                }
            }
        }
    }
}
