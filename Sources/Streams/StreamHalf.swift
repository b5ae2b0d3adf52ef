import Synchronization

/// One of the two halves of a call that streams: chunks that came and were not yet taken, which directions are over
/// and why, and the one reply.
///
/// What it sends goes into the other half where that is in this program, or into a queue of its own, the outbox, from
/// which somebody passes it on. Either has a budget of bytes: who sends waits for room.
///
/// Errors stick. They come after the chunks that came before them.
public final class StreamHalf: Sendable {
    /// What a host makes of an error, a reply or a chunk that is not bytes.
    public typealias Value = AnyObject & Sendable

    /// What became of a chunk.
    public enum Sending: Sendable { case sent, busy, closed, noPeer }

    /// What there is to receive.
    public enum Receipt: Sendable {
        case chunk(Payload), empty, end
        case failed(any Value)
    }

    /// What is known of the reply.
    public enum Reply: Sendable {
        case known(any Value)
        /// It will hardly come any more, because this half or the other was closed without one.
        case closed, peerClosed
    }

    /// How it stands: chunks and bytes that came and were not taken, how many wait for them, the numbers of the
    /// next chunks in both directions, and which directions are over.
    public struct Info: Sendable {
        /// Chunks, bytes, who waits, and numbers.
        public var inbox = 0, inboxBytes = 0, receivers = 0, sequenceIn = 0, sequenceOut = 0
        /// Which directions are over.
        public var isReceivingClosed = false, isSendingClosed = false
        /// Nil where none is known.
        public var reply: (any Value)?
    }

    private struct State {
        var target: Target?
        var isSendingClosed = false
        /// Why receiving has ended, where that was not at the end of all chunks.
        var failure: (any Value)?
        var reply: (any Value)?
        /// Why no reply will come.
        var replyEnd: Reply?
        /// Whether this side has closed or given up: what is queued is not waited for then.
        var hasLeft = false
        /// How many tell the other half something now. It is not over until they have: then it is told that this is gone.
        var telling = 0
        var isOver = false
    }

    private enum Target {
        case half(StreamHalf)
        case outbox(ByteQueue)

        var queue: ByteQueue {
            switch self {
            case .half(let half): half.inbox
            case .outbox(let queue): queue
            }
        }
    }

    /// A reply on its way through an outbox, after all chunks that were sent before it.
    public final class ReplyMark: Sendable {
        /// The reply.
        public let value: any Value

        fileprivate init(_ value: any Value) { self.value = value }
    }

    /// What a small chunk takes of a window: it has a piece of memory of its own.
    public static let leastWeight = 64

    /// The chunks that came.
    public let inbox: ByteQueue
    /// It never holds anything: it is closed as soon as there is something to say of the reply, for those who wait.
    private let replied = ByteQueue(limit: 0)
    private let state = Mutex(State())
    private let sent = Atomic<Int>(0)
    private let isEnding = Atomic<Bool>(false)
    private let whenOver: @Sendable (_ origin: Origin) -> Void

    /// `window`: how many bytes may wait here. `whenOver` is called once, without a lock, when nothing can happen any
    /// more: both directions are over, what came is taken, the reply is settled.
    public init(window: Int, whenOver: @escaping @Sendable (_ origin: Origin) -> Void) {
        inbox = ByteQueue(limit: window, least: StreamHalf.leastWeight)
        self.whenOver = whenOver
    }

    // MARK: The other half

    /// Joins two halves: what one sends, the other receives. What they were joined with before is forgotten.
    public static func pair(_ first: StreamHalf, _ second: StreamHalf) {
        first.state.withLock { $0.target = .half(second) }
        second.state.withLock { $0.target = .half(first) }
    }

    /// Has what is sent put into an outbox, which is returned.
    public func attachOutbox(window: Int) -> ByteQueue {
        let outbox = ByteQueue(limit: window, least: StreamHalf.leastWeight)
        state.withLock { state in
            state.target = .outbox(outbox)
            if state.isSendingClosed { outbox.close() }
        }
        return outbox
    }

    /// Lets go of the other half: they hold each other until then.
    public func detach() { state.withLock { $0.target = nil } }

    /// What waits to be passed on; nil where there is no outbox.
    public var outbox: ByteQueue? {
        state.withLock { state in
            guard case .outbox(let outbox) = state.target else { return nil }
            return outbox
        }
    }

    // MARK: Sending

    /// Sends a chunk if there is room.
    public func send(_ chunk: Payload, origin: Origin = .none) -> Sending {
        send(CollectionOfOne(chunk), origin: origin).sending
    }

    /// Sends as many chunks as there is room for. Tells how many those were, and what became of the next one.
    public func send(_ chunks: some Collection<Payload>, origin: Origin = .none)
        -> (count: Int, sending: Sending)
    {
        // Who closes meanwhile does so before the first or after the last: nothing is said to be sent that is not.
        let result = state.withLock { state -> (Int, Sending) in
            if state.isSendingClosed { return (0, .closed) }
            guard let queue = state.target?.queue else { return (0, .noPeer) }
            var count = 0
            for chunk in chunks {
                switch queue.send(chunk, origin: origin) {
                case .sent: count += 1
                case .busy: return (count, .busy)
                case .closed, .aborted: return (count, .closed)
                }
            }
            return (count, .sent)
        }
        sent.add(result.0, ordering: .relaxed)
        return result
    }

    /// Whether a chunk of so many bytes could be sent now, or would be refused.
    public func hasRoom(for count: Int) -> Bool {
        state.withLock { $0.isSendingClosed || $0.target?.queue.hasRoom(for: count) ?? true }
    }

    /// Begins to wait for room; the waiter carries the chunk. Nil where it can never be sent.
    public func waitToSend(_ waiter: Waiter, origin: Origin = .none) -> (queue: ByteQueue, isSettled: Bool)? {
        state.withLock { state in
            guard !state.isSendingClosed, let queue = state.target?.queue else { return nil }
            return (queue, queue.wait(waiter, origin: origin))
        }
    }

    /// A waiter has sent its chunk.
    public func countSent() { sent.add(1, ordering: .relaxed) }

    /// Sends nothing more. False where that was so before.
    @discardableResult
    public func closeSending(origin: Origin = .none) -> Bool {
        let isNew = state.withLock { state -> Bool in
            guard !state.isSendingClosed else { return false }
            state.isSendingClosed = true
            state.target?.queue.close(origin: origin)
            return true
        }
        guard isNew else { return false }
        lookForEnd(origin, of: true)
        peer?.lookForEnd(origin, of: true)
        return true
    }

    private var peer: StreamHalf? {
        state.withLock { state in
            guard case .half(let peer) = state.target else { return nil }
            return peer
        }
    }

    // MARK: Receiving

    /// Takes the oldest chunk.
    public func receive(origin: Origin = .none) -> Receipt { taken(inbox.receive(origin: origin), origin) }

    /// Takes as many as have `bytes` together, at least one where there is one. Says what there is where there is none.
    public func receive(
        bytes: Int, count: Int, copies: Int, origin: Origin = .none, _ body: (Payload) -> Void
    ) -> Receipt {
        taken(
            inbox.receive(bytes: bytes, count: count, copies: copies, origin: origin, body), origin)
    }

    /// What a waiter has got.
    public func taken(_ receipt: ByteQueue.Receipt, _ origin: Origin = .none) -> Receipt {
        switch receipt {
        case .message(let chunk):
            lookForEnd(origin)
            return .chunk(chunk)
        case .empty: return .empty
        case .closed, .aborted: return state.withLock { $0.failure.map { .failed($0) } ?? .end }
        }
    }

    /// A chunk that has come, whose sender has kept the budget in mind or knows of none. Dropped where nothing is
    /// received any more.
    public func deliver(_ chunk: Payload, origin: Origin = .none) { inbox.push(chunk, origin: origin) }

    /// The other half sends nothing more.
    public func deliverEnd(origin: Origin = .none) {
        inbox.close(origin: origin)
        lookForEnd(origin, of: true)
    }

    /// The other half is closed.
    public func deliverClose(origin: Origin = .none) { end(origin, reply: .peerClosed) }

    /// The other half has given up, for a reason.
    public func deliverFailure(_ failure: some Value, origin: Origin = .none) {
        end(origin, reply: .known(failure), failure: failure)
    }

    /// The other half is gone. What it has completed stays complete.
    public func deliverLoss(_ failure: some Value, origin: Origin = .none) {
        let isComplete = inbox.info.end != nil
        end(origin, reply: .known(failure), failure: isComplete ? nil : failure)
    }

    // MARK: The reply

    /// What is known of the reply; nil where nothing is.
    public var reply: Reply? {
        state.withLock { state in state.reply.map { .known($0) } ?? state.replyEnd }
    }

    /// Begins to wait for what `reply` tells. True where it is there.
    public func waitForReply(_ waiter: Waiter, origin: Origin = .none) -> Bool {
        replied.wait(waiter, origin: origin)
    }

    /// Ends such a wait, however it went.
    public func endWaitForReply(_ waiter: Waiter, origin: Origin = .none) {
        replied.cancel(waiter, origin: origin)
    }

    /// The reply has come from the other half.
    public func deliver(reply: some Value, origin: Origin = .none) {
        state.withLock { $0.reply = reply }
        replied.close(origin: origin)
        lookForEnd(origin, of: true)
    }

    /// Gives the reply, here and to the other half. False where one was given before: that stays.
    @discardableResult
    public func setReply(_ reply: some Value, origin: Origin = .none) -> Bool {
        let (isNew, target) = state.withLock { state -> (Bool, Target?) in
            guard state.reply == nil else { return (false, nil) }
            state.reply = reply
            state.telling += 1
            return (true, state.target)
        }
        guard isNew else { return false }
        replied.close(origin: origin)
        switch target {
        case .half(let peer): peer.deliver(reply: reply, origin: origin)
        case .outbox(let queue):
            // It may be given after the end of what is sent.
            queue.push(Payload(weighing: 0, ownedBy: ReplyMark(reply)), late: true, origin: origin)
        case nil: break
        }
        hasTold(origin)
        return true
    }

    // MARK: The end

    /// Ends both directions, of the other half as well.
    public func close(origin: Origin = .none) {
        telling(origin) { target in
            end(origin, reply: .closed)
            if case .half(let peer) = target { peer.deliverClose(origin: origin) }
        }
    }

    /// Gives the call up, for a reason that both halves tell from now on.
    public func abort(_ failure: some Value, origin: Origin = .none) {
        telling(origin) { target in
            end(origin, reply: .known(failure), failure: failure)
            if case .half(let peer) = target { peer.deliverFailure(failure, origin: origin) }
        }
    }

    /// This half is gone: `here` is told by it from now on, `there` by the other.
    public func lose(here: some Value, there: some Value, origin: Origin = .none) {
        telling(origin) { target in
            if case .outbox(let queue) = target { queue.abort(origin: origin) }
            deliverLoss(here, origin: origin)
            if case .half(let peer) = target { peer.deliverLoss(there, origin: origin) }
        }
    }

    /// Does what ends this half and is told to the other.
    private func telling(_ origin: Origin, _ body: (Target?) -> Void) {
        body(
            state.withLock { state in
                state.hasLeft = true
                state.telling += 1
                return state.target
            })
        hasTold(origin)
    }

    private func hasTold(_ origin: Origin) {
        state.withLock { $0.telling -= 1 }
        lookForEnd(origin, of: true)
    }

    private func end(_ origin: Origin, reply: Reply, failure: (any Value)? = nil) {
        let target = state.withLock { state -> Target? in
            state.isSendingClosed = true
            if state.failure == nil { state.failure = failure }
            if state.reply == nil, state.replyEnd == nil {
                // An error stays the reply, as if it were given; what is only closed may still have one.
                if case .known(let failure) = reply { state.reply = failure } else { state.replyEnd = reply }
            }
            return state.target
        }
        inbox.close(origin: origin)
        // What is in it is still passed on; who waits for room waits in vain.
        if case .outbox(let queue) = target { queue.close(origin: origin) }
        replied.close(origin: origin)
        lookForEnd(origin, of: true)
    }

    /// Looks whether all is over, where something has happened that may be the last; `isNew`: that ends something.
    private func lookForEnd(_ origin: Origin, of isNew: Bool = false) {
        if isNew { isEnding.store(true, ordering: .releasing) }
        guard isEnding.load(ordering: .acquiring) else { return }
        let info = inbox.info
        let isOver = state.withLock { state -> Bool in
            guard !state.isOver, state.telling == 0, state.isSendingClosed, info.end != nil,
                info.messages == 0 || state.hasLeft,
                state.reply != nil || state.replyEnd != nil
            else { return false }
            state.isOver = true
            return true
        }
        if isOver { whenOver(origin) }
    }

    /// Whether nothing can happen any more.
    public var isOver: Bool { state.withLock { $0.isOver } }

    /// How it stands now.
    public var info: Info {
        let inbox = inbox.info
        var info = Info()
        info.inbox = inbox.messages
        info.inboxBytes = inbox.size
        info.receivers = inbox.receivers
        info.sequenceIn = inbox.messagesIn
        info.sequenceOut = sent.load(ordering: .relaxed)
        info.isReceivingClosed = inbox.end != nil
        (info.isSendingClosed, info.reply) = state.withLock { ($0.isSendingClosed, $0.reply) }
        return info
    }
}

extension Payload {
    /// How much of a window it takes as a chunk.
    public var chunkWeight: Int { owner is StreamHalf.ReplyMark ? 0 : max(count, StreamHalf.leastWeight) }
}
