import CPython
import Python

/// `asyncio`'s functions for the loop that a thread runs, registered by `erlang._loop` when it is imported.
struct RunningLoop {
    let get, set: PyPointer
}

extension ModuleState {
    /// Runs what knows nothing of the loop that runs on this thread and waits, and may run one of its own.
    func withoutRunningLoop(_ body: () -> Void) {
        guard let runningLoop else { return body() }
        guard let loop = PyObject_CallNoArgs(runningLoop.get) else {
            PyErr_Clear()
            return body()
        }
        let held = Object(owning: loop)
        if held.pointer == cpython_none() { return body() }
        setRunningLoop(runningLoop, cpython_none())
        body()
        setRunningLoop(runningLoop, held.pointer)
    }

    func setRunningLoop(_ functions: RunningLoop, _ loop: PyPointer) {
        let answer = cpython_call1(functions.set, loop)
        if answer == nil { PyErr_Clear() }
        Py_DecRef(answer)
    }
}

/// The functions of `_causeway` for event loops.
enum LoopModule {
    static var functions: [PyMethodDef] {
        [
            method(
                "_register_running_loop",
                "_register_running_loop($module, get, set, /)\n--\n\nThe functions of asyncio.events for the loop that runs."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 2, let get = arguments?[0], let set = arguments?[1],
                        let state = ModuleState.of(module: module)
                    else { throw typeError("_register_running_loop() takes two functions") }
                    Py_IncRef(get)
                    Py_IncRef(set)
                    // Those of before live on: somebody may be using them.
                    state.runningLoop = RunningLoop(get: get, set: set)
                    return newNone()
                }
            },
            method(
                "_transport_type",
                "_transport_type($module, base, /)\n--\n\nThe native half of transports of streams, derived from asyncio's."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let base = arguments?[0], let module else {
                        throw typeError("_transport_type() takes a class")
                    }
                    return asObject(try StreamMethods.makeType(in: module, of: base))
                }
            },
            method(
                "_datagram_transport_type",
                "_datagram_transport_type($module, base, /)\n--\n\nThe same for datagrams."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let base = arguments?[0], let module else {
                        throw typeError("_datagram_transport_type() takes a class")
                    }
                    return asObject(try DatagramMethods.makeType(in: module, of: base))
                }
            },
        ]
    }
}
