import CPython
import Python
import Streams

/// The struct of `_causeway.EventLoop`, on which `erlang.EventLoop` is built.
struct LoopObject {
    var head: PyObject
    private var reference: Unmanaged<LoopCore>?

    static func core(_ me: PyPointer?) throws(PythonError) -> LoopCore {
        guard let me, let type = try? ModuleState.of(instance: me).loopType,
            cpython_is_subtype_of(me, type) != 0,
            let core = me.cast(to: LoopObject.self).pointee.reference?.takeUnretainedValue()
        else { throw typeError("an erlang.EventLoop is needed") }
        return core
    }

    /// The same for a method of the type, whose instance is known to be one.
    @inline(__always)
    static func open(_ me: PyPointer?) throws(PythonError) -> LoopCore {
        guard let core = me?.cast(to: LoopObject.self).pointee.reference?.takeUnretainedValue() else {
            throw runtimeError("Event loop is closed")
        }
        guard !core.isClosed else { throw runtimeError("Event loop is closed") }
        return core
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway.EventLoop", LoopObject.self, flags: [.base, .immutable, .collected],
            slots: [
                slot(Py_tp_doc, doc: "The native half of erlang.EventLoop."),
                slot(Py_tp_new) { (type: PyType?, _: PyPointer?, _: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        let object = try Object(cpython_alloc_instance(type))
                        let core = LoopCore(try ModuleState.current())
                        core.object = object.pointer
                        object.pointer.cast(to: LoopObject.self).pointee.reference = .passRetained(core)
                        return object.take()
                    }
                },
                slot(Py_tp_traverse) {
                    (me: PyPointer?, visit: visitproc?, argument: UnsafeMutableRawPointer?) -> Int32 in
                    guard let me, let visit else { return 0 }
                    return LoopObject.traverse(me, visit, argument)
                },
                slot(Py_tp_clear) { (me: PyPointer?) -> Int32 in
                    me?.cast(to: LoopObject.self).pointee.reference?.takeUnretainedValue().close()
                    return 0
                },
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    PyObject_GC_UnTrack(me)
                    if let reference = me.cast(to: LoopObject.self).pointee.reference {
                        // Nobody is to call it any more.
                        reference.takeUnretainedValue().object = nil
                        reference.takeUnretainedValue().close()
                        reference.release()
                    }
                    cpython_free_instance(me)
                },
                slot(
                    Py_tp_methods,
                    table: schedulingMethods + watchingMethods + runningMethods + LoopReactorMethods.all
                        + [PyMethodDef()]),
            ])
    }

    private static func traverse(_ me: PyPointer, _ visit: visitproc, _ argument: UnsafeMutableRawPointer?)
        -> Int32
    {
        guard let core = me.cast(to: LoopObject.self).pointee.reference?.takeUnretainedValue() else {
            return 0
        }
        var result: Int32 = 0
        func see(_ object: PyPointer?) {
            if result == 0, let object { result = visit(object, argument) }
        }
        see(cpython_type(me).map { asObject($0) })
        core.ready.forEach { see($0) }
        core.timers.forEach { see($0) }
        for transport in core.transports.values { see(transport.object) }
        // Those that belong to another thread just now are not looked at: they stay.
        guard !core.isPolling else { return result }
        for watch in core.watches.elements {
            see(watch.reader)
            see(watch.writer)
        }
        core.served?.forEachObject { see($0) }
        return result
    }

    // MARK: Scheduling

    private struct Scheduled {
        let arguments: UnsafePointer<PyPointer?>
        let count: Int
        let context: PyPointer?
    }

    /// The positional arguments, of which there are at least so many, and the keyword `context`.
    @inline(__always)
    private static func scheduled(
        _ function: StaticString, _ least: Int, _ arguments: UnsafePointer<PyPointer?>?, _ count: Int,
        _ names: PyPointer?
    ) throws(PythonError) -> Scheduled {
        guard count >= least, let arguments else {
            throw typeError("\(function)() missing \(least - count) required positional argument(s)")
        }
        guard let names, PyTuple_Size(names) > 0 else {
            return Scheduled(arguments: arguments, count: count, context: nil)
        }
        guard PyTuple_Size(names) == 1,
            PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "context") == 0
        else { throw typeError("\(function)() got an unexpected keyword argument: \(describe(names))") }
        return Scheduled(arguments: arguments, count: count, context: arguments[count])
    }

    /// In debug mode asyncio's own handles are scheduled, which know where they come from.
    private static func debugged(
        _ me: PyPointer?, _ name: PyPointer, _ function: StaticString, _ when: Double?, _ given: Scheduled,
        from first: Int
    ) throws(PythonError) -> PyPointer {
        let method = try Object(PyObject_GetAttr(me, name))
        let list = try Object(PyTuple_New(4 + given.count - first))
        PyTuple_SetItem(list.pointer, 0, try newString("\(function)").take())
        PyTuple_SetItem(list.pointer, 1, when.map { PyFloat_FromDouble($0) } ?? newNone())
        PyTuple_SetItem(list.pointer, 2, Py_NewRef(given.context ?? cpython_none()))
        for index in first..<given.count {
            PyTuple_SetItem(list.pointer, 3 + index - first, Py_NewRef(given.arguments[index]))
        }
        let all = try Object(PyTuple_GetSlice(list.pointer, 0, 3 + given.count - first))
        return try Object(PyObject_Call(method.pointer, all.pointer, nil)).take()
    }

    private static func seconds(_ object: PyPointer?) throws(PythonError) -> Double {
        let seconds = PyFloat_AsDouble(object)
        if seconds == -1, PyErr_Occurred() != nil { throw PythonError() }
        return seconds
    }

    private static var schedulingMethods: [PyMethodDef] {
        [
            method(
                "call_soon",
                keywords:
                    "call_soon($self, callback, /, *args, context=None)\n--\n\nHave callback(*args) called in the next turn of the loop, in their order.\n\nReturns a handle that can be cancelled. Raises RuntimeError for a closed loop."
            ) { me, arguments, count, names in
                returning { () throws(PythonError) in
                    let core = try LoopObject.open(me)
                    let given = try LoopObject.scheduled("call_soon", 1, arguments, count, names)
                    guard !core.isDebugging, let callback = given.arguments[0] else {
                        return try LoopObject.debugged(
                            me, core.state.loopNames.debugSoon, "call_soon", nil, given, from: 0)
                    }
                    return try core.callSoon(callback, given.arguments + 1, given.count - 1, given.context)
                        .take()
                }
            },
            method(
                "call_soon_threadsafe",
                keywords:
                    "call_soon_threadsafe($self, callback, /, *args, context=None)\n--\n\nAs call_soon(), from any thread: the loop is woken."
            ) { me, arguments, count, names in
                returning { () throws(PythonError) in
                    let core = try LoopObject.open(me)
                    let given = try LoopObject.scheduled("call_soon_threadsafe", 1, arguments, count, names)
                    let handle: PyPointer
                    if !core.isDebugging, let callback = given.arguments[0] {
                        handle = try core.callSoon(
                            callback, given.arguments + 1, given.count - 1, given.context
                        ).take()
                    } else {
                        handle = try LoopObject.debugged(
                            me, core.state.loopNames.debugSoon, "call_soon_threadsafe", nil, given, from: 0)
                    }
                    core.wake()
                    return handle
                }
            },
            method(
                "call_later",
                keywords:
                    "call_later($self, delay, callback, /, *args, context=None)\n--\n\nHave callback(*args) called after so many seconds.\n\nReturns a handle that can be cancelled."
            ) { me, arguments, count, names in
                returning { () throws(PythonError) in
                    let core = try LoopObject.open(me)
                    let given = try LoopObject.scheduled("call_later", 2, arguments, count, names)
                    guard given.arguments[0] != cpython_none() else {
                        throw typeError("delay must not be None")
                    }
                    let when = LoopCore.now() + (try LoopObject.seconds(given.arguments[0]))
                    return try LoopObject.schedule(me, core, when, "call_later", given)
                }
            },
            method(
                "call_at",
                keywords:
                    "call_at($self, when, callback, /, *args, context=None)\n--\n\nAs call_later(), at a time as time() has it."
            ) { me, arguments, count, names in
                returning { () throws(PythonError) in
                    let core = try LoopObject.open(me)
                    let given = try LoopObject.scheduled("call_at", 2, arguments, count, names)
                    guard given.arguments[0] != cpython_none() else {
                        throw typeError("when cannot be None")
                    }
                    let when = try LoopObject.seconds(given.arguments[0])
                    return try LoopObject.schedule(me, core, when, "call_at", given)
                }
            },
            method("time", "time($self, /)\n--\n\nThe monotonic clock, in seconds.") { _, _, _ in
                PyFloat_FromDouble(LoopCore.now())
            },
            method(
                "_add_callback",
                "_add_callback($self, handle, /)\n--\n\nMake a handle of asyncio's own ready."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    let core = try LoopObject.open(me)
                    guard count == 1, let handle = arguments?[0] else {
                        throw typeError("_add_callback() takes a handle")
                    }
                    core.ready.append(Py_NewRef(handle))
                    return newNone()
                }
            },
            method(
                "_add_callback_signalsafe",
                "_add_callback_signalsafe($self, handle, /)\n--\n\nThe same, and wake the loop."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    let core = try LoopObject.open(me)
                    guard count == 1, let handle = arguments?[0] else {
                        throw typeError("_add_callback_signalsafe() takes a handle")
                    }
                    core.ready.append(Py_NewRef(handle))
                    core.wake()
                    return newNone()
                }
            },
        ]
    }

    private static func schedule(
        _ me: PyPointer?, _ core: LoopCore, _ when: Double, _ function: StaticString, _ given: Scheduled
    ) throws(PythonError) -> PyPointer {
        guard !core.isDebugging, let callback = given.arguments[1] else {
            return try debugged(me, core.state.loopNames.debugAt, function, when, given, from: 1)
        }
        return try core.callAt(when, callback, given.arguments + 2, given.count - 2, given.context).take()
    }

    // MARK: Watching

    static func descriptor(_ object: PyPointer?) throws(PythonError) -> Int32 {
        let number = PyObject_AsFileDescriptor(object)
        if number < 0 { throw PythonError() }
        return number
    }

    private static func watch(
        _ me: PyPointer?, _ direction: LoopCore.Direction, _ function: String,
        _ arguments: UnsafePointer<PyPointer?>?, _ count: Int
    ) throws(PythonError) -> PyPointer {
        let core = try open(me)
        guard count >= 2, let arguments, let callback = arguments[1] else {
            throw typeError("\(function)() takes a file descriptor and a callback")
        }
        let fd = try descriptor(arguments[0])
        let context = try Object(cpython_copy_context())
        let handle = try HandleObject.make(
            core.state.handleType, callback, arguments + 2, count - 2, context, reusing: nil)
        try core.add(direction, fd, handle.pointer)
        return handle.take()
    }

    private static func unwatch(
        _ me: PyPointer?, _ direction: LoopCore.Direction, _ function: String,
        _ arguments: UnsafePointer<PyPointer?>?, _ count: Int
    ) throws(PythonError) -> PyPointer {
        guard let core = me?.cast(to: LoopObject.self).pointee.reference?.takeUnretainedValue(),
            !core.isClosed
        else { return newBool(false) }
        guard count == 1 else { throw typeError("\(function)() takes a file descriptor") }
        return newBool(try core.remove(direction, try descriptor(arguments?[0])))
    }

    private static var watchingMethods: [PyMethodDef] {
        [
            method(
                "_add_reader",
                "_add_reader($self, fd, callback, /, *args)\n--\n\nHave callback(*args) called while fd is readable."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    try LoopObject.watch(me, .read, "_add_reader", arguments, count)
                }
            },
            method(
                "_add_writer",
                "_add_writer($self, fd, callback, /, *args)\n--\n\nHave callback(*args) called while fd is writable."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    try LoopObject.watch(me, .write, "_add_writer", arguments, count)
                }
            },
            method(
                "_remove_reader",
                "_remove_reader($self, fd, /)\n--\n\nHave nothing called any more when fd is readable; whether there was something."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    try LoopObject.unwatch(me, .read, "_remove_reader", arguments, count)
                }
            },
            method(
                "_remove_writer",
                "_remove_writer($self, fd, /)\n--\n\nHave nothing called any more when fd is writable; whether there was something."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    try LoopObject.unwatch(me, .write, "_remove_writer", arguments, count)
                }
            },
            method(
                "_interest",
                "_interest($self, fd, /)\n--\n\nWhat a descriptor is watched for: 1 to read, 2 to write, 3 both, 0 nothing."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    let core = try LoopObject.open(me)
                    guard count == 1 else { throw typeError("_interest() takes a file descriptor") }
                    let watch = core.watchesByDescriptor[try LoopObject.descriptor(arguments?[0])]
                    let bits =
                        switch watch?.interest {
                        case .read: 1
                        case .write: 2
                        case .readAndWrite: 3
                        case .nothing, nil: 0
                        }
                    return PyLong_FromLong(bits) ?? newNone()
                }
            },
        ]
    }

    // MARK: Running

    private static var runningMethods: [PyMethodDef] {
        [
            method("_run", "_run($self, /)\n--\n\nRun until stop().") { me, _, _ in
                returning { () throws(PythonError) in
                    let core = try LoopObject.open(me)
                    try core.run()
                    return newNone()
                }
            },
            method(
                "stop",
                "stop($self, /)\n--\n\nHave run_forever() return after the turn that runs, or after the next."
            ) { me, _, _ in
                me?.cast(to: LoopObject.self).pointee.reference?.takeUnretainedValue().isStopping = true
                return newNone()
            },
            method("_close", "_close($self, /)\n--\n\nForget everything that was scheduled and is watched.") {
                me, _, _ in
                me?.cast(to: LoopObject.self).pointee.reference?.takeUnretainedValue().close()
                return newNone()
            },
            method(
                "_set_debugging",
                "_set_debugging($self, enabled, /)\n--\n\nWhether asyncio's handles are used."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    // Also of a loop that is closed, as asyncio has it.
                    let core = try LoopObject.core(me)
                    core.isDebugging = count == 1 && arguments?[0] == cpython_true()
                    return newNone()
                }
            },
            method(
                "_schedule",
                "_schedule($self, handle, when, /)\n--\n\nMake one of asyncio's handles ready, or have it be at that time."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    let core = try LoopObject.open(me)
                    guard count == 2, let handle = arguments?[0], let when = arguments?[1] else {
                        throw typeError("_schedule() takes a handle and a time, or None")
                    }
                    if when == cpython_none() {
                        core.ready.append(Py_NewRef(handle))
                    } else {
                        let time = try LoopObject.seconds(when)
                        core.timers.insert(Py_NewRef(handle), at: time)
                    }
                    return newNone()
                }
            },
        ]
    }
}

/// Interned names that loops and transports look up.
struct LoopNames {
    let context, runHandle, reportError, debugSoon, debugAt: PyPointer
    let getBuffer, bufferUpdated, pauseWriting, resumeWriting: PyPointer
    let createTask, result, cancel, addDoneCallback, asyncIterator, awaiting: PyPointer
    let fatalError, flowError, connectionIsLost, deliverHeld, writtenOut: PyPointer
    let datagramReceived, errorReceived, resolve, tryAgain: PyPointer

    init() throws(PythonError) {
        context = try internedName("_context")
        runHandle = try internedName("_run_handle")
        reportError = try internedName("_report_error")
        debugSoon = try internedName("_debug_soon")
        debugAt = try internedName("_debug_at")
        getBuffer = try internedName("get_buffer")
        bufferUpdated = try internedName("buffer_updated")
        pauseWriting = try internedName("pause_writing")
        resumeWriting = try internedName("resume_writing")
        createTask = try internedName("create_task")
        result = try internedName("result")
        cancel = try internedName("cancel")
        addDoneCallback = try internedName("add_done_callback")
        asyncIterator = try internedName("__aiter__")
        awaiting = try internedName("__await__")
        fatalError = try internedName("_fatal_error")
        flowError = try internedName("_flow_error")
        connectionIsLost = try internedName("_call_connection_lost")
        deliverHeld = try internedName("_deliver_held")
        writtenOut = try internedName("_written_out")
        datagramReceived = try internedName("datagram_received")
        errorReceived = try internedName("error_received")
        resolve = try internedName("_resolve")
        tryAgain = try internedName("_try_again")
    }
}
