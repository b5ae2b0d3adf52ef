import CPython
import Python
import Streams

/// What threads of Python do with a link, and wait for. With the GIL, which is released meanwhile.
extension PacketLink {
    /// How short after the last packet one is not written at once, but left for others to come along, in
    /// nanoseconds.
    private static let burst: Int64 = 20_000

    /// Waits until something is so, which is looked at with the lock; whether it is, when the time is over.
    func wait(
        until end: Int64, _ state: ModuleState, _ isSo: @escaping @Sendable (inout Contents) -> Bool
    ) throws(PythonError) -> Bool {
        let number = lock.withLock { c -> Int? in
            if isSo(&c) { return nil }
            c.nextWatcher += 1
            return c.nextWatcher
        }
        guard let number else { return true }
        let sleep = Sleep(state)
        let watcher = Watcher(number: number, isSo: isSo, wake: sleep.wake)
        defer { lock.withLock { c in c.watchers.removeAll { $0.number == number } } }
        return try sleep.wait(until: end) {
            lock.withLock { c in
                if isSo(&c) { return true }
                // It was told, and somebody else was faster.
                if !c.watchers.contains(where: { $0.number == number }) { c.watchers.append(watcher) }
                return false
            }
        }
    }

    // MARK: Requests

    /// What keeps a request from being made.
    enum Refusal { case closed, noRequests, unknownChannel, noRoom }

    /// Makes a request, if there is room for it.
    func submit(
        _ head: PacketHead, _ payload: PyPointer, deadline: Int64
    ) -> (PacketRequest?, Refusal) {
        let now = monotonicNanoseconds()
        var refusal = Refusal.closed
        var request: PacketRequest?
        var writes = false
        var rings = false
        var hand = Hand()
        lock.withLock { c in
            if c.isClosed || c.refusal != nil { return }
            refusal = .noRequests
            if c.end == nil, c.ownRequestsEnded || c.isEndSent { return }
            refusal = .unknownChannel
            if head.channel != 0, c.handlers[head.channel] == nil { return }
            refusal = .noRoom
            let made = PacketRequest(tag: c.nextTag, channel: head.channel, deadline: deadline)
            if let end = c.end {
                _ = made.settle(.ended(end))
                request = made
                return
            }
            if !hasRoom(c) { return }
            c.nextTag &+= 1
            c.counters.requestsSent += 1
            c.pending[made.tag] = made
            // A reader that has stopped, as too many requests are in hand, may go on.
            rings = c.pending.count == 1 && c.isPaused && c.isPolling
            if deadline != .max { add(&c, deadline, made, &rings) }
            var head = head
            head.tag = made.tag
            append(&c, head, payload)
            request = made
            if options.grace == 0, now &- c.lastWrite >= PacketLink.burst {
                c.lastWrite = now
                writes = true
            } else {
                let soon = willFlush(&c)
                rings = rings || soon.ring
                hand = soon.hand
            }
        }
        if writes {
            // What takes longer lets others have the GIL.
            if PyBytes_Size(payload) >= PacketOutput.heldSize {
                let thread = PyEval_SaveThread()
                flush(isDue: false)
                PyEval_RestoreThread(thread)
            } else {
                flush(isDue: false)
            }
        }
        if rings { ring() }
        follow(hand)
        garbage.giveBack()
        return (request, refusal)
    }

    /// Whether one more request may be made. With the lock.
    func hasRoom(_ c: borrowing Contents) -> Bool {
        c.pending.count < options.maxOutstanding && output.size < options.sendWindow
    }

    /// Whether there is room, or never will be. With the lock.
    func mayAsk(_ c: borrowing Contents) -> Bool {
        hasRoom(c) || c.isClosed || c.refusal != nil || c.end != nil
    }

    private func add(_ c: inout Contents, _ deadline: Int64, _ request: PacketRequest, _ rings: inout Bool) {
        if c.deadlines.count > 64, c.deadlines.count > 4 * c.pending.count {
            let pending = c.pending
            c.deadlines.keep { pending[$0] != nil }
        }
        c.deadlines.insert(deadline, request.tag)
        rings = rings || (c.isPolling && deadline < c.pollLimit)
    }

    /// Gives a request up; false where it is over.
    func cancel(_ request: PacketRequest) -> Bool {
        var wakers: [@Sendable () -> Void] = []
        var mustRing = false
        let isCancelled = lock.withLock { c in
            guard c.pending[request.tag] === request else { return false }
            c.pending[request.tag] = nil
            wakers = request.settle(.cancelled)
            wakers += takeWatchers(&c)
            // The reader may be who waits for it.
            mustRing = c.isPolling
            return true
        }
        for wake in wakers { wake() }
        if mustRing { ring() }
        return isCancelled
    }

    /// Waits for the outcome of a request; false where there is none when the time is over.
    func wait(for request: PacketRequest, until end: Int64, _ state: ModuleState) throws(PythonError) -> Bool
    {
        if request.isSettled { return true }
        return try wait(
            for: request, until: end, state, isOver: { request.isSettled },
            wakingBy: { wake in lock.withLock { _ in request.add(wake) } })
    }

    /// Waits until something is over; false where it is not when the time is over. Who ends it is told by
    /// `add`, which tells in turn whether that has not happened yet, how a thread that sleeps is woken.
    ///
    /// The thread reads by itself where nobody else does: what comes then takes no way over another thread.
    func wait(
        for goal: AnyObject & Sendable, until end: Int64, _ state: ModuleState, isOver: @escaping () -> Bool,
        wakingBy add: (@escaping @Sendable () -> Void) -> Bool
    ) throws(PythonError) -> Bool {
        // The janitor can wake a context's thread from a sleep only.
        let mayRead = ContextThread.current == nil
        while true {
            let thread = PyEval_SaveThread()
            if mayRead, takePlace() {
                let gil = GILAccess.waiter(thread)
                var isSignalled = false
                while !isOver(), !isSignalled, monotonicNanoseconds() < end, !isShut {
                    isSignalled = turn(gil, until: end, isOver: isOver).isSignalled
                }
                leavePlaceToOthers()
            } else {
                flush(isDue: false)
            }
            PyEval_RestoreThread(thread)
            garbage.giveBack()
            if PyErr_CheckSignals() != 0 { throw PythonError() }
            if isOver() { return true }
            if monotonicNanoseconds() >= end { return false }
            let sleep = Sleep(state)
            guard add(sleep.wake) else { return true }
            if mayRead {
                lock.withLock { $0.sleepers.append(Sleeper(goal: goal, wake: sleep.wake)) }
            }
            defer {
                if mayRead {
                    lock.withLock { c in
                        if let place = c.sleepers.lastIndex(where: { $0.goal === goal }) {
                            c.sleepers.remove(at: place)
                        }
                    }
                }
            }
            _ = try sleep.wait(until: end) {
                isOver() || (mayRead && isVacant.load(ordering: .sequentiallyConsistent) && !isShut)
            }
        }
    }

    private var isShut: Bool { lock.withLock { $0.isClosed } }

    /// Has whoever reads look whether what it waits for is over, which another thread may have ended. From
    /// any thread.
    func lookAgain() {
        if lock.withLock({ $0.isPolling }) { ring() }
    }

    // MARK: Ends

    /// Accepts no more requests of the peer, and makes none.
    func refuse(_ text: String) {
        let wakers = lock.withLock { c in
            c.refusal = text
            return takeWatchers(&c)
        }
        for wake in wakers { wake() }
    }

    /// Writes a packet without payload that is no answer.
    func sendControl(_ head: PacketHead) {
        lock.withLock { c in
            if c.isEndSent { return }
            if head == .endOfRequests {
                if c.ownRequestsEnded { return }
                c.ownRequestsEnded = true
            }
            append(&c, head, nil)
            if head == .endOfStream { c.isEndSent = true }
        }
        let thread = PyEval_SaveThread()
        flush(isDue: true)
        PyEval_RestoreThread(thread)
    }
}
