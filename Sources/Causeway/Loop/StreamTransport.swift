import CPython
import Glibc
import Python
import Streams

/// The native half of a transport of a stream: a socket, or one end of a pipe.
final class StreamTransport: LoopTransport {
    /// Which ways its data goes.
    enum Direction { case both, read, write }

    let direction: Direction
    let isSocket: Bool
    var isBuffered = false
    private(set) var hasEnded = false
    private var isReadOver = false
    /// Data that was read before reading was paused.
    private var held: [PyPointer] = []
    private var chunks: [Chunk] = []
    /// What is being written.
    private var flight = Flight()
    /// The poller was asked to tell of room.
    private var isRoomAwaited = false
    /// What `sendfile` waits for.
    var isWriteAwaited = false

    init(
        _ core: LoopCore, _ fd: Int32, _ object: PyPointer, _ direction: Direction, isSocket: Bool,
        context: consuming Object
    ) {
        self.direction = direction
        self.isSocket = isSocket
        super.init(core, fd, object, context: context)
    }

    // What was read already comes before what comes next, the end included.
    override var wantsToRead: Bool { isReading && !isPaused && !isClosing && !isReadOver && held.isEmpty }
    override var isWriting: Bool { !chunks.isEmpty || isInFlight }
    /// Whether nobody will get what is written.
    var isInVain: Bool { lost != 0 || direction == .write && isClosing }

    // MARK: Reading

    override func read() {
        // Nothing comes from there: the peer has closed its end.
        if direction == .write { return core.deliveries.append(.endOfStream(self)) }
        if isBuffered { return core.deliveries.append(.readable(self)) }
        // Without room the event comes again with the next poll: it is level-triggered.
        guard let (memory, offset, size) = core.arena.next() else { return }
        switch readAvailable(fd, memory, size, isSocket: isSocket) {
        case .bytes(0): core.deliveries.append(.endOfStream(self))
        case .bytes(let count):
            core.arena.take(count)
            core.deliveries.append(.data(self, offset, count))
        case .wouldBlock, .noMemory: break
        case .failed(let error): core.deliveries.append(.failed(self, error))
        }
    }

    override func resumeReading() throws(PythonError) {
        guard !isClosing, isPaused else { return }
        if !held.isEmpty {
            // Not at once: who resumes may not expect data before that returns.
            let method = try Object(PyObject_GetAttr(object, core.state.loopNames.deliverHeld))
            _ = try core.callSoon(method.pointer, nil, 0, nil)
        }
        try super.resumeReading()
    }

    /// Delivers what came while reading was paused.
    func deliverHeld() throws(PythonError) {
        while !held.isEmpty, !isPaused, lost == 0 {
            let data = Object(owning: held.removeFirst())
            try deliver(data)
        }
        if held.isEmpty { try updateWatchIfAny() }
    }

    /// Keeps data that somebody else has read before reading begins.
    func hold(_ data: consuming Object) throws(PythonError) {
        held.append(data.take())
        let method = try Object(PyObject_GetAttr(object, core.state.loopNames.deliverHeld))
        _ = try core.callSoon(method.pointer, nil, 0, nil)
    }

    func received(_ bytes: UnsafeRawBufferPointer) throws(PythonError) {
        guard lost == 0, !isClosing else { return }
        let data = try newBytes(bytes)
        guard !isPaused, held.isEmpty, !isBuffered else {
            held.append(data.take())
            // It has become a BufferedProtocol's since it was read.
            if !isPaused { try deliverHeld() }
            return
        }
        try deliver(data)
    }

    private func deliver(_ data: consuming Object) throws(PythonError) {
        guard let receiver = protocolObject else { return }
        let held = Object(retaining: receiver)
        if isBuffered { return try deliver(data, toBufferOf: held.pointer) }
        let names = core.state.names
        try calling("Fatal error: protocol.data_received() call failed.") {
            cpython_call_method1(held.pointer, names.dataReceived, data.pointer)
        }
    }

    /// Data that was read already, for a protocol with buffers of its own.
    private func deliver(_ data: borrowing Object, toBufferOf receiver: PyPointer) throws(PythonError) {
        var offset = 0
        let all = PyBytes_Size(data.pointer)
        while offset < all, lost == 0 {
            guard let buffer = try self.buffer(of: receiver) else { return }
            var view = Py_buffer()
            guard PyObject_GetBuffer(buffer.pointer, &view, PyBUF_WRITABLE) == 0 else {
                return try fatal("Fatal error: protocol.get_buffer() call failed.")
            }
            let count = min(view.len, all - offset)
            if let target = view.buf, let source = PyBytes_AsString(data.pointer) {
                target.copyMemory(from: source + offset, byteCount: count)
            }
            PyBuffer_Release(&view)
            offset += count
            try updated(receiver, count)
        }
    }

    /// A buffer of a BufferedProtocol; nil where it has none, which is fatal.
    private func buffer(of receiver: PyPointer) throws(PythonError) -> Object? {
        let names = core.state.loopNames
        let hint = try Object(PyLong_FromLong(-1))
        let message: StaticString = "Fatal error: protocol.get_buffer() call failed."
        guard let buffer = inContext({ cpython_call_method1(receiver, names.getBuffer, hint.pointer) }) else {
            try fatal(message)
            return nil
        }
        let held = Object(owning: buffer)
        let count = PyObject_Size(held.pointer)
        if count > 0 { return held }
        if count == 0 { _ = runtimeError("get_buffer() returned an empty buffer") }
        try fatal(message)
        return nil
    }

    private func updated(_ receiver: PyPointer, _ count: Int) throws(PythonError) {
        let names = core.state.loopNames
        let number = try Object(PyLong_FromLong(count))
        try calling("Fatal error: protocol.buffer_updated() call failed.") {
            cpython_call_method1(receiver, names.bufferUpdated, number.pointer)
        }
    }

    /// There is something to read for a BufferedProtocol, into its own memory.
    func readIntoItsBuffer() throws(PythonError) {
        guard lost == 0, wantsToRead, isBuffered, let receiver = protocolObject else { return }
        let held = Object(retaining: receiver)
        guard let buffer = try self.buffer(of: held.pointer), wantsToRead else { return }
        var view = Py_buffer()
        guard PyObject_GetBuffer(buffer.pointer, &view, PyBUF_WRITABLE) == 0 else {
            return try fatal("Fatal error: protocol.get_buffer() call failed.")
        }
        let transfer = view.buf.map { readAvailable(fd, $0, view.len, isSocket: isSocket) } ?? .wouldBlock
        PyBuffer_Release(&view)
        switch transfer {
        case .bytes(0): try endOfStream()
        case .bytes(let count): try updated(held.pointer, count)
        case .wouldBlock, .noMemory: break
        case .failed(let error): try readFailed(error)
        }
    }

    func endOfStream() throws(PythonError) {
        // While reading is paused it is not told: it is found again.
        guard lost == 0, wantsToRead, let receiver = protocolObject else { return }
        if direction == .write { return try peerHasGone() }
        let held = Object(retaining: receiver)
        let names = core.state.names
        guard let answer = inContext({ cpython_call_method0(held.pointer, names.eofReceived) }) else {
            return try fatal("Fatal error: protocol.eof_received() call failed.")
        }
        let keeps = PyObject_IsTrue(answer)
        Py_DecRef(answer)
        if keeps < 0 { return try fatal("Fatal error: protocol.eof_received() call failed.") }
        // The end of a pipe is all that can come.
        if keeps == 0 || direction == .read { return try close() }
        isReadOver = true
        try updateWatchIfAny()
    }

    func readFailed(_ error: Errno) throws(PythonError) {
        guard lost == 0 else { return }
        _ = osError(error.code)
        try fatal(
            direction == .both ? "Fatal read error on socket transport" : "Fatal read error on pipe transport"
        )
    }

    /// Nobody reads from the pipe any more.
    private func peerHasGone() throws(PythonError) {
        guard isWriting else { return try forceClose(nil) }
        _ = osError(EPIPE)
        guard let exception = Exception.take() else { return }
        try forceClose(exception.value.pointer)
    }

    // MARK: Writing

    /// Takes a `bytes` to be written, of which it is given the reference.
    func write(_ data: consuming Object) throws(PythonError) {
        let count = PyBytes_Size(data.pointer)
        guard count > 0, let start = PyBytes_AsString(data.pointer) else { return }
        chunks.append(Chunk(object: data.take(), start: UnsafeRawPointer(start), count: count))
        size += count
        try writeSoon()
    }

    override func writeNow() throws(PythonError) {
        guard beginFlight() else { return }
        fly()
        try land()
    }

    override func takeOff() { if beginFlight() { core.flights.append(self) } }

    /// Whether there is something to be written, which is on its way then.
    private func beginFlight() -> Bool {
        isDirty = false
        guard !isInFlight, lost == 0, !chunks.isEmpty else { return false }
        isInFlight = true
        flight.takeOff(
            &chunks,
            isAwaited: isClosing || hasEnded || isProtocolPaused || isWriteAwaited
                || size > LoopTransport.high)
        return true
    }

    /// Writes. Needs no GIL.
    func fly() { flight.fly(fd, isSocket: isSocket) }

    /// Whether nothing is to be done at once after that.
    var hasFlown: Bool { flight.isDone }

    /// Takes back what was not written.
    func land() throws(PythonError) {
        isInFlight = false
        let error = flight.error
        if lost == 0 {
            let left = flight.chunks.count - flight.written
            size -= flight.bytes
            needsRoom = left > 0 && error == nil
            if left > 0 {
                chunks.insert(contentsOf: flight.chunks[flight.written...], at: 0)
                flight.chunks.removeLast(left)
            }
        }
        // Only now: a class that extends `bytes` may write where its objects end.
        while let chunk = flight.chunks.popLast() { Py_DecRef(chunk.object) }
        guard lost == 0 else { return }
        if let error {
            _ = osError(error.code)
            return try fatal(
                direction == .both
                    ? "Fatal write error on socket transport" : "Fatal write error on pipe transport")
        }
        if needsRoom || isRoomAwaited {
            isRoomAwaited = needsRoom
            if needsRoom { try updateWatch() } else { try updateWatchIfAny() }
        }
        if !needsRoom, !chunks.isEmpty { markDirty() }
        try resumeProtocolIfEmpty()
        guard chunks.isEmpty, lost == 0 else { return }
        if isWriteAwaited {
            _ = try Object(cpython_call_method0(object, core.state.loopNames.writtenOut))
        }
        if isClosing {
            try scheduleLost(nil)
        } else if hasEnded {
            shutdown(fd, Int32(SHUT_WR))
        }
    }

    func writeEnd() throws(PythonError) {
        guard !isClosing, !hasEnded else { return }
        // Of a pipe that is all that there is.
        if direction == .write { return try close() }
        hasEnded = true
        if !isWriting { shutdown(fd, Int32(SHUT_WR)) }
    }

    // MARK: The end

    override func dropWritten() {
        let dropped = chunks
        chunks = []
        size = 0
        for chunk in dropped { Py_DecRef(chunk.object) }
    }

    override func dropRead() {
        let dropped = held
        held = []
        for data in dropped { Py_DecRef(data) }
    }

    override func traverseRead(_ visit: visitproc, _ argument: UnsafeMutableRawPointer?) -> Int32 {
        for data in held {
            let result = visit(data, argument)
            if result != 0 { return result }
        }
        return 0
    }
}
