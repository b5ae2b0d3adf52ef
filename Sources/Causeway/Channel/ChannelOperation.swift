import Beam
import CPython
import Python
import Streams

/// What Python does with a channel. With the GIL, which it releases while it waits.
struct ChannelOperation {
    let channel: ByteChannel
    let state: ModuleState

    init(_ channel: ByteChannel, _ state: ModuleState) {
        self.channel = channel
        self.state = state
    }

    // MARK: Receiving

    /// The next message; nil where there is none now.
    func tryReceive() throws(PythonError) -> Payload? {
        switch channel.queue.receive() {
        case .message(let message): return message
        case .empty: return nil
        case .closed: throw try closed()
        case .aborted: throw try aborted()
        }
    }

    /// Waits for the next message.
    func receive(timeout: PyPointer?) throws(PythonError) -> Payload {
        guard let message = try next(within: try milliseconds(timeout) ?? -1) else { throw try closed() }
        return message
    }

    /// The same; nil where it is closed and empty.
    func next(within milliseconds: Int) throws(PythonError) -> Payload? {
        switch channel.queue.receive() {
        case .message(let message): return message
        case .closed: return nil
        case .aborted: throw try aborted()
        case .empty: break
        }
        switch try outcome(within: milliseconds, for: .receive) {
        case .message(let message): return message
        case .aborted: throw try aborted()
        default: return nil
        }
    }

    /// Copies the next message into a buffer. Returns its size.
    func receive(into buffer: PyPointer, timeout: PyPointer?) throws(PythonError) -> Int {
        let milliseconds = try milliseconds(timeout) ?? -1
        var view = Py_buffer()
        guard PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) == 0 else {
            guard PyErr_ExceptionMatches(cpython_BufferError()) != 0 else { throw PythonError() }
            throw typeError(
                "receive_into() needs a buffer that can be written to, not \(typeName(of: buffer))")
        }
        defer { PyBuffer_Release(&view) }
        switch try outcome(within: milliseconds, for: .receive, room: view.len) {
        case .message(let message):
            if let source = message.bytes.baseAddress {
                view.buf?.copyMemory(from: source, byteCount: message.count)
            }
            return message.count
        case .tooLarge(let size):
            throw valueError("the next message has \(size) bytes, the buffer room for \(view.len)")
        case .aborted: throw try aborted()
        default: throw try closed()
        }
    }

    /// Waits for the next message, and takes with it what is there.
    func receiveMany(bytes limit: PyPointer?, timeout: PyPointer?) throws(PythonError) -> Object {
        let milliseconds = try milliseconds(timeout) ?? -1
        var bytes = 1 << 20
        if let limit {
            guard let number = try integer(limit), number > 0 else {
                throw valueError("max_bytes must be positive, not \(describe(limit))")
            }
            bytes = number
        }
        var messages: [Payload] = []
        func take(_ room: Int, atLeastOne: Bool) -> ByteQueue.Receipt {
            channel.queue.receive(bytes: room, count: 4096 - messages.count, atLeastOne: atLeastOne) {
                messages.append($0)
            }
        }
        switch take(bytes, atLeastOne: true) {
        case .message: break
        case .closed: throw try closed()
        case .aborted: throw try aborted()
        case .empty:
            guard let first = try next(within: milliseconds) else { throw try closed() }
            messages.append(first)
            _ = take(bytes - first.count, atLeastOne: false)
        }
        let list = try Object(PyList_New(messages.count))
        for (index, message) in messages.enumerated() {
            do throws(PythonError) {
                PyList_SetItem(list.pointer, index, try message.object(state).take())
            } catch {
                for message in messages { channel.queue.putBack(message) }
                throw error
            }
        }
        return list
    }

    /// A message that was taken as `bytes`. Where memory is short it is the next again.
    func object(_ message: Payload) throws(PythonError) -> Object {
        do throws(PythonError) { return try message.object(state) } catch {
            channel.queue.putBack(message)
            throw error
        }
    }

    /// The same as a ReactorBuffer.
    func buffer(_ message: Payload) throws(PythonError) -> Object {
        do throws(PythonError) { return try ReactorBuffer.make(state.bufferType, of: message) } catch {
            channel.queue.putBack(message)
            throw error
        }
    }

    // MARK: Sending

    /// Sends; where there is no room it waits if there is a time-out, and raises if not.
    func send(_ data: PyPointer, timeout: PyPointer?) throws(PythonError) {
        let milliseconds = try milliseconds(timeout)
        let message = try Payload.make(data, state)
        switch channel.queue.send(message) {
        case .sent: return
        case .closed: throw try closed()
        case .aborted: throw try aborted()
        case .busy: break
        }
        guard let milliseconds else {
            let queued = channel.queue.info.size
            throw try raise(
                \.busy,
                "the channel is busy: \(queued) of at most \(channel.queue.limit) bytes are queued. Send again later, "
                    + "or with timeout_ms to wait for room")
        }
        switch try outcome(within: milliseconds, for: .send, message) {
        case .aborted: throw try aborted()
        case .closed: throw try closed()
        default: return
        }
    }

    // MARK: Waiting

    /// Begins to wait on behalf of an event loop.
    func wait(bell: PyPointer?, key: PyPointer?, message: Payload?) throws(PythonError) -> Object {
        guard let bell, cpython_type(bell) == state.loopBellType, let key else {
            throw typeError("a bell and a key are needed")
        }
        guard let number = try integer(key) else { throw valueError("the key is too large") }
        let loopBell = LoopBellObject.bell(bell)
        let waiter = Waiter(for: message == nil ? .receive : .offer, message: message) { _ in
            loopBell?.ring(number)
        }
        let object = try ChannelWaiterObject.make(state.channelWaiterType, channel, waiter)
        _ = channel.queue.wait(waiter)
        return object
    }

    /// What becomes of a wait of this thread.
    private func outcome(
        within milliseconds: Int, for purpose: Waiter.Purpose, _ message: Payload? = nil, room: Int = .max
    ) throws(PythonError) -> Waiter.Outcome {
        let sleep = Sleep(state)
        let wake = sleep.wake
        let waiter = Waiter(for: purpose, message: message, room: room) { _ in wake() }
        if !channel.queue.wait(waiter) {
            let now = monotonicNanoseconds()
            let end = milliseconds < 0 ? Int64.max : now &+ Int64(milliseconds) * 1_000_000
            do throws(PythonError) {
                _ = try sleep.wait(until: end) { waiter.isSettled }
            } catch {
                channel.queue.cancel(waiter)
                throw error
            }
        }
        guard let outcome = channel.queue.finish(waiter) else {
            let what = purpose == .send ? "room" : "message"
            throw raised(cpython_TimeoutError(), "no \(what) within \(milliseconds) ms")
        }
        return outcome
    }

    // MARK: Arguments and errors

    /// A time-out: nil where none was given.
    private func milliseconds(_ object: PyPointer?) throws(PythonError) -> Int? {
        guard let object, object != cpython_none() else { return nil }
        guard let number = try integer(object), number >= -1, number < 1 << 40 else {
            throw valueError(
                "timeout_ms is a number of milliseconds, or -1 to wait without limit, not \(describe(object))"
            )
        }
        return number
    }

    func closed() throws(PythonError) -> PythonError {
        try raise(\.closed, "the channel is closed")
    }

    func aborted() throws(PythonError) -> PythonError {
        let type = try state.channelTypes().aborted
        let reason = try channel.abortReason?.object(state) ?? Object(owning: newNone())
        let error = try Object(cpython_call1(type, reason.pointer))
        PyErr_SetObject(type, error.pointer)
        return PythonError()
    }

    private func raise(_ type: KeyPath<ChannelTypes, PyPointer>, _ text: String)
        throws(PythonError) -> PythonError
    {
        raised(try state.channelTypes()[keyPath: type], text)
    }
}

/// The classes of `erlang._channel`. They live as long as their interpreter.
struct ChannelTypes {
    let channel: PyType
    let busy, closed, aborted: PyPointer
}
