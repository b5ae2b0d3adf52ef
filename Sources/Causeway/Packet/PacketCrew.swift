import CPython
import Glibc
import Python
import Streams
import Synchronization

/// The threads of a link: one that reads where no thread of Python does, one that stands by, and those that
/// run handlers.
extension PacketLink {
    /// How often the stand-by looks, in nanoseconds, and how often in vain before it sleeps until it is
    /// woken.
    private static let tick: Int64 = 500_000
    private static let quietTicks = 4
    /// For how long the reader leaves objects to threads that have the GIL to give back, in nanoseconds.
    private static let patience: Int64 = 5_000_000

    private enum Job {
        case hooks([Hook])
        case work
        case read
        case sleep
        case standBy(isParked: Bool)
        case leave
    }

    /// What one thread of the crew knows.
    private struct Member {
        var hasPlace = false
        var isStandby = false
        /// It comes from other work.
        var isFresh = true
        /// It has looked before, and saw this.
        var hasLooked = false
        var seenChanges = 0
        var seenCompleted = 0
        var quiet = 0
        var standbySeen: UInt32 = 0
        var crewSeen: UInt32 = 0
        /// When it lets go of objects itself.
        var givesBackAt = Int64.max
    }

    /// Starts one of the crew, which is counted as starting already.
    func startCrew() {
        do throws(Errno) {
            try NativeThread.start(name: "causeway-packet", stackSize: 16 << 20) { [self] in runCrew() }
        } catch {
            lock.withLock { $0.starting -= 1 }
        }
    }

    private func runCrew() {
        guard let thread = ThreadState(interpreter: interpreter) else {
            return lock.withLock { $0.starting -= 1 }
        }
        var me = Member()
        lock.withLock { c in
            c.starting -= 1
            c.crew.insert(thread.identifier)
            me.isFresh = c.crew.count == 1
        }
        let gil = GILAccess.crew(thread)
        working: while true {
            me.standbySeen = standbyWord.value
            me.crewSeen = crewWord.value
            var hand = Hand()
            let job = lock.withLock { c in decide(&c, &me, &hand) }
            follow(hand)
            switch job {
            case .hooks(let hooks): thread.withGIL { run(hooks) }
            case .work: work(thread)
            case .read:
                let now = monotonicNanoseconds()
                me.givesBackAt = garbage.isEmpty ? .max : min(me.givesBackAt, now &+ PacketLink.patience)
                if me.givesBackAt <= now {
                    thread.withGIL { garbage.giveBack() }
                    me.givesBackAt = .max
                }
                if turn(gil, until: me.givesBackAt).gaveAway {
                    // Who has got its response may be about to wait for the next one.
                    lock.withLock { c in
                        leavePlace(&c)
                        hand = ensureStandby(&c)
                    }
                    follow(hand)
                    me.hasPlace = false
                    me.isFresh = false
                }
            case .sleep:
                crewWord.wait(while: me.crewSeen)
                lock.withLock { $0.asleep -= 1 }
            case .standBy(let isParked):
                standbyWord.wait(while: me.standbySeen, nanoseconds: isParked ? nil : PacketLink.tick)
            case .leave: break working
            }
            // Who reads leaves that to those who have the GIL anyhow, for a while.
            if !me.hasPlace, !garbage.isEmpty { thread.withGIL { garbage.giveBack() } }
        }
        let isLast = lock.withLock { c in
            c.leaving += 1
            c.isOver = c.leaving == c.crew.count && c.starting == 0
            return c.isOver
        }
        if isLast {
            letGoOfStreams()
            thread.withGIL { dropReferences() }
        }
        thread.end()
        // Not before: who waits for that may end the interpreter next.
        let wakers = lock.withLock { c in
            c.leaving -= 1
            c.crew.remove(thread.identifier)
            return takeWatchers(&c)
        }
        for wake in wakers { wake() }
    }

    /// What a thread is to do. With the lock.
    private func decide(_ c: inout Contents, _ me: inout Member, _ hand: inout Hand) -> Job {
        let isTick = me.isStandby && me.hasLooked
        let isStalled = isTick && c.completed == me.seenCompleted
        let isAbandoned = isTick && c.placeChanges == me.seenChanges
        let mayRun =
            !c.work.isEmpty && c.running < options.workers && output.size < options.sendWindow
            && (c.running == 0 || isStalled)
        if c.isClosed {
            endStandby(&c, &me)
            if me.hasPlace { leavePlace(&c) }
            me.hasPlace = false
            // What was to be told is told.
            if c.hooks.isEmpty { return .leave }
        }
        if !c.hooks.isEmpty || mayRun {
            endStandby(&c, &me)
            if me.hasPlace { leavePlace(&c) }
            me.hasPlace = false
            me.isFresh = true
            if !c.isPlaceTaken || c.work.count > 1 { hand = ensureStandby(&c) }
            if !c.hooks.isEmpty {
                defer { c.hooks = [] }
                return .hooks(c.hooks)
            }
            c.running += 1
            return .work
        }
        if me.hasPlace { return .read }
        if !c.isPlaceTaken, me.isFresh || isAbandoned, takePlace(&c) {
            endStandby(&c, &me)
            me.hasPlace = true
            return .read
        }
        me.isFresh = false
        return sleep(&c, &me)
    }

    private func sleep(_ c: inout Contents, _ me: inout Member) -> Job {
        if !me.isStandby {
            if c.standby != .none {
                c.asleep += 1
                return .sleep
            }
            me.isStandby = true
            me.hasLooked = false
            me.quiet = 0
        }
        let isQuiet = c.isPlaceTaken && (c.work.isEmpty || c.running == 0 || c.running >= options.workers)
        let hasChanged = c.placeChanges != me.seenChanges || !me.hasLooked
        me.quiet = isQuiet && !hasChanged ? me.quiet + 1 : 0
        let isParked = me.quiet >= PacketLink.quietTicks
        c.standby = isParked ? .parked : .looking
        // What was seen before it slept for long says nothing.
        me.hasLooked = !isParked
        me.seenChanges = c.placeChanges
        me.seenCompleted = c.completed
        return .standBy(isParked: isParked)
    }

    private func endStandby(_ c: inout Contents, _ me: inout Member) {
        if !me.isStandby { return }
        me.isStandby = false
        me.hasLooked = false
        c.standby = .none
    }

    // MARK: With the GIL

    /// Tells Python's code what has happened.
    private func run(_ hooks: [Hook]) {
        for hook in hooks {
            do throws(PythonError) {
                switch hook {
                case .ended:
                    let end = lock.withLock { $0.end } ?? .closed("")
                    try call("ended", try newString(end.text))
                case .report(let text): try call("report", try newString(text))
                case .call(let callable):
                    let callable = Object(owning: callable)
                    _ = try Object(PyObject_CallNoArgs(callable.pointer))
                case .ticks:
                    let (sent, received) = lock.withLock { c in
                        defer { (c.ticksSent, c.ticksReceived) = (0, 0) }
                        return (c.ticksSent, c.ticksReceived)
                    }
                    let text = String(repeating: "<", count: received) + String(repeating: ">", count: sent)
                    try call("tick", try newString(text))
                }
            } catch { PyErr_WriteUnraisable(self.hook) }
        }
    }

    private func call(_ kind: StaticString, _ value: consuming Object) throws(PythonError) {
        _ = try hookResult(kind, value)
    }

    /// `hook(kind, value)`.
    private func hookResult(_ kind: StaticString, _ value: consuming Object) throws(PythonError) -> Object {
        guard let hook else { throw runtimeError("the connection is over") }
        let kind = try newString("\(kind)")
        return try withUnsafeTemporaryAllocation(of: PyPointer?.self, capacity: 3) {
            arguments throws(PythonError) in
            arguments[0] = nil
            arguments[1] = kind.pointer
            arguments[2] = value.pointer
            return try Object(cpython_call(hook, arguments.baseAddress?.advanced(by: 1), 2))
        }
    }

    /// Runs handlers until no request waits. Without the GIL.
    private func work(_ thread: ThreadState) {
        thread.enter()
        garbage.giveBack()
        var count = 0
        while let request = lock.withLock({ c in next(&c) }) {
            if request.handler.takesLists { runAll(request) } else { run(request) }
            count += 1
            // Those who wait for the first answers need not wait for the last.
            if count % 64 == 0 || lock.withLock({ _ in output.size >= 65536 }) {
                thread.leave()
                flush(isDue: false)
                thread.enter()
            }
        }
        thread.leave()
        // This one is not the stand-by, and need not be found stalled.
        let (wakers, mustRing) = lock.withLock { c in
            c.running -= 1
            c.completed &+= 1
            return (takeWatchers(&c), c.isPaused && c.isPolling)
        }
        for wake in wakers { wake() }
        if mustRing { ring() }
        flush(isDue: false)
    }

    private func next(_ c: inout Contents) -> InboundRequest? {
        if output.size >= options.sendWindow { return nil }
        return c.work.popFirst()
    }

    private func run(_ request: InboundRequest) {
        do throws(PythonError) {
            let payload = try request.payload.object()
            let result = try withUnsafeTemporaryAllocation(of: PyPointer?.self, capacity: 4) {
                arguments throws(PythonError) in
                let type = try Object(PyLong_FromUnsignedLong(UInt(truncatingIfNeeded: request.type)))
                let flags = try Object(PyLong_FromUnsignedLong(UInt(truncatingIfNeeded: request.flags)))
                arguments[0] = nil
                arguments[1] = type.pointer
                arguments[2] = flags.pointer
                arguments[3] = payload.pointer
                return try Object(
                    cpython_call(request.handler.callable, arguments.baseAddress?.advanced(by: 1), 3))
            }
            answer(request.key, size: request.payload.count, with: result.pointer)
        } catch { fail(request.key, size: request.payload.count) }
    }

    /// Gives a handler all requests that wait for it.
    private func runAll(_ first: InboundRequest) {
        var requests = [first]
        lock.withLock { c in
            while requests.count < 1024, let next = c.work.next, next.handler === first.handler,
                let request = c.work.popFirst()
            { requests.append(request) }
        }
        let tokens = lock.withLock { c in
            requests.map { request in
                let token = c.nextToken
                c.nextToken &+= 1
                c.deferred[token] = request.key
                c.deferredSizes[token] = request.payload.count
                return token
            }
        }
        do throws(PythonError) {
            let list = try Object(PyList_New(requests.count))
            for (index, request) in requests.enumerated() {
                let tuple = try Object(PyTuple_New(4))
                PyTuple_SetItem(tuple.pointer, 0, try Object(PyLong_FromLong(tokens[index])).take())
                PyTuple_SetItem(
                    tuple.pointer, 1,
                    try Object(PyLong_FromUnsignedLong(UInt(truncatingIfNeeded: request.type))).take())
                PyTuple_SetItem(
                    tuple.pointer, 2,
                    try Object(PyLong_FromUnsignedLong(UInt(truncatingIfNeeded: request.flags))).take())
                PyTuple_SetItem(tuple.pointer, 3, try request.payload.object().take())
                PyList_SetItem(list.pointer, index, tuple.take())
            }
            _ = try Object(cpython_call1(first.handler.callable, list.pointer))
        } catch {
            reportFailure()
            for token in tokens { answerDeferred(token, with: nil) }
        }
    }

    /// Answers a request with what a handler has returned. With the GIL.
    func answer(_ key: InboundKey, size: Int, with result: PyPointer) {
        switch PacketAnswer(result) {
        case .ok(let flags, let payload): send(key, size: size, flags: flags, payload: payload)
        case .other:
            do throws(PythonError) {
                // `erlang.packetstream` knows the other forms; what it does not know raises there.
                let encoded = try hookResult("encode", Object(retaining: result))
                guard case .ok(let flags, let payload) = PacketAnswer(encoded.pointer) else {
                    throw typeError("no answer of a handler: \(describe(result))")
                }
                send(key, size: size, flags: flags, payload: payload)
            } catch { fail(key, size: size) }
        }
    }

    private func send(_ key: InboundKey, size: Int, flags: UInt64, payload: PyPointer?) {
        lock.withLock { c in
            c.completed &+= 1
            forget(&c, key, size)
            append(&c, answer(to: key, flags: flags, isOk: true), payload)
        }
    }

    /// The handler has raised.
    private func fail(_ key: InboundKey, size: Int) {
        reportFailure()
        refuse(key, size: size)
    }

    private func refuse(_ key: InboundKey, size: Int) {
        lock.withLock { c in
            c.completed &+= 1
            forget(&c, key, size)
            append(&c, answer(to: key, flags: 0, isOk: false), text: "exception during handler")
        }
    }

    private func reportFailure() {
        guard let exception = Exception.take() else { return }
        do throws(PythonError) {
            try call("failed", Object(retaining: exception.value.pointer))
        } catch { PyErr_WriteUnraisable(hook) }
    }

    /// Answers a request that was handed out in a list; nil is a failure. With the GIL.
    func answerDeferred(_ token: Int, with result: PyPointer?) {
        guard
            let (key, size) = lock.withLock({ c -> (InboundKey, Int)? in
                guard let key = c.deferred.removeValue(forKey: token) else { return nil }
                return (key, c.deferredSizes.removeValue(forKey: token) ?? 0)
            })
        else { return }
        if let result { answer(key, size: size, with: result) } else { refuse(key, size: size) }
        let (ringing, hand, wakers) = lock.withLock { c in
            let (rings, hand) = willFlush(&c)
            return (rings || (c.isPaused && c.isPolling), hand, c.refusal != nil ? takeWatchers(&c) : [])
        }
        for wake in wakers { wake() }
        if ringing { ring() }
        follow(hand)
    }
}
