import Synchronization
import Testing

@testable import Streams

@Suite("ByteQueue: who waits")
struct ByteQueueWaiterTests {
    // MARK: Receivers

    @Test("receivers are served first come first served, and each is woken once")
    func receivers() {
        let queue = ByteQueue(limit: 0)
        let waiting = (0..<5).map { _ in Waiting(queue, for: .receive) }
        #expect(waiting.allSatisfy { !$0.isSettled && !$0.isSettledAtOnce })
        for number in 0..<5 {
            #expect(queue.send(number) == .sent)
            #expect(waiting.map(\.isSettled) == (0..<5).map { $0 <= number })
        }
        #expect(waiting.map(\.timesWoken) == [1, 1, 1, 1, 1])
        #expect(waiting.map { Seen($0.finish()) } == (0..<5).map { .message($0) })
        #expect(queue.info.receivers == 0)
        #expect(queue.info.size == 0)
        #expect(queue.next() == .empty)
    }

    @Test("who would wait for what is there is settled at once, and is not woken")
    func atOnce() {
        let queue = ByteQueue(limit: 8)
        let sender = Waiting(queue, for: .send, Payload(number: 1))
        let offer = Waiting(queue, for: .offer, Payload(number: 2))
        let readable = Waiting(queue, for: .readable)
        #expect([sender, readable].allSatisfy { $0.isSettledAtOnce && $0.isSettled })
        #expect(!offer.isSettledAtOnce)
        #expect(Seen(sender.finish()) == .sent)
        #expect(Seen(readable.finish()) == .ready)
        let receiver = Waiting(queue, for: .receive)
        #expect(receiver.isSettledAtOnce)
        #expect(Seen(receiver.finish()) == .message(1))
        #expect(Seen(offer.finish()) == .sent)
        #expect([sender, readable, receiver].map(\.timesWoken) == [0, 0, 0])
        #expect(queue.drain() == [2])
        let second = Waiting(queue, for: .offer, Payload(number: 3))
        #expect(second.isSettledAtOnce)
        #expect(Seen(second.finish()) == .sent)
        #expect(queue.drain() == [3])
    }

    @Test("a receiver that gave up is passed over, wherever it stood")
    func givingUp() {
        for gone in 0..<3 {
            let queue = ByteQueue(limit: 0)
            let waiting = (0..<3).map { _ in Waiting(queue, for: .receive) }
            #expect(Seen(waiting[gone].finish()) == .waiting)
            #expect(queue.info.receivers == 2)
            #expect(Seen(waiting[gone].finish()) == .waiting, "again")
            waiting[gone].cancel()
            for number in 0..<3 { _ = queue.send(number) }
            let rest = (0..<3).filter { $0 != gone }.map { Seen(waiting[$0].finish()) }
            #expect(rest == [.message(0), .message(1)])
            #expect(waiting[gone].timesWoken == 0)
            #expect(queue.drain() == [2])
        }
    }

    @Test("a message that came for who gives up goes to the next who waits, or is the next again")
    func cancelling() {
        let queue = ByteQueue(limit: 0)
        let first = Waiting(queue, for: .receive)
        let second = Waiting(queue, for: .receive)
        _ = queue.send(1)
        first.cancel()
        #expect(second.timesWoken == 1)
        second.cancel()
        second.cancel()
        #expect(queue.info.size == 8)
        #expect(queue.info.messagesOut == 0)
        #expect(Seen(second.finish()) == .waiting)
        #expect(queue.drain() == [1])
    }

    @Test(
        "messages of several who give up keep their order", arguments: [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
    func cancellingSeveral(order: [Int]) {
        let queue = ByteQueue(limit: 0)
        let waiting = (0..<3).map { _ in Waiting(queue, for: .receive) }
        for number in 0..<5 { _ = queue.send(number) }
        for index in order { waiting[index].cancel() }
        #expect(queue.drain() == [0, 1, 2, 3, 4])
    }

    @Test("an outcome that was taken is not given back")
    func cancelAfterFinish() {
        let queue = ByteQueue(limit: 0)
        let receiver = Waiting(queue, for: .receive)
        _ = queue.send(1)
        #expect(Seen(receiver.finish()) == .message(1))
        receiver.cancel()
        #expect(queue.next() == .empty)
        #expect(queue.info.messagesOut == 1)
    }

    // MARK: Senders

    @Test("senders are served first come first served, a large one is not passed by small ones")
    func senders() {
        let queue = ByteQueue(limit: 24)
        _ = queue.send(0, count: 24)
        let counts = [24, 8, 8, 100, 8]
        let waiting = counts.enumerated().map { index, count in
            Waiting(queue, for: .send, Payload(number: index + 1, count: count))
        }
        #expect(queue.send(99) == .busy)
        #expect(Seen(queue.send(Payload(count: 0))) == .busy, "nobody goes before who waits")
        var received: [Seen] = []
        for _ in 0..<6 {
            received.append(queue.next())
            #expect(queue.info.size <= 100)
        }
        #expect(received == (0..<6).map { .message($0) })
        #expect(waiting.map { Seen($0.finish()) } == [.sent, .sent, .sent, .sent, .sent])
        #expect(waiting.map(\.timesWoken) == [1, 1, 1, 1, 1])
    }

    @Test("who stands behind a sender that gives up has its turn", arguments: [Waiter.Purpose.send, .offer])
    func givingUpRoom(purpose: Waiter.Purpose) {
        for isCancelled in [false, true] {
            let queue = ByteQueue(limit: 16)
            _ = queue.send(0)
            let large = Waiting(queue, for: purpose, Payload(number: 1, count: 16))
            let small = Waiting(queue, for: .send, Payload(number: 2))
            let writable = Waiting(queue, for: .writable)
            #expect([small, writable].allSatisfy { !$0.isSettled })
            if isCancelled { large.cancel() } else { #expect(Seen(large.finish()) == .waiting) }
            #expect(small.timesWoken == 1)
            #expect(Seen(small.finish()) == .sent)
            #expect(!writable.isSettled, "it is full again")
            #expect(queue.drain() == [0, 2])
            #expect(writable.timesWoken == 1)
        }
    }

    @Test("who only wants to know of room hears of it when the one who waited for it gives up")
    func writableAfterGivingUp() {
        let queue = ByteQueue(limit: 16)
        _ = queue.send(0)
        let large = Waiting(queue, for: .send, Payload(number: 1, count: 16))
        let writable = Waiting(queue, for: .writable)
        #expect(!writable.isSettled)
        #expect(Seen(large.finish()) == .waiting)
        #expect(writable.timesWoken == 1)
        #expect(queue.send(2) == .sent)
    }

    @Test("what is admitted goes to who waits to receive")
    func admission() {
        let queue = ByteQueue(limit: 8)
        _ = queue.send(0)
        let sender = Waiting(queue, for: .send, Payload(number: 1))
        #expect(queue.next() == .message(0))
        let receivers = [Waiting(queue, for: .receive), Waiting(queue, for: .receive)]
        #expect(receivers.map(\.isSettledAtOnce) == [true, false])
        #expect(Seen(receivers[0].finish()) == .message(1))
        #expect(Seen(sender.finish()) == .sent)
        _ = queue.send(2)
        #expect(Seen(receivers[1].finish()) == .message(2))
    }

    // MARK: Offers

    @Test("a receiver without room for a message is told its size, and the message is the next one's")
    func tooLarge() {
        let queue = ByteQueue(limit: 8)
        let small = Waiting(queue, for: .receive, room: 7)
        let exact = Waiting(queue, for: .receive, room: 8)
        #expect(queue.send(1) == .sent)
        #expect(Seen(small.finish()) == .tooLarge(8))
        #expect(Seen(exact.finish()) == .message(1))
        // What is there stays, and nobody who waits for room has it thereby.
        #expect(queue.send(2) == .sent)
        let sender = Waiting(queue, for: .send, Payload(number: 3))
        let late = Waiting(queue, for: .receive, room: 7)
        #expect(late.isSettledAtOnce)
        #expect(Seen(late.finish()) == .tooLarge(8))
        #expect(!sender.isSettled)
        #expect(queue.drain() == [2, 3])
        // So does what comes back.
        #expect(queue.send(4) == .sent)
        let waiting = [Waiting(queue, for: .receive, room: 1), Waiting(queue, for: .receive)]
        _ = waiting
        guard case .message(let message) = queue.receive() else { return }
        let again = Waiting(queue, for: .receive, room: 1)
        queue.putBack(message)
        #expect(Seen(again.finish()) == .tooLarge(8))
        #expect(queue.drain() == [4])
    }

    @Test("a sender whose message is on its way, or not sent, keeps it no longer", arguments: [false, true])
    func letsGo(isCancelled: Bool) {
        let queue = ByteQueue(limit: 1)
        #expect(queue.send(0) == .sent)
        weak var owner: Owner?
        let sender: Waiting
        do {
            let message = Owner()
            owner = message
            let bytes = UnsafeRawBufferPointer(start: nil, count: 0)
            sender = Waiting(queue, for: .send, Payload(bytes, ownedBy: message))
        }
        #expect(owner != nil)
        if isCancelled {
            sender.cancel()
        } else {
            _ = queue.receive()
            _ = queue.receive()
            #expect(Seen(sender.finish()) == .sent)
        }
        #expect(owner == nil)
        withExtendedLifetime(sender) {}
    }

    private final class Owner {}

    @Test("an offer is sent when its turn is taken, and not before; others wait so long")
    func offers() {
        let queue = ByteQueue(limit: 8)
        _ = queue.send(0)
        let offer = Waiting(queue, for: .offer, Payload(number: 1))
        let next = Waiting(queue, for: .send, Payload(number: 2))
        #expect(queue.drain() == [0])
        #expect([offer.timesWoken, next.timesWoken] == [1, 0])
        #expect(queue.info.messagesIn == 1)
        #expect(queue.send(3) == .busy)
        #expect(Seen(offer.finish()) == .sent)
        #expect(queue.info.messagesIn == 2)
        #expect(next.timesWoken == 0)
        #expect(queue.next() == .message(1))
        #expect(Seen(next.finish()) == .sent)
        #expect(queue.next() == .message(2))
        #expect([offer.timesWoken, next.timesWoken] == [1, 1])
    }

    @Test("an offer that has its turn and is cancelled was not sent, and the next has it")
    func cancelledOffers() {
        let queue = ByteQueue(limit: 8)
        _ = queue.send(0)
        let offers = (1..<4).map { Waiting(queue, for: .offer, Payload(number: $0)) }
        #expect(queue.drain() == [0])
        offers[0].cancel()
        #expect(offers.map(\.timesWoken) == [1, 1, 0])
        offers[2].cancel()
        #expect(Seen(offers[1].finish()) == .sent)
        offers[1].cancel()
        #expect(queue.drain() == [1, 2, 3].filter { $0 == 2 })
        #expect(queue.info.messagesIn == 2)
        #expect(queue.info.senders == 0)
    }

    @Test("an offer goes to who waits to receive when it is sent")
    func offerMeetsReceiver() {
        let queue = ByteQueue(limit: 8)
        _ = queue.send(0)
        let offer = Waiting(queue, for: .offer, Payload(number: 1))
        #expect(queue.drain() == [0])
        let receiver = Waiting(queue, for: .receive)
        #expect(!receiver.isSettled)
        #expect(Seen(offer.finish()) == .sent)
        #expect(receiver.timesWoken == 1)
        #expect(Seen(receiver.finish()) == .message(1))
    }

    @Test("an offer that has its turn when the queue ends was not sent", arguments: [false, true])
    func endedOffers(isAborted: Bool) {
        let queue = ByteQueue(limit: 8)
        _ = queue.send(0)
        let offers = (1..<3).map { Waiting(queue, for: .offer, Payload(number: $0)) }
        #expect(queue.drain() == [0])
        if isAborted { queue.abort() } else { queue.close() }
        #expect(offers.map(\.timesWoken) == [1, 1])
        #expect(
            offers.map { Seen($0.finish()) } == Array(repeating: isAborted ? .aborted : .closed, count: 2))
        #expect(queue.info.messagesIn == 1)
    }

    // MARK: The end

    @Test("everybody is woken by the end, once", arguments: [false, true])
    func end(isAborted: Bool) {
        let receiving = ByteQueue(limit: 8)
        let sending = ByteQueue(limit: 8)
        _ = sending.send(0)
        let waiting = [
            Waiting(receiving, for: .receive), Waiting(receiving, for: .receive),
            Waiting(sending, for: .send, Payload(number: 1)),
            Waiting(sending, for: .offer, Payload(number: 2)),
        ]
        let told = [Waiting(receiving, for: .readable), Waiting(sending, for: .writable)]
        for queue in [receiving, sending] {
            if isAborted { queue.abort() } else { queue.close() }
            queue.close()
        }
        #expect((waiting + told).map(\.timesWoken) == [1, 1, 1, 1, 1, 1])
        #expect(
            waiting.map { Seen($0.finish()) } == Array(repeating: isAborted ? .aborted : .closed, count: 4))
        #expect(told.map { Seen($0.finish()) } == [.ready, .ready], "they look for themselves")
        #expect(sending.drain() == (isAborted ? [] : [0]))
        for purpose in [Waiter.Purpose.receive, .send, .offer, .readable, .writable] {
            let late = Waiting(receiving, for: purpose, Payload(number: 3))
            #expect(late.isSettledAtOnce)
            #expect(Seen(late.finish()) == (isAborted ? .aborted : .closed))
        }
    }

    @Test("a message that was kept before the end is still received")
    func keptAtTheEnd() {
        let queue = ByteQueue(limit: 0)
        let receiver = Waiting(queue, for: .receive)
        _ = queue.send(1)
        queue.close()
        #expect(Seen(receiver.finish()) == .message(1))
        let other = ByteQueue(limit: 0)
        let cancelled = Waiting(other, for: .receive)
        _ = other.send(1)
        other.close()
        cancelled.cancel()
        #expect([other.next(), other.next()] == [.message(1), .closed])
    }

    // MARK: Nobody left

    @Test(
        "who waits, and would wait, is told that it is closed when nobody else is left, after what is queued")
    func abandoned() {
        let queue = ByteQueue(limit: 8)
        _ = queue.send(1)
        let sender = Waiting(queue, for: .send, Payload(number: 2))
        queue.setAbandoned(true)
        #expect(Seen(sender.finish()) == .closed)
        #expect(queue.info.end == .closed)
        #expect(queue.send(2) == .closed)
        let receivers = [Waiting(queue, for: .receive), Waiting(queue, for: .receive)]
        #expect(receivers.map(\.isSettledAtOnce) == [true, true])
        #expect(receivers.map { Seen($0.finish()) } == [.message(1), .closed])
        #expect(queue.next() == .closed)
        // Somebody is there again.
        queue.setAbandoned(false)
        #expect(queue.info.end == nil)
        let receiver = Waiting(queue, for: .receive)
        #expect(!receiver.isSettled)
        _ = queue.send(3)
        #expect(Seen(receiver.finish()) == .message(3))
    }

    // MARK: Who only wants to know

    @Test("is told once that there is something, which it does not get thereby")
    func readable() {
        let queue = ByteQueue(limit: 0)
        let told = [Waiting(queue, for: .readable), Waiting(queue, for: .readable)]
        _ = queue.send(1)
        _ = queue.send(2)
        #expect(told.map(\.timesWoken) == [1, 1])
        #expect(told.map { Seen($0.finish()) } == [.ready, .ready])
        #expect(queue.drain() == [1, 2])
    }

    @Test("is not told of a message that goes to who waits for one, but of one that comes back")
    func readableBehindReceiver() {
        let queue = ByteQueue(limit: 0)
        let receiver = Waiting(queue, for: .receive)
        let told = Waiting(queue, for: .readable)
        _ = queue.send(1)
        #expect([receiver.timesWoken, told.timesWoken] == [1, 0])
        receiver.cancel()
        #expect(told.timesWoken == 1)
        #expect(queue.drain() == [1])
    }

    @Test("is told of room when there is some that nobody waits for")
    func writable() {
        let queue = ByteQueue(limit: 16)
        let atOnce = Waiting(queue, for: .writable)
        #expect(atOnce.isSettledAtOnce)
        _ = queue.send(1)
        _ = queue.send(2)
        let sender = Waiting(queue, for: .send, Payload(number: 3))
        let told = Waiting(queue, for: .writable)
        _ = queue.next()
        #expect([sender.timesWoken, told.timesWoken] == [1, 0])
        _ = queue.next()
        #expect(told.timesWoken == 1)
        #expect(Seen(told.finish()) == .ready)
        let cancelled = Waiting(queue, for: .writable)
        cancelled.cancel()
        #expect(cancelled.timesWoken == 0)
    }

    // MARK: Waking

    @Test("wakes without its lock, and passes on where it was called")
    func waking() {
        let queue = ByteQueue(limit: 0)
        let origins = Mutex<[UInt]>([])
        let note: @Sendable (Origin) -> Void = { origin in
            origins.withLock { $0.append(origin.word) }
            _ = queue.info
            _ = queue.send(7)
        }
        let receivers = (0..<3).map { _ in Waiting(queue, for: .receive, onWake: note) }
        _ = queue.send(Payload(number: 1), origin: Origin(word: 5))
        #expect(origins.withLock { $0 } == [5, 0, 0], "the sends of the first have woken the others")
        #expect(receivers.map { Seen($0.finish()) } == [.message(1), .message(7), .message(7)])
        #expect(queue.drain() == [7])
    }
}
