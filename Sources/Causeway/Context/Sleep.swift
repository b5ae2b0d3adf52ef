import CPython
import Glibc
import Python
import Streams

/// `time.sleep` inside the BEAM: the janitor can end it.
///
/// Python's own sleep can be interrupted by a signal on Python's main thread only, so that a context would
/// go on sleeping after its caller has died.
enum Sleep {
    /// Sleeps without the GIL. On a thread that is no context's nobody can end it.
    ///
    /// It raises what interrupts it itself: C code that sleeps again at once, as `map(time.sleep, …)` does,
    /// would not come by where Python raises it.
    static func sleep(seconds: Double, _ state: ModuleState) throws(PythonError) {
        guard seconds >= 0 else { throw valueError("sleep length must be non-negative") }
        // As Python has it: 292 years are the limit. The clock began at the last start of the machine, so
        // that the sum fits as well.
        guard seconds < 9.2e9 else {
            throw raised(cpython_OverflowError(), "timestamp too large to convert to C _PyTime_t")
        }
        let start = monotonicNanoseconds()
        let end = start &+ Int64(seconds * 1e9)
        let context = ContextThread.current?.context
        context?.dropHandledInterruption(state)
        let word = context?.sleep ?? FutexWord(0)
        let thread = PyEval_SaveThread()
        var now = start
        while word.value == 0, now < end {
            word.wait(while: 0, nanoseconds: end - now)
            now = monotonicNanoseconds()
        }
        PyEval_RestoreThread(thread)
        // With the GIL, as the janitor is where it writes that word.
        guard let context, word.exchange(0) != 0 else { return }
        context.dropInterruption()
        PyErr_SetObject(state.interruption, nil)
        throw PythonError()
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
