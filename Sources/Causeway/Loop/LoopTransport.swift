import CPython
import Python
import Streams

/// What the native halves of transports have in common: whom they call, flow control, and the end.
///
/// They read and write without the GIL. What is written in a turn of the loop goes out at its end, together.
class LoopTransport {
    /// Up to how much is written at the end of a turn, where nobody has said another limit.
    static let high = 64 << 10

    let core: LoopCore
    let fd: Int32
    /// The Python object that owns this; borrowed. The loop has a reference until the transport is closed.
    let object: PyPointer
    final var protocolObject: PyPointer?
    /// The context in which the protocol is called.
    private var context: PyPointer?
    final private(set) var watch: LoopWatch?

    final private(set) var isReading = false
    final private(set) var isPaused = false
    final private(set) var isClosing = false
    /// `connection_lost` was scheduled; counted up by what is written afterwards.
    final private(set) var lost = 0

    /// How many bytes are to be written.
    final var size = 0
    final private(set) var highWater = LoopTransport.high
    final private(set) var lowWater = LoopTransport.high / 4
    final private(set) var isProtocolPaused = false
    final var isDirty = false
    final var isInFlight = false
    final var needsRoom = false

    init(_ core: LoopCore, _ fd: Int32, _ object: PyPointer, context: consuming Object) {
        self.core = core
        self.fd = fd
        self.object = object
        self.context = context.take()
    }

    var wantsToRead: Bool { isReading && !isPaused && !isClosing }
    var wantsToWrite: Bool { needsRoom }

    /// Has another protocol called from now on.
    final func set(_ receiver: PyPointer) {
        let old = protocolObject
        Py_IncRef(receiver)
        protocolObject = receiver
        Py_DecRef(old)
    }

    // MARK: What the kinds of transports do in their own ways

    /// Reads what is there, and notes it for the turn. Without the GIL.
    func read() {}
    /// Whether something waits to be written.
    var isWriting: Bool { false }
    /// Gives what is to be written to who writes it, the core.
    func takeOff() {}
    /// Writes what there is room for, with the GIL.
    func writeNow() throws(PythonError) {}
    /// Lets go of what is to be written.
    func dropWritten() {}
    /// Lets go of what was read.
    func dropRead() {}
    /// Shows its objects to the collector of cycles.
    func traverseRead(_ visit: visitproc, _ argument: UnsafeMutableRawPointer?) -> Int32 { 0 }

    // MARK: Reading

    final func startReading() throws(PythonError) {
        guard !isReading, !isClosing else { return }
        try core.checkMayChange()
        isReading = true
        try updateWatch()
    }

    final func updateWatch() throws(PythonError) {
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

    final func updateWatchIfAny() throws(PythonError) { if let watch { try core.update(watch) } }

    final func pauseReading() throws(PythonError) {
        guard !isClosing, !isPaused else { return }
        isPaused = true
        try updateWatchIfAny()
    }

    func resumeReading() throws(PythonError) {
        guard !isClosing, isPaused else { return }
        isPaused = false
        try updateWatchIfAny()
    }

    // MARK: Writing

    /// Something is to be written at the end of the turn, or now: what is too much for the buffer, and what is written
    /// while nobody would write it later.
    @inline(__always)
    final func writeSoon() throws(PythonError) {
        if (size > highWater || !core.isRunning && !core.isInTurn), !isInFlight, !needsRoom {
            try writeNow()
        } else {
            markDirty()
        }
        try pauseProtocolIfFull()
    }

    final func markDirty() {
        guard !isDirty, !isInFlight, !needsRoom else { return }
        isDirty = true
        core.dirty.append(self)
    }

    /// The poller says that there is room.
    final func roomIsThere() {
        guard needsRoom else { return }
        needsRoom = false
        markDirty()
    }

    final func setLimits(high: Int, low: Int) throws(PythonError) {
        highWater = high
        lowWater = low
        try pauseProtocolIfFull()
    }

    final func pauseProtocolIfFull() throws(PythonError) {
        guard size > highWater, !isProtocolPaused, lost == 0 else { return }
        isProtocolPaused = true
        try tell(core.state.loopNames.pauseWriting)
    }

    final func resumeProtocolIfEmpty() throws(PythonError) {
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

    final func close() throws(PythonError) {
        guard !isClosing else { return }
        try core.checkMayChange()
        isClosing = true
        try updateWatchIfAny()
        if !isWriting { try scheduleLost(nil) }
    }

    /// Ends it without what is left to be written.
    final func forceClose(_ exception: PyPointer?) throws(PythonError) {
        guard lost == 0 else { return }
        try core.checkMayChange()
        isClosing = true
        dropWritten()
        needsRoom = false
        try scheduleLost(exception)
    }

    final func scheduleLost(_ exception: PyPointer?) throws(PythonError) {
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
    final func writtenInVain() { lost += 1 }

    /// It is over: `connection_lost` was called.
    final func finish() {
        lost += 1
        isClosing = true
        forgetWatch()
        clear()
        if core.transports.removeValue(forKey: ObjectIdentifier(self)) != nil { Py_DecRef(object) }
    }

    /// Lets go of all objects.
    final func clear() {
        if !isInFlight { dropWritten() }
        dropRead()
        let parts = [protocolObject, context]
        protocolObject = nil
        context = nil
        for part in parts { Py_DecRef(part) }
    }

    /// The object is gone.
    final func abandon() {
        forgetWatch()
        clear()
    }

    final func traverse(_ visit: visitproc, _ argument: UnsafeMutableRawPointer?) -> Int32 {
        // Not the loop: the reference to that is the base class's.
        for part in [protocolObject, context] {
            guard let part else { continue }
            let result = visit(part, argument)
            if result != 0 { return result }
        }
        return traverseRead(visit, argument)
    }

    // MARK: Calls

    /// Runs a method of the protocol; what it raises ends the transport.
    @inline(__always)
    final func calling(_ message: StaticString, _ body: () -> PyPointer?) throws(PythonError) {
        guard let answer = inContext(body) else { return try fatal(message) }
        Py_DecRef(answer)
    }

    @inline(__always)
    final func inContext(_ body: () -> PyPointer?) -> PyPointer? {
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

    final func fatal(_ message: StaticString) throws(PythonError) {
        if core.isEnd { throw PythonError() }
        guard let exception = Exception.take() else { return }
        let text = try newString("\(message)")
        _ = try Object(
            cpython_call_method2(
                object, core.state.loopNames.fatalError, exception.value.pointer, text.pointer))
    }
}
