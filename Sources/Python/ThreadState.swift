import CPython

/// The Python thread state of one native thread: how that thread takes and releases the GIL.
///
/// Made and used on that thread only. The corresponding C functions are `PyThreadState_New`,
/// `PyEval_RestoreThread` and `PyEval_SaveThread`.
public final class ThreadState {
    private let state: OpaquePointer?
    /// What `threading.get_ident()` says on this thread.
    public let identifier: UInt

    /// For the calling thread. Does not take the GIL.
    public init?(interpreter: OpaquePointer?) {
        state = PyThreadState_New(interpreter)
        identifier = PyThread_get_thread_ident()
        if state == nil { return nil }
    }

    /// The state that the calling thread runs with, which releases the GIL by this: for the thread that
    /// initialised Python.
    public init(releasing: Void) {
        identifier = PyThread_get_thread_ident()
        state = PyEval_SaveThread()
    }

    /// Waits for the GIL and takes it. The corresponding C function is `PyEval_RestoreThread`.
    @inline(__always) public func enter() { PyEval_RestoreThread(state) }

    /// Releases the GIL. The corresponding C function is `PyEval_SaveThread`.
    @inline(__always) public func leave() { _ = PyEval_SaveThread() }

    /// Runs `body` with the GIL.
    @inline(__always)
    public func withGIL<Result>(_ body: () -> Result) -> Result {
        enter()
        defer { leave() }
        return body()
    }

    /// By which others with the GIL know it, until it is ended.
    public var address: UInt { UInt(bitPattern: state) }

    /// Whether a thread is in Python's own code for imports, where it takes and gives back locks. Of a state that has not
    /// ended, with the GIL.
    public static func isImporting(_ address: UInt) -> Bool {
        guard let state = OpaquePointer(bitPattern: address) else { return false }
        return cpython_is_importing(state) != 0
    }

    /// Ends the state, on its thread and without the GIL: what thread-local objects it held are gone.
    public func end() {
        enter()
        PyThreadState_Clear(state)
        leave()
        PyThreadState_Delete(state)
    }

    /// Raises an exception in another thread at its next bytecode; nil takes back one not yet raised.
    ///
    /// Of a state that has not ended, with the GIL; not for the thread that calls, but to take one back. The
    /// corresponding C function is `PyThreadState_SetAsyncExc`.
    public static func interrupt(_ address: UInt, identifier: UInt, with exception: PyPointer?) {
        guard let state = OpaquePointer(bitPattern: address) else { return }
        cpython_interrupt(state, identifier, exception)
    }
}
