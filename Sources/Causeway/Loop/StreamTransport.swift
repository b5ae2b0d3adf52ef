import CPython
import Glibc
import Python
import Streams

/// The native half of a transport of a stream socket: it reads and writes without the GIL, and calls the protocol.
///
/// What is written in a turn of the loop goes out at its end, together.
final class StreamTransport {
    /// Up to how much is sent at once what is written while the loop does not run.
    private static let high = 64 << 10

    let core: LoopCore
    let fd: Int32
    /// The Python object that owns this; borrowed. The loop has a reference until the transport is closed.
    let object: PyPointer
    var protocolObject: PyPointer?
    /// The context in which the protocol is called.
    var context: PyPointer?
    var watch: LoopWatch?

    var isBuffered = false
    private(set) var isReading = false
    private(set) var isPaused = false
    private(set) var isClosing = false
    private(set) var hasEnded = false
    private var isReadOver = false
    /// `connection_lost` was scheduled; counted up by what is written afterwards.
    private(set) var lost = 0
    /// Data that was read before reading was paused.
    private var held: [PyPointer] = []

    private var chunks: [Chunk] = []
    private(set) var size = 0
    private(set) var highWater = StreamTransport.high
    private(set) var lowWater = StreamTransport.high / 4
    private(set) var isProtocolPaused = false
    private var isDirty = false
    private var isInFlight = false
    private var needsRoom = false
    /// What `sendfile` waits for.
    var isWriteAwaited = false

    init(_ core: LoopCore, _ fd: Int32, _ object: PyPointer, context: consuming Object) {
        self.core = core
        self.fd = fd
        self.object = object
        self.context = context.take()
    }

    // What was read already comes before what comes next, the end included.
    var wantsToRead: Bool { isReading && !isPaused && !isClosing && !isReadOver && held.isEmpty }
    var wantsToWrite: Bool { needsRoom }

    // MARK: Reading

    func startReading() throws(PythonError) {
        guard !isReading, !isClosing else { return }
        try core.checkMayChange()
        isReading = true
        try updateWatch()
    }

    private func updateWatch() throws(PythonError) {
        if watch == nil {
            let watch = try core.watch(fd)
            watch.transport = self
            self.watch = watch
            // Handles of somebody who has closed the descriptor without a word.
            _ = try core.remove(.read, fd)
            _ = try core.remove(.write, fd)
        }
        if let watch { try core.update(watch) }
    }

    func pauseReading() throws(PythonError) {
        guard !isClosing, !isPaused else { return }
        isPaused = true
        try updateWatchIfAny()
    }

    func resumeReading() throws(PythonError) {
        guard !isClosing, isPaused else { return }
        isPaused = false
        if !held.isEmpty {
            // Not at once: who resumes may not expect data before that returns.
            let method = try Object(PyObject_GetAttr(object, core.state.loopNames.deliverHeld))
            _ = try core.callSoon(method.pointer, nil, 0, nil)
        }
        try updateWatchIfAny()
    }

    private func updateWatchIfAny() throws(PythonError) { if let watch { try core.update(watch) } }

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
        let transfer = view.buf.map { readAvailable(fd, $0, view.len) } ?? .wouldBlock
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
        let held = Object(retaining: receiver)
        let names = core.state.names
        guard let answer = inContext({ cpython_call_method0(held.pointer, names.eofReceived) }) else {
            return try fatal("Fatal error: protocol.eof_received() call failed.")
        }
        let keeps = PyObject_IsTrue(answer)
        Py_DecRef(answer)
        if keeps < 0 { return try fatal("Fatal error: protocol.eof_received() call failed.") }
        if keeps == 0 { return try close() }
        isReadOver = true
        try updateWatchIfAny()
    }

    func readFailed(_ error: Errno) throws(PythonError) {
        guard lost == 0 else { return }
        _ = osError(error.code)
        try fatal("Fatal read error on socket transport")
    }

    // MARK: Writing

    /// Takes a `bytes` to be written, of which it is given the reference.
    func write(_ data: consuming Object) throws(PythonError) {
        let count = PyBytes_Size(data.pointer)
        guard count > 0, let start = PyBytes_AsString(data.pointer) else { return }
        chunks.append(Chunk(object: data.take(), start: UnsafeRawPointer(start), count: count))
        size += count
        // What is too much for the buffer, and what is written while nobody would write it later, goes out now.
        if (size > highWater || !core.isRunning && !core.isInTurn), !isInFlight, !needsRoom {
            return try writeNow()
        }
        markDirty()
        try pauseProtocolIfFull()
    }

    private func markDirty() {
        guard !isDirty, !isInFlight, !needsRoom else { return }
        isDirty = true
        core.dirty.append(self)
    }

    private func writeNow() throws(PythonError) {
        isDirty = false
        guard var flight = takeOff() else { return }
        flight.fly()
        try land(flight)
        try pauseProtocolIfFull()
    }

    /// Gives what is to be written to who writes it.
    func takeOff() -> Flight? {
        isDirty = false
        guard !isInFlight, lost == 0, !chunks.isEmpty else { return nil }
        isInFlight = true
        let isAwaited =
            isClosing || hasEnded || isProtocolPaused || isWriteAwaited || size > StreamTransport.high
        defer { chunks = [] }
        return Flight(transport: self, fd: fd, chunks: chunks, isAwaited: isAwaited)
    }

    /// Takes back what was not written.
    func land(_ flight: Flight) throws(PythonError) {
        isInFlight = false
        let done = flight.chunks[..<flight.written]
        defer { for chunk in done { Py_DecRef(chunk.object) } }
        let rest = flight.chunks[flight.written...]
        guard lost == 0 else {
            for chunk in rest { Py_DecRef(chunk.object) }
            return
        }
        size -= flight.bytes
        chunks.insert(contentsOf: rest, at: 0)
        if let error = flight.error {
            needsRoom = false
            _ = osError(error.code)
            return try fatal("Fatal write error on socket transport")
        }
        needsRoom = !rest.isEmpty
        if needsRoom { try updateWatch() } else { try updateWatchIfAny() }
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

    /// The poller says that there is room.
    func roomIsThere() {
        guard needsRoom else { return }
        needsRoom = false
        markDirty()
    }

    func writeEnd() {
        guard !isClosing, !hasEnded else { return }
        hasEnded = true
        if chunks.isEmpty, !isInFlight { shutdown(fd, Int32(SHUT_WR)) }
    }

    func setLimits(high: Int, low: Int) throws(PythonError) {
        highWater = high
        lowWater = low
        try pauseProtocolIfFull()
    }

    private func pauseProtocolIfFull() throws(PythonError) {
        guard size > highWater, !isProtocolPaused, lost == 0 else { return }
        isProtocolPaused = true
        try tell(core.state.loopNames.pauseWriting)
    }

    private func resumeProtocolIfEmpty() throws(PythonError) {
        guard isProtocolPaused, size <= lowWater else { return }
        isProtocolPaused = false
        try tell(core.state.loopNames.resumeWriting)
    }

    /// Calls a method of flow control. What it raises is reported, and no more.
    private func tell(_ name: PyPointer) throws(PythonError) {
        guard let receiver = protocolObject else { return }
        let held = Object(retaining: receiver)
        if let answer = inContext({ cpython_call_method0(held.pointer, name) }) { return Py_DecRef(answer) }
        if core.isEnd { throw PythonError() }
        guard let exception = Exception.take() else { return }
        _ = try Object(
            cpython_call_method2(object, core.state.loopNames.flowError, exception.value.pointer, name))
    }

    // MARK: The end

    func close() throws(PythonError) {
        guard !isClosing else { return }
        try core.checkMayChange()
        isClosing = true
        try updateWatchIfAny()
        if chunks.isEmpty, !isInFlight { try scheduleLost(nil) }
    }

    /// Ends it without what is left to be written.
    func forceClose(_ exception: PyPointer?) throws(PythonError) {
        guard lost == 0 else { return }
        try core.checkMayChange()
        isClosing = true
        dropChunks()
        try scheduleLost(exception)
    }

    private func dropChunks() {
        let dropped = chunks
        chunks = []
        size = 0
        needsRoom = false
        for chunk in dropped { Py_DecRef(chunk.object) }
    }

    private func scheduleLost(_ exception: PyPointer?) throws(PythonError) {
        lost += 1
        forgetWatch()
        let method = try Object(PyObject_GetAttr(object, core.state.loopNames.connectionIsLost))
        try core.callSoon(method.pointer, exception ?? cpython_none())
    }

    private func forgetWatch() {
        guard let watch else { return }
        self.watch = nil
        watch.transport = nil
        core.forget(watch)
    }

    /// Written to after the end.
    func writtenInVain() { lost += 1 }

    /// It is over: `connection_lost` was called.
    func finish() {
        lost += 1
        isClosing = true
        forgetWatch()
        clear()
        if core.transports.removeValue(forKey: ObjectIdentifier(self)) != nil { Py_DecRef(object) }
    }

    /// Lets go of all objects.
    func clear() {
        if !isInFlight { dropChunks() }
        let parts = held + [protocolObject, context].compactMap { $0 }
        held = []
        protocolObject = nil
        context = nil
        for part in parts { Py_DecRef(part) }
    }

    /// The object is gone.
    func abandon() {
        forgetWatch()
        clear()
    }

    func traverse(_ visit: visitproc, _ argument: UnsafeMutableRawPointer?) -> Int32 {
        for part in held + [protocolObject, context, core.object].compactMap({ $0 }) {
            let result = visit(part, argument)
            if result != 0 { return result }
        }
        return 0
    }

    // MARK: Calls

    /// Runs a method of the protocol; what it raises ends the transport.
    @inline(__always)
    private func calling(_ message: StaticString, _ body: () -> PyPointer?) throws(PythonError) {
        guard let answer = inContext(body) else { return try fatal(message) }
        Py_DecRef(answer)
    }

    @inline(__always)
    private func inContext(_ body: () -> PyPointer?) -> PyPointer? {
        guard let context else { return body() }
        let held = Object(retaining: context)
        // Entered already where the protocol's own call has led here.
        guard cpython_enter_context(held.pointer) == 0 else {
            PyErr_Clear()
            return body()
        }
        let outer = core.callBegins(in: held.pointer)
        let answer = body()
        core.callEnded(outer)
        if answer != nil {
            _ = cpython_exit_context(held.pointer)
        } else {
            let exception = Exception.take()
            _ = cpython_exit_context(held.pointer)
            exception?.restore()
        }
        return answer
    }

    private func fatal(_ message: StaticString) throws(PythonError) {
        if core.isEnd { throw PythonError() }
        guard let exception = Exception.take() else { return }
        let text = try newString("\(message)")
        _ = try Object(
            cpython_call_method2(
                object, core.state.loopNames.fatalError, exception.value.pointer, text.pointer))
    }
}
