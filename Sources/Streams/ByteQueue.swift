import Synchronization

/// Messages of bytes from any number of senders to any number of receivers, in order, with a budget of bytes,
/// an end that comes after all data, and an error that sticks.
///
/// Whoever waits is served first come first served. A receiver that gives up after a message was kept for it gives
/// the message back to the front.
public final class ByteQueue: Sendable {
    /// How a queue ends.
    public enum End: Sendable {
        /// Nothing more can be sent; what is queued can be received.
        case closed
        /// What was queued is dropped.
        case aborted
    }

    /// What became of a message.
    public enum Sending: Sendable { case sent, busy, closed, aborted }

    /// What there is to receive.
    public enum Receipt: Sendable { case message(Payload), empty, closed, aborted }

    /// How it stands. Sizes are in bytes.
    public struct Info: Sendable {
        /// What is queued.
        public var size = 0, messages = 0
        /// What was ever sent and received.
        public var messagesIn = 0, messagesOut = 0, bytesIn = 0, bytesOut = 0
        /// Who waits for messages, and who for room.
        public var receivers = 0, senders = 0
        /// Nil while it is open, and somebody is left on the other side.
        public var end: End?
    }

    private struct Contents {
        var messages = MessageLine()
        var receivers = WaiterList()
        var senders = WaiterList()
        var readable = WaiterList()
        var writable = WaiterList()
        var isAbandoned = false
        var info = Info()
        /// The largest size since it was empty.
        var peak = 0

        /// Where nobody could go on, it is closed as long.
        var end: End? { info.end ?? (isAbandoned ? .closed : nil) }
    }

    /// How many bytes may be queued; 0 is no limit.
    public let limit: Int
    /// What a small message counts as: it takes more memory than its bytes.
    private let least: Int
    private let contents = Mutex(Contents())

    /// An empty queue, where each message counts as `least` bytes at least.
    public init(limit: Int, least: Int = 0) {
        self.limit = limit
        self.least = least
    }

    deinit {
        contents.withLock { contents in
            drop(&contents).letGo()
            // One by one as well: they would end each other.
            contents.receivers.removeAll()
            contents.senders.removeAll()
            contents.readable.removeAll()
            contents.writable.removeAll()
        }
    }

    /// How it stands.
    public var info: Info {
        contents.withLock { contents in
            var info = contents.info
            info.messages = contents.messages.count
            info.receivers = contents.receivers.count
            info.senders = contents.senders.count
            info.end = contents.end
            return info
        }
    }

    /// Whether a message of so many bytes could be sent now, or would be refused.
    public func hasRoom(for count: Int) -> Bool {
        contents.withLock { $0.end != nil || ($0.senders.first == nil && hasRoom(max(count, least), $0)) }
    }

    // MARK: At once

    /// Queues a message, or gives it to who waits for one.
    public func send(_ message: Payload, origin: Origin = .none) -> Sending {
        var woken = Woken()
        let sending = contents.withLock { contents -> Sending in
            if let end = contents.end { return end == .closed ? .closed : .aborted }
            guard hasTurn(message, contents) else { return .busy }
            accept(message, &contents, &woken)
            return .sent
        }
        woken.wake(origin)
        return sending
    }

    /// Queues a message whether there is room or not, unless the queue has ended; with `late` even if it is closed.
    public func push(_ message: Payload, late: Bool = false, origin: Origin = .none) {
        var woken = Woken()
        contents.withLock { contents in
            if contents.end == nil || (late && contents.end == .closed) { accept(message, &contents, &woken) }
        }
        woken.wake(origin)
    }

    /// Takes the oldest message.
    public func receive(origin: Origin = .none) -> Receipt {
        var woken = Woken()
        let receipt = contents.withLock { contents -> Receipt in
            guard let message = take(&contents) else { return contents.end.receipt }
            admit(&contents, &woken)
            return .message(message)
        }
        woken.wake(origin)
        return receipt
    }

    /// Takes as many messages as have `bytes` together and as fit in `count`; with `atLeastOne` the first however
    /// large it is. Of those that are copies, `copies` bytes together. Says what there is where there is none.
    public func receive(
        bytes: Int, count: Int, copies: Int = .max, atLeastOne: Bool = true, origin: Origin = .none,
        _ body: (Payload) -> Void
    ) -> Receipt {
        var woken = Woken()
        var (taken, receipt) = contents.withLock { contents -> (MessageLine, Receipt) in
            var taken = MessageLine()
            if contents.info.size <= min(bytes, copies), contents.messages.count <= count {
                taken = takeAll(&contents)
            } else {
                var room = bytes
                var copied = 0
                while taken.count < count, let next = contents.messages.first,
                    (weight(next) <= room && copied <= copies - next.copiedCount)
                        || (atLeastOne && taken.isEmpty),
                    let message = take(&contents)
                {
                    room -= weight(message)
                    copied += message.copiedCount
                    taken.append(message)
                }
            }
            guard let first = taken.first else { return (taken, contents.end.receipt) }
            admit(&contents, &woken)
            return (taken, .message(first))
        }
        woken.wake(origin)
        while let message = taken.popFirst() { body(message) }
        return receipt
    }

    /// Gives a message back that was taken: it has its place again, before all that were sent after it.
    public func putBack(_ message: Payload, origin: Origin = .none) {
        var woken = Woken()
        contents.withLock { putBack(message, &$0, &woken) }
        woken.wake(origin)
    }

    // MARK: Waiting

    /// Adds a waiter. True when it was settled at once, and will not be woken.
    public func wait(_ waiter: Waiter, origin: Origin = .none) -> Bool {
        var woken = Woken()
        let isSettled = contents.withLock { contents -> Bool in
            guard let outcome = outcome(waiter, &contents, &woken) else {
                list(of: waiter.purpose, &contents) { $0.append(waiter) }
                return false
            }
            waiter.settle(outcome)
            return true
        }
        woken.wake(origin)
        return isSettled
    }

    /// Ends a wait: tells what became of it, or nil where it still waited, as it does no longer.
    public func finish(_ waiter: Waiter, origin: Origin = .none) -> Waiter.Outcome? {
        var woken = Woken()
        let outcome = contents.withLock { contents -> Waiter.Outcome? in
            let (state, unsent) = waiter.end()
            switch state {
            case .settled(.ready) where waiter.purpose == .offer:
                leave(waiter, &contents)
                if let unsent { accept(unsent, &contents, &woken) }
                admit(&contents, &woken)
                return .sent
            case .settled(let outcome): return outcome
            case .waiting, .over:
                leave(waiter, &contents)
                admit(&contents, &woken)
                return nil
            }
        }
        woken.wake(origin)
        return outcome
    }

    /// Ends a wait whose outcome nobody wants any more: nothing is lost by that.
    public func cancel(_ waiter: Waiter, origin: Origin = .none) {
        var woken = Woken()
        contents.withLock { contents in
            if case .settled(.message(let message)) = waiter.end().state {
                putBack(message, &contents, &woken)
            }
            leave(waiter, &contents)
            admit(&contents, &woken)
        }
        woken.wake(origin)
    }

    // MARK: The end

    /// Takes no more messages. What is queued can be received. Any number of times.
    public func close(origin: Origin = .none) { end(.closed, origin) }

    /// Drops what is queued, and is an error from now on. False where it was so before.
    @discardableResult
    public func abort(origin: Origin = .none) -> Bool { end(.aborted, origin) }

    /// Says whether there is anybody left on the other side. Where not, it is closed for all who wait and who come,
    /// until there is somebody again.
    public func setAbandoned(_ isAbandoned: Bool, origin: Origin = .none) {
        var woken = Woken()
        contents.withLock { contents in
            contents.isAbandoned = isAbandoned
            if isAbandoned { settleAll(&contents, .closed, &woken) }
        }
        woken.wake(origin)
    }

    /// Tells everybody who has asked to be told: nobody could do that later.
    public func tellAll(origin: Origin = .none) {
        var woken = Woken()
        contents.withLock { tellAll(&$0, &woken) }
        woken.wake(origin)
    }

    @discardableResult
    private func end(_ end: End, _ origin: Origin) -> Bool {
        var woken = Woken()
        let (isNew, dropped) = contents.withLock { contents -> (Bool, DroppedMessages?) in
            guard contents.info.end == nil || (end == .aborted && contents.info.end == .closed) else {
                return (false, nil)
            }
            contents.info.end = end
            settleAll(&contents, end == .closed ? .closed : .aborted, &woken)
            return (true, end == .aborted ? drop(&contents) : nil)
        }
        // What they hold is let go of without the lock.
        dropped?.letGo()
        woken.wake(origin)
        return isNew
    }

    // MARK: Under the lock

    private func weight(_ message: Payload) -> Int { max(message.count, least) }

    private func hasRoom(_ count: Int, _ contents: borrowing Contents) -> Bool {
        // What is larger than the whole budget has its turn when there is nothing else; after it not even an empty
        // one has room.
        let size = contents.info.size
        return limit == 0 || contents.messages.isEmpty || (size <= limit && count <= limit - size)
    }

    /// Whether a message can be sent now without going before others.
    private func hasTurn(_ message: Payload, _ contents: borrowing Contents) -> Bool {
        contents.senders.first == nil && hasRoom(weight(message), contents)
    }

    private func accept(_ message: Payload, _ contents: inout Contents, _ woken: inout Woken) {
        contents.info.messagesIn += 1
        contents.info.bytesIn += weight(message)
        message.place = contents.info.messagesIn
        if let receiver = receiver(for: message, &contents, &woken) {
            count(out: message, &contents)
            woken.settle(receiver, .message(message))
            return
        }
        contents.messages.append(message)
        contents.info.size += weight(message)
        contents.peak = max(contents.peak, contents.info.size)
        while let waiter = contents.readable.popFirst() { woken.settle(waiter, .ready) }
    }

    /// The first who waits for a message and has room for this one. Those before are told how large it is.
    private func receiver(for message: Payload, _ contents: inout Contents, _ woken: inout Woken) -> Waiter? {
        while let receiver = contents.receivers.popFirst() {
            if message.count <= receiver.room { return receiver }
            woken.settle(receiver, .tooLarge(message.count))
        }
        return nil
    }

    private func take(_ contents: inout Contents) -> Payload? {
        guard let message = contents.messages.popFirst() else { return nil }
        contents.info.size -= weight(message)
        count(out: message, &contents)
        if contents.messages.isEmpty { emptied(&contents) }
        return message
    }

    private func takeAll(_ contents: inout Contents) -> MessageLine {
        contents.info.messagesOut += contents.messages.count
        contents.info.bytesOut += contents.info.size
        defer { emptied(&contents) }
        return contents.messages.takeAll()
    }

    private func drop(_ contents: inout Contents) -> DroppedMessages {
        defer { emptied(&contents) }
        return DroppedMessages(contents.messages.takeAll(), bytes: contents.info.size)
    }

    private func emptied(_ contents: inout Contents) {
        contents.info.size = 0
        if contents.peak >= FreedMemory.worthwhile { FreedMemory.giveBackLater() }
        contents.peak = 0
    }

    private func count(out message: Payload, _ contents: inout Contents) {
        contents.info.messagesOut += 1
        contents.info.bytesOut += weight(message)
    }

    private func putBack(_ message: Payload, _ contents: inout Contents, _ woken: inout Woken) {
        if contents.info.end == .aborted { return }
        if let receiver = receiver(for: message, &contents, &woken) {
            return woken.settle(receiver, .message(message))
        }
        contents.messages.putBack(message)
        contents.info.size += weight(message)
        contents.info.messagesOut -= 1
        contents.info.bytesOut -= weight(message)
        while let waiter = contents.readable.popFirst() { woken.settle(waiter, .ready) }
    }

    private func leave(_ waiter: Waiter, _ contents: inout Contents) {
        list(of: waiter.purpose, &contents) { $0.remove(waiter) }
    }

    /// There may be room, or the first of those who wait for it has given up, and the next has a smaller message:
    /// they have their turn.
    private func admit(_ contents: inout Contents, _ woken: inout Woken) {
        if contents.end != nil { return }
        while let sender = contents.senders.first {
            guard let message = sender.message, hasRoom(weight(message), contents) else { return }
            if sender.purpose == .offer {
                if !sender.isSettled { woken.settle(sender, .ready) }
                return
            }
            contents.senders.remove(sender)
            woken.settle(sender, .sent)
            accept(message, &contents, &woken)
        }
        guard contents.writable.first != nil, hasRoom(max(1, least), contents) else { return }
        while let waiter = contents.writable.popFirst() { woken.settle(waiter, .ready) }
    }

    /// What a waiter would have at once; nil where it has to wait.
    private func outcome(_ waiter: Waiter, _ contents: inout Contents, _ woken: inout Woken)
        -> Waiter.Outcome?
    {
        switch waiter.purpose {
        case .receive:
            if let next = contents.messages.first, next.count > waiter.room { return .tooLarge(next.count) }
            if let message = take(&contents) {
                admit(&contents, &woken)
                return .message(message)
            }
        case .readable:
            if !contents.messages.isEmpty { return .ready }
        case .send, .offer:
            if contents.end == nil, let message = waiter.message, hasTurn(message, contents) {
                accept(message, &contents, &woken)
                return .sent
            }
        case .writable:
            if contents.end == nil, contents.senders.first == nil, hasRoom(max(1, least), contents) {
                return .ready
            }
        }
        guard let end = contents.end else { return nil }
        return end == .closed ? .closed : .aborted
    }

    private func settleAll(_ contents: inout Contents, _ outcome: Waiter.Outcome, _ woken: inout Woken) {
        while let waiter = contents.receivers.popFirst() { woken.settle(waiter, outcome) }
        while let waiter = contents.senders.popFirst() { woken.settle(waiter, outcome) }
        tellAll(&contents, &woken)
    }

    /// Who asked to be told looks for itself.
    private func tellAll(_ contents: inout Contents, _ woken: inout Woken) {
        while let waiter = contents.readable.popFirst() { woken.settle(waiter, .ready) }
        while let waiter = contents.writable.popFirst() { woken.settle(waiter, .ready) }
    }

    private func list(
        of purpose: Waiter.Purpose, _ contents: inout Contents, _ change: (inout WaiterList) -> Void
    ) {
        switch purpose {
        case .receive: change(&contents.receivers)
        case .send, .offer: change(&contents.senders)
        case .readable: change(&contents.readable)
        case .writable: change(&contents.writable)
        }
    }
}

extension ByteQueue.End? {
    fileprivate var receipt: ByteQueue.Receipt {
        switch self {
        case nil: .empty
        case .closed: .closed
        case .aborted: .aborted
        }
    }
}
