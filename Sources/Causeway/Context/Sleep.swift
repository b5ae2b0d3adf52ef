import CPython
import Glibc
import Python
import Streams

/// How a thread of Python waits without the GIL, inside the BEAM so that the janitor can end it.
///
/// Python's own waits can be interrupted by a signal on Python's main thread only, so that a context would
/// go on waiting after its caller has died.
struct Sleep {
    /// The bit of the word by which the janitor says that the wait is over. All others are for who wakes the thread
    /// because something has happened: see `wake`.
    static let interrupted: UInt32 = 1

    private let state: ModuleState
    private let context = ContextThread.current?.context
    /// What the thread sleeps on: its context's, or one of its own that nobody else knows.
    private let word: FutexWord

    /// For the calling thread. With the GIL.
    init(_ state: ModuleState) {
        self.state = state
        context?.dropHandledInterruption(state)
        word = context?.sleep ?? FutexWord(0)
    }

    /// What has the thread look again. From any thread, also after the wait.
    var wake: @Sendable () -> Void {
        { [word] in
            word.add(2)
            word.wake()
        }
    }

    /// Sleeps until a time of the monotonic clock, or until `isOver`; whether that is so. With the GIL, which it
    /// releases meanwhile.
    ///
    /// It raises what interrupts it itself: C code that waits again at once, as `map(time.sleep, …)` does,
    /// would not come by where Python raises it.
    func wait(until end: Int64, isOver: () -> Bool) throws(PythonError) -> Bool {
        var isOverNow = isOver()
        while !isOverNow {
            let thread = PyEval_SaveThread()
            var seen = word.value
            var now = monotonicNanoseconds()
            isOverNow = isOver()
            while !isOverNow, seen & Sleep.interrupted == 0, now < end {
                word.wait(while: seen, nanoseconds: end == .max ? nil : end - now)
                let old = seen
                seen = word.value
                now = monotonicNanoseconds()
                isOverNow = isOver()
                // Woken by a signal, of which only Python's code knows what is to be done.
                if context == nil, seen == old, now < end { break }
            }
            PyEval_RestoreThread(thread)
            try throwInterruption()
            if now >= end { return isOverNow }
        }
        return true
    }

    private func throwInterruption() throws(PythonError) {
        guard let context else {
            if PyErr_CheckSignals() != 0 { throw PythonError() }
            return
        }
        // With the GIL, as the janitor is where it sets that bit.
        guard word.exchange(0) & Sleep.interrupted != 0 else { return }
        context.dropInterruption()
        PyErr_SetObject(state.interruption, nil)
        throw PythonError()
    }

    /// `time.sleep` inside the BEAM.
    static func sleep(seconds: Double, _ state: ModuleState) throws(PythonError) {
        guard seconds >= 0 else { throw valueError("sleep length must be non-negative") }
        // As Python has it: 292 years are the limit. The clock began at the last start of the machine, so
        // that the sum fits as well.
        guard seconds < 9.2e9 else {
            throw raised(cpython_OverflowError(), "timestamp too large to convert to C _PyTime_t")
        }
        let end = monotonicNanoseconds() &+ Int64(seconds * 1e9)
        _ = try Sleep(state).wait(until: end) { false }
    }

    static var functions: [PyMethodDef] {
        [
            method(
                "_sleep",
                "_sleep($module, seconds, /)\n--\n\nWhat time.sleep is inside the BEAM: it ends when the call is interrupted."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let argument = arguments?[0] else {
                        throw typeError("sleep() takes exactly one argument (\(count) given)")
                    }
                    let seconds = PyFloat_AsDouble(argument)
                    if seconds == -1, PyErr_Occurred() != nil { throw PythonError() }
                    let state = try ModuleState.required(module)
                    try Sleep.sleep(seconds: seconds, state)
                    return newNone()
                }
            }
        ]
    }
}
