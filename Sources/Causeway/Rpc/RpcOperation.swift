import Beam
import CPython
import Python
import Streams

/// What Python does with one half of a streaming call. With the GIL, which it releases while it waits.
struct RpcOperation {
    let half: StreamHalf
    let state: ModuleState

    /// What a wait is for.
    enum Goal: Int { case receive, send, reply }

    // MARK: Sending

    /// Sends a chunk, and waits for room. False where nothing is sent any more, nil where there is no other half.
    func send(_ data: PyPointer, within milliseconds: Int) throws(PythonError) -> Bool? {
        let chunk = try Payload.chunk(data, state)
        switch half.send(chunk) {
        case .sent: return true
        case .closed: return false
        case .noPeer: return nil
        case .busy: break
        }
        guard milliseconds != 0 else {
            throw raised(cpython_TimeoutError(), "there is no room for another chunk now")
        }
        let sleep = Sleep(state)
        let wake = sleep.wake
        let waiter = Waiter(for: .send, message: chunk) { _ in wake() }
        guard let (queue, isSettled) = half.waitToSend(waiter) else { return false }
        if !isSettled { try wait(sleep, waiter, milliseconds) { queue.cancel(waiter) } }
        switch queue.finish(waiter) {
        case .sent:
            half.countSent()
            return true
        case nil: throw raised(cpython_TimeoutError(), "no room for a chunk within \(milliseconds) ms")
        default: return false
        }
    }

    // MARK: Receiving

    /// The next chunk; nil where none is there in time.
    func receive(within milliseconds: Int) throws(PythonError) -> StreamHalf.Receipt {
        let receipt = half.receive()
        guard case .empty = receipt, milliseconds != 0 else { return receipt }
        let sleep = Sleep(state)
        let wake = sleep.wake
        let waiter = Waiter(for: .receive) { _ in wake() }
        let queue = half.inbox
        if !queue.wait(waiter) { try wait(sleep, waiter, milliseconds) { queue.cancel(waiter) } }
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
            let sleep = Sleep(state)
            let wake = sleep.wake
            let waiter = Waiter(for: .readable) { _ in wake() }
            if !half.waitForReply(waiter) {
                try wait(sleep, waiter, milliseconds) { half.endWaitForReply(waiter) }
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
        guard let value = value as? AbortReason else { return Object(owning: newNone()) }
        return try value.object(state)
    }

    /// Raises what `erlang.rpc` makes of a failure.
    func raise(_ failure: any StreamHalf.Value) throws(PythonError) -> PythonError {
        let reason = try object(failure)
        let error = try Object(cpython_call1(try state.rpcFunctions().makeError, reason.pointer))
        PyErr_SetObject(cpython_type(error.pointer).map { asObject($0) }, error.pointer)
        return PythonError()
    }

    // MARK: Waiting

    private func wait(_ sleep: Sleep, _ waiter: Waiter, _ milliseconds: Int, cancel: () -> Void)
        throws(PythonError)
    {
        let end =
            milliseconds < 0 ? Int64.max : monotonicNanoseconds() &+ Int64(milliseconds) &* 1_000_000
        do throws(PythonError) { _ = try sleep.wait(until: end) { waiter.isSettled } } catch {
            cancel()
            throw error
        }
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

/// The functions of `erlang.rpc` that make what the core needs. They live as long as their interpreter.
struct RpcFunctions {
    /// An exception of a failure.
    let makeError: PyPointer
    /// A reply of its CBOR.
    let makeReply: PyPointer
}
