import Beam
import CPython
import Python
import Streams
import Synchronization

/// What Python does with one half of a streaming call. With the GIL, which it releases while it waits.
struct RpcOperation {
    let half: StreamHalf
    /// Where the other half is at the other end of a packet connection.
    let flow: RpcFlow?
    let state: ModuleState

    /// What a wait is for.
    enum Goal: Int { case receive, send, reply }

    // MARK: Sending

    /// Sends a chunk, and waits for room. False where nothing is sent any more, nil where there is no other
    /// half.
    func send(_ data: PyPointer, within milliseconds: Int) throws(PythonError) -> Bool? {
        let chunk = try Payload.chunk(data, state)
        switch half.send(chunk) {
        case .sent:
            passOn()
            return true
        case .closed: return false
        case .noPeer: return nil
        case .busy: break
        }
        guard milliseconds != 0 else {
            throw raised(cpython_TimeoutError(), "there is no room for another chunk now")
        }
        let alarm = RpcAlarm(flow?.link)
        let waiter = Waiter(for: .send, message: chunk) { _ in alarm.ring() }
        guard let (queue, isSettled) = half.waitToSend(waiter) else { return false }
        if !isSettled { try wait(alarm, waiter, milliseconds) { queue.cancel(waiter) } }
        switch queue.finish(waiter) {
        case .sent:
            half.countSent()
            passOn()
            return true
        case nil: throw raised(cpython_TimeoutError(), "no room for a chunk within \(milliseconds) ms")
        default: return false
        }
    }

    /// Has what was sent, or an end, go over the connection.
    func passOn() {
        guard let flow, flow.passOn() else { return }
        write(flow.link)
    }

    /// A chunk was taken, or the end has come.
    func took(_ weight: Int) {
        guard let flow, flow.took(weight) else { return }
        write(flow.link)
    }

    /// What takes longer lets others have the GIL.
    private func write(_ link: PacketLink) {
        let thread = PyEval_SaveThread()
        link.flush(isDue: false)
        PyEval_RestoreThread(thread)
        link.garbage.giveBack()
    }

    // MARK: Receiving

    /// The next chunk; nil where none is there in time.
    func receive(within milliseconds: Int) throws(PythonError) -> StreamHalf.Receipt {
        let receipt = half.receive()
        guard case .empty = receipt, milliseconds != 0 else { return receipt }
        let alarm = RpcAlarm(flow?.link)
        let waiter = Waiter(for: .receive) { _ in alarm.ring() }
        let queue = half.inbox
        if !queue.wait(waiter) { try wait(alarm, waiter, milliseconds) { queue.cancel(waiter) } }
        return received(queue.finish(waiter))
    }

    /// What a wait for a chunk has come to.
    func received(_ outcome: Waiter.Outcome?) -> StreamHalf.Receipt {
        switch outcome {
        case nil: .empty
        case .message(let chunk): half.taken(.message(chunk))
        default: half.taken(.closed)
        }
    }

    /// A chunk that was taken, as Python has it. Where memory is short it is the next again.
    func object(_ chunk: Payload) throws(PythonError) -> Object {
        do throws(PythonError) { return try chunk.chunk(state) } catch {
            // What has no form in Python would be the next for ever.
            if chunk.owner is AbortReason || chunk.owner is CborChunk { throw error }
            half.inbox.putBack(chunk)
            throw error
        }
    }

    /// The same, and the other side is given room again.
    func taken(_ chunk: Payload) throws(PythonError) -> Object {
        let object = try object(chunk)
        took(chunk.chunkWeight)
        return object
    }

    /// Waits for the next chunk, and takes with it what is there. Empty at the end.
    func receiveMany(bytes: Int, within milliseconds: Int) throws(PythonError) -> [Payload] {
        var chunks: [Payload] = []
        func take(_ room: Int) -> StreamHalf.Receipt {
            half.receive(bytes: room, count: 4096, copies: .max) { chunks.append($0) }
        }
        var receipt = take(bytes)
        if case .empty = receipt {
            receipt = try receive(within: milliseconds)
            if case .chunk(let chunk) = receipt {
                chunks.append(chunk)
                if bytes > chunk.count, half.inbox.info.messages > 0 { _ = take(bytes - chunk.count) }
            }
        }
        switch receipt {
        case .failed(let failure): throw try raise(failure)
        case .empty where chunks.isEmpty: throw noChunk(milliseconds)
        default: return chunks
        }
    }

    func noChunk(_ milliseconds: Int) -> PythonError {
        raised(
            cpython_TimeoutError(),
            milliseconds == 0 ? "no chunk is there now" : "no chunk has come within \(milliseconds) ms")
    }

    // MARK: The reply

    /// What is known of the reply; nil where nothing is in time.
    func reply(within milliseconds: Int) throws(PythonError) -> Object? {
        if half.reply == nil, milliseconds != 0 {
            let alarm = RpcAlarm(flow?.link)
            let waiter = Waiter(for: .readable) { _ in alarm.ring() }
            if !half.waitForReply(waiter) {
                try wait(alarm, waiter, milliseconds) { half.endWaitForReply(waiter) }
            }
            half.endWaitForReply(waiter)
        }
        return try knownReply()
    }

    func knownReply() throws(PythonError) -> Object? {
        switch half.reply {
        case nil: return nil
        case .known(let value): return try object(value)
        case .closed: return try newString("closed")
        case .peerClosed: return try newString("peer_closed")
        }
    }

    // MARK: Values

    /// A reply or a failure, as the tuple that it is.
    private func object(_ value: any StreamHalf.Value) throws(PythonError) -> Object {
        switch value {
        case let value as AbortReason: return try value.object(state)
        case let value as WireReply: return try value.object.object(state)
        case let value as WireFailure: return try value.object()
        case let value as WireAnswer:
            let body = try newBytes(value.body.bytes)
            return try Object(cpython_call1(try state.rpcFunctions().makeReply, body.pointer))
        default: return Object(owning: newNone())
        }
    }

    /// Raises what `erlang.rpc` makes of a failure.
    func raise(_ failure: any StreamHalf.Value) throws(PythonError) -> PythonError {
        let reason = try object(failure)
        let error = try Object(cpython_call1(try state.rpcFunctions().makeError, reason.pointer))
        PyErr_SetObject(cpython_type(error.pointer).map { asObject($0) }, error.pointer)
        return PythonError()
    }

    // MARK: Waiting

    private func wait(_ alarm: RpcAlarm, _ waiter: Waiter, _ milliseconds: Int, cancel: () -> Void)
        throws(PythonError)
    {
        let now = monotonicNanoseconds()
        let end = milliseconds < 0 ? Int64.max : now &+ Int64(milliseconds) &* 1_000_000
        do throws(PythonError) {
            if let flow {
                try letOthersServe { () throws(PythonError) in
                    _ = try flow.link.wait(
                        for: waiter, until: end, state, isOver: { waiter.isSettled },
                        wakingBy: { wake in alarm.set(wake, unless: { waiter.isSettled }) })
                }
            } else {
                let sleep = Sleep(state)
                guard alarm.set(sleep.wake, unless: { waiter.isSettled }) else { return }
                let soon = min(end, now &+ RpcOperation.shortWait)
                if try sleep.wait(until: soon, isOver: { waiter.isSettled }) || soon == end { return }
                try letOthersServe { () throws(PythonError) in
                    _ = try sleep.wait(until: end) { waiter.isSettled }
                }
            }
        } catch {
            cancel()
            throw error
        }
    }

    /// For so many nanoseconds nobody else needs to be served meanwhile: to say so takes as long as many waits.
    private static let shortWait: Int64 = 100_000

    private func letOthersServe(_ body: () throws(PythonError) -> Void) throws(PythonError) {
        let functions = try state.rpcFunctions()
        let serves = try Object(PyObject_CallNoArgs(functions.beginWait)).pointer == cpython_true()
        defer { if serves { endWait(functions) } }
        try body()
    }

    /// Whatever it was that has ended the wait.
    private func endWait(_ functions: RpcFunctions) {
        let exception = Exception.take()
        do throws(PythonError) { _ = try Object(PyObject_CallNoArgs(functions.endWait)) } catch {
            PyErr_Clear()
        }
        exception?.restore()
    }

    /// Begins to wait on behalf of an event loop.
    func wait(_ goal: Goal, bell: PyPointer, key: PyPointer, _ data: PyPointer?) throws(PythonError)
        -> Object?
    {
        guard cpython_type(bell) == state.loopBellType, let number = try integer(key) else {
            throw typeError("a bell and a key are needed")
        }
        let loopBell = LoopBellObject.bell(bell)
        let ring: @Sendable (Origin) -> Void = { _ in loopBell?.ring(number) }
        switch goal {
        case .receive:
            let waiter = Waiter(for: .receive, wakeUp: ring)
            let object = try RpcWaiterObject.make(state.rpcWaiterType, half, goal, waiter, half.inbox)
            _ = half.inbox.wait(waiter)
            return object
        case .send:
            guard let data else { throw typeError("nothing to send") }
            let waiter = Waiter(for: .offer, message: try Payload.chunk(data, state), wakeUp: ring)
            let object = try RpcWaiterObject.make(state.rpcWaiterType, half, goal, waiter, nil)
            guard let (queue, _) = half.waitToSend(waiter) else { return nil }
            RpcWaiterObject.set(queue, of: object.pointer)
            return object
        case .reply:
            let waiter = Waiter(for: .readable, wakeUp: ring)
            let object = try RpcWaiterObject.make(state.rpcWaiterType, half, goal, waiter, nil)
            _ = half.waitForReply(waiter)
            return object
        }
    }
}

/// Wakes a thread of Python that waits for something of a half, asleep or while it reads packets.
final class RpcAlarm: Sendable {
    private struct Contents {
        var wake: (@Sendable () -> Void)?
    }

    private let link: PacketLink?
    private let contents = Mutex(Contents())

    init(_ link: PacketLink?) { self.link = link }

    /// How the thread is woken, which is about to sleep. False where it need not.
    func set(_ wake: @escaping @Sendable () -> Void, unless isOver: () -> Bool) -> Bool {
        contents.withLock { contents in
            if isOver() { return false }
            contents.wake = wake
            return true
        }
    }

    /// It is over. From any thread.
    func ring() {
        if let wake = contents.withLock({ $0.wake }) {
            link?.hasWokenReader.store(true, ordering: .relaxed)
            wake()
        }
        // It may read, and another thread has ended it.
        link?.lookAgain()
    }
}

/// The functions of `erlang.rpc` that make what the core needs. They live as long as their interpreter.
struct RpcFunctions {
    /// An exception of a failure.
    let makeError: PyPointer
    /// A reply of its CBOR.
    let makeReply: PyPointer
    /// What a thread that waits says before and, where that returns true, afterwards.
    let beginWait, endWait: PyPointer
}
