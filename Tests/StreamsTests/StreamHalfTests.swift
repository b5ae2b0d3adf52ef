import Synchronization
import Testing

@testable import Streams

private final class Named: Sendable, Equatable {
    let name: String
    init(_ name: String) { self.name = name }
    static func == (first: Named, second: Named) -> Bool { first.name == second.name }
}

private final class Counter: Sendable {
    let number = Atomic<Int>(0)
    var value: Int { number.load(ordering: .sequentiallyConsistent) }
    func increment() { number.add(1, ordering: .sequentiallyConsistent) }
}

/// Two halves, joined, and how often each was over.
private final class Pair: Sendable {
    let client: StreamHalf
    let server: StreamHalf
    let over = (client: Counter(), server: Counter())

    init(window: Int = 512) {
        let (first, second) = over
        client = StreamHalf(window: window) { _ in first.increment() }
        server = StreamHalf(window: window) { _ in second.increment() }
        StreamHalf.pair(client, server)
    }

    /// Each holds the other while they are joined.
    deinit {
        client.detach()
        server.detach()
    }

    var timesOver: [Int] { [over.client.value, over.server.value] }
}

extension StreamHalf {
    fileprivate func sends(_ number: Int, count: Int = 8) -> Sending {
        send(Payload(number: number, count: count))
    }

    fileprivate var next: String {
        switch receive() {
        case .chunk(let chunk): "\(chunk.number)"
        case .empty: "empty"
        case .end: "end"
        case .failed(let failure): (failure as? Named)?.name ?? "?"
        }
    }

    fileprivate var replied: String {
        switch reply {
        case nil: "waiting"
        case .known(let value): (value as? Named)?.name ?? "?"
        case .closed: "closed"
        case .peerClosed: "peer closed"
        }
    }
}

@Suite("StreamHalf")
struct StreamHalfTests {
    @Test("chunks come in order, and are counted on both sides")
    func order() {
        let pair = Pair()
        #expect([pair.client.sends(1), pair.client.sends(2)] == [.sent, .sent])
        #expect([pair.server.next, pair.server.next, pair.server.next] == ["1", "2", "empty"])
        #expect(pair.client.info.sequenceOut == 2)
        #expect(pair.server.info.sequenceIn == 2)
        #expect(pair.server.info.sequenceOut == 0)
    }

    @Test("who has no other half cannot send, and can close")
    func alone() {
        let half = StreamHalf(window: 512) { _ in }
        #expect(half.sends(1) == .noPeer)
        #expect(half.closeSending())
        #expect(!half.closeSending())
        #expect(half.sends(1) == .closed)
        #expect(half.next == "empty")
    }

    @Test("there is room for a window of bytes, and again as far as they are taken")
    func window() {
        let pair = Pair(window: 128)
        #expect([pair.client.sends(1), pair.client.sends(2), pair.client.sends(3)] == [.sent, .sent, .busy])
        #expect(pair.server.sends(4) == .sent)
        let (count, sending) = pair.client.send([Payload(number: 5)])
        #expect(count == 0 && sending == .busy)
        #expect(pair.server.next == "1")
        let many = pair.client.send([Payload(number: 3), Payload(number: 4)])
        #expect(many.count == 1 && many.sending == .busy)
        #expect([pair.server.next, pair.server.next, pair.server.next] == ["2", "3", "empty"])
    }

    @Test("a small chunk takes 64 bytes of the window, a larger one what it has")
    func smallChunks() {
        let pair = Pair(window: 256)
        #expect((1...5).map { pair.client.sends($0, count: 8) } == [.sent, .sent, .sent, .sent, .busy])
        #expect(pair.server.info.inboxBytes == 256)
        #expect(!pair.client.hasRoom(for: 0))
        #expect([pair.server.next, pair.server.next] == ["1", "2"])
        #expect(pair.client.hasRoom(for: 128) && !pair.client.hasRoom(for: 129))
        #expect(pair.client.sends(6, count: 100) == .sent)
        #expect(pair.server.info.inboxBytes == 228)
        pair.client.closeSending()
        // It would be refused.
        #expect(pair.client.hasRoom(for: 129))
    }

    @Test("who waits for room is woken when something is taken, and in vain when either side closes")
    func waitForRoom() throws {
        let pair = Pair(window: 64)
        #expect(pair.client.sends(1) == .sent)
        let woken = Counter()
        let waiters = [2, 3].map { number in
            Waiter(for: .send, message: Payload(number: number)) { _ in woken.increment() }
        }
        let first = try #require(pair.client.waitToSend(waiters[0]))
        let second = try #require(pair.client.waitToSend(waiters[1]))
        #expect(!first.isSettled && !second.isSettled)
        #expect(pair.server.next == "1")
        #expect(woken.value == 1)
        #expect(Seen(first.queue.finish(waiters[0])) == .sent)
        pair.client.closeSending()
        #expect(woken.value == 2)
        #expect(Seen(second.queue.finish(waiters[1])) == .closed)
        #expect([pair.server.next, pair.server.next] == ["2", "end"])
        #expect(pair.client.waitToSend(waiters[0]) == nil)
    }

    @Test("one direction ends, the other goes on")
    func halfClose() {
        let pair = Pair()
        _ = pair.client.sends(1)
        pair.client.closeSending()
        #expect(pair.client.sends(2) == .closed)
        #expect(pair.server.sends(3) == .sent)
        #expect([pair.server.next, pair.server.next, pair.server.next] == ["1", "end", "end"])
        #expect([pair.client.next, pair.client.next] == ["3", "empty"])
        #expect(pair.timesOver == [0, 0])
    }

    @Test("an error comes after the chunks, and stays")
    func failure() {
        let pair = Pair()
        _ = pair.server.sends(1)
        pair.server.abort(Named("no"))
        for half in [pair.server, pair.client] { #expect(half.replied == "no") }
        #expect([pair.client.next, pair.client.next, pair.client.next] == ["1", "no", "no"])
        #expect([pair.server.next, pair.server.next] == ["no", "no"])
        #expect([pair.client.sends(2), pair.server.sends(2)] == [.closed, .closed])
        pair.client.abort(Named("later"))
        #expect([pair.client.next, pair.client.replied, pair.server.next] == ["no", "no", "no"])
        #expect(pair.timesOver == [1, 1])
    }

    @Test("a half that is lost leaves what it has completed")
    func loss() {
        let complete = Pair()
        _ = complete.server.sends(1)
        complete.server.closeSending()
        complete.server.setReply(Named("fine"))
        complete.server.lose(here: Named("closed"), there: Named("down"))
        #expect(
            [complete.client.next, complete.client.next, complete.client.replied] == ["1", "end", "fine"])
        let half = Pair()
        _ = half.server.sends(1)
        half.server.lose(here: Named("closed"), there: Named("down"))
        #expect([half.client.next, half.client.next, half.client.replied] == ["1", "down", "down"])
        #expect([half.server.next, half.server.replied] == ["closed", "closed"])
    }

    @Test("only the first reply counts, and it wakes all who wait for it")
    func reply() {
        let pair = Pair()
        #expect(pair.client.replied == "waiting")
        let woken = Counter()
        let waiters = (0..<3).map { _ in Waiter(for: .readable) { _ in woken.increment() } }
        for waiter in waiters { #expect(!pair.client.waitForReply(waiter)) }
        pair.client.endWaitForReply(waiters[2])
        #expect(pair.server.setReply(Named("first")))
        #expect(!pair.server.setReply(Named("second")))
        #expect(woken.value == 2)
        #expect([pair.client.replied, pair.server.replied] == ["first", "first"])
        #expect(pair.client.waitForReply(Waiter(for: .readable) { _ in }))
        // It ends nothing.
        #expect(pair.server.sends(1) == .sent)
        pair.client.deliver(reply: Named("third"))
        #expect(pair.client.replied == "third")
    }

    @Test("who closes ends both halves, and settles who waits for the reply on both")
    func close() {
        let pair = Pair()
        _ = pair.server.sends(1)
        pair.client.close()
        #expect([pair.client.replied, pair.server.replied] == ["closed", "peer closed"])
        #expect([pair.client.next, pair.client.next, pair.server.next] == ["1", "end", "end"])
        #expect(pair.server.sends(2) == .closed)
        #expect(pair.server.setReply(Named("late")))
        #expect(pair.client.replied == "late")
    }

    @Test("it is over once, when both directions are, all is taken and the reply is settled")
    func over() {
        let pair = Pair()
        _ = pair.server.sends(1)
        pair.client.closeSending()
        pair.server.closeSending()
        #expect(pair.timesOver == [0, 0])
        pair.server.setReply(Named("fine"))
        #expect(pair.timesOver == [0, 1])
        #expect(pair.client.next == "1")
        #expect(pair.timesOver == [1, 1])
        pair.client.close()
        pair.server.close()
        #expect(pair.timesOver == [1, 1])
    }

    @Test("what is sent waits in an outbox, the reply and the end after it")
    func outbox() throws {
        let half = StreamHalf(window: 128) { _ in }
        let outbox = half.attachOutbox(window: 128)
        #expect([half.sends(1), half.sends(2), half.sends(3)] == [.sent, .sent, .busy])
        half.setReply(Named("fine"))
        half.closeSending()
        #expect([outbox.next(), outbox.next()] == [.message(1), .message(2)])
        guard case .message(let last) = outbox.receive() else { throw Missing() }
        let mark = try #require(last.owner as? StreamHalf.ReplyMark)
        #expect(mark.value as? Named == Named("fine"))
        #expect(last.bytes.isEmpty)
        #expect(outbox.next() == .closed)
    }

    @Test("a reply that is given after the end of what is sent is passed on as well")
    func lateReply() throws {
        let half = StreamHalf(window: 128) { _ in }
        let outbox = half.attachOutbox(window: 128)
        half.closeSending()
        #expect(outbox.next() == .closed)
        half.setReply(Named("late"))
        guard case .message(let late) = outbox.receive() else { throw Missing() }
        let mark = try #require(late.owner as? StreamHalf.ReplyMark)
        #expect(mark.value as? Named == Named("late"))
        #expect(outbox.next() == .closed)
    }

    @Test("what is in the outbox is passed on before an error, and not when the half is gone")
    func endedOutbox() {
        let half = StreamHalf(window: 128) { _ in }
        let outbox = half.attachOutbox(window: 128)
        _ = [half.sends(1), half.sends(2)]
        half.abort(Named("no"))
        #expect(outbox.next() == .message(1))
        half.lose(here: Named("closed"), there: Named("down"))
        #expect(outbox.next() == .aborted)
    }

    @Test("what is delivered from elsewhere needs no room, and is dropped after the end")
    func delivery() {
        let half = StreamHalf(window: 64) { _ in }
        for number in 0..<3 { half.deliver(Payload(number: number)) }
        half.deliverEnd()
        half.deliver(Payload(number: 3))
        #expect([half.next, half.next, half.next, half.next] == ["0", "1", "2", "end"])
        half.deliverClose()
        #expect(half.replied == "peer closed")
        #expect(half.sends(1) == .closed)
    }

    @Test("two halves let go of each other")
    func detach() {
        weak var client: StreamHalf?
        weak var server: StreamHalf?
        do {
            let (one, other) = (StreamHalf(window: 512) { _ in }, StreamHalf(window: 512) { _ in })
            StreamHalf.pair(one, other)
            client = one
            server = other
            one.detach()
        }
        #expect(client == nil && server == nil)
    }

    @Test("all that many threads send while one closes is received, or was refused")
    func manySenders() {
        let pair = Pair(window: 0)
        let accepted = Counter()
        let threads = (0..<4).map { _ in
            TestThread {
                for number in 0..<2000 where pair.client.sends(number) == .sent { accepted.increment() }
            }
        }
        let closing = TestThread {
            while accepted.value < 1000 {}
            pair.client.closeSending()
        }
        for thread in threads + [closing] { thread.join() }
        var received = 0
        while Int(pair.server.next) != nil { received += 1 }
        #expect(received == accepted.value)
    }
}

private struct Missing: Error {}
