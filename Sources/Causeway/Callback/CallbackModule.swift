import Beam
import CErlNif
import CPython
import Python

/// The functions of `_causeway` by which Python calls Erlang; `erlang._callbacks` makes them pleasant.
enum CallbackModule {
    static var functions: [PyMethodDef] {
        [
            method(
                "_call",
                "_call($module, name, arguments, /)\n--\n\nRun a registered Erlang function and wait for it.\n\nReturns ('ok', value), ('error', kind, reason, text, stacktrace) or ('lost',)."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    try ErlangModule.requireBeam("call")
                    guard count == 2, let arguments, let name = arguments[0], let list = arguments[1],
                        cpython_is_unicode(name) != 0, cpython_is_tuple(list) != 0
                    else {
                        throw typeError("_call() takes a name and a tuple")
                    }
                    let state = try ModuleState.required(module)
                    return try CallbackModule.call(name, list, state).take()
                }
            },
            method(
                "_begin_call",
                "_begin_call($module, bell, key, name, arguments, /)\n--\n\nRun a registered Erlang function; the bell tells the key when it has ended."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    try ErlangModule.requireBeam("async_call")
                    guard count == 4, let arguments, let number = arguments[1], let name = arguments[2],
                        let list = arguments[3], cpython_is_unicode(name) != 0, cpython_is_tuple(list) != 0,
                        let key = try integer(number)
                    else { throw typeError("_begin_call() takes a bell, a key, a name and a tuple") }
                    let state = try ModuleState.required(module)
                    guard let first = arguments[0], cpython_type(first) == state.loopBellType,
                        let bell = LoopBellObject.bell(first)
                    else { throw typeError("_begin_call() takes a _LoopBell") }
                    let thread = ContextThread.current.flatMap { $0.runs(state) ? $0 : nil }
                    let callback = Callback(context: nil) { bell.ring(key) }
                    try CallbackModule.send(callback, name, list, thread, state)
                    return try CallbackWaiterObject.make(state.callbackWaiterType, callback).take()
                }
            },
            method(
                "_is_function",
                "_is_function($module, name, /)\n--\n\nWhether an Erlang function of that name is registered."
            ) { _, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let name = arguments?[0], cpython_is_unicode(name) != 0 else {
                        throw typeError("_is_function() takes one str")
                    }
                    return newBool(CallbackServer.shared.has(try text(of: name)))
                }
            },
            method(
                "_function_names",
                "_function_names($module, /)\n--\n\nThe names of the registered Erlang functions."
            ) { _, _, _ in
                returning { () throws(PythonError) in
                    let list = try Object(PyList_New(0))
                    for name in CallbackServer.shared.names {
                        guard PyList_Append(list.pointer, try newString(name).pointer) == 0 else {
                            throw PythonError()
                        }
                    }
                    return list.take()
                }
            },
        ]
    }

    private static func call(_ name: PyPointer, _ arguments: PyPointer, _ state: ModuleState)
        throws(PythonError) -> Object
    {
        // C code that calls itself through Erlang would not be stopped by Python's own count.
        guard Py_EnterRecursiveCall(" in erlang.call") == 0 else { throw PythonError() }
        defer { Py_LeaveRecursiveCall() }
        // An interpreter that Python code has made on a context's thread is none of that context's.
        let thread = ContextThread.current.flatMap { $0.runs(state) ? $0 : nil }
        // First: a function whose result nobody would wait for is not called.
        try thread?.checkMayWait()
        let callback = Callback(context: thread?.context)
        try send(callback, name, arguments, thread, state)
        if let thread {
            do throws(PythonError) { try thread.wait(for: callback) } catch {
                abandon(callback)
                throw error
            }
        } else {
            let saved = PyEval_SaveThread()
            callback.sleep()
            PyEval_RestoreThread(saved)
        }
        return try answer(of: callback, state)
    }

    /// What a callback that is over has come to.
    static func answer(of callback: Callback, _ state: ModuleState) throws(PythonError) -> Object {
        guard callback.outcome == .answered else {
            let lost = try Object(PyTuple_New(1))
            PyTuple_SetItem(lost.pointer, 0, try newString("lost").take())
            return lost
        }
        defer { callback.forgetAnswer() }
        return try decoded(callback.answer, Decoder(env: callback.environment.pointer, state: state))
    }

    /// The answer as a tuple. The reason of an error may have no form in Python: its text has.
    private static func decoded(_ answer: Term, _ decoder: Decoder) throws(PythonError) -> Object {
        var count: Int32 = 0
        var parts: UnsafePointer<Term>?
        guard enif_get_tuple(decoder.env, answer, &count, &parts) != 0, let parts, count == 5 else {
            return try decoder.object(answer)
        }
        do throws(PythonError) { return try decoder.object(answer) } catch {
            PyErr_Clear()
            return try decoder.object(
                makeTuple(decoder.env, parts[0], parts[1], atoms.none, parts[3], parts[4]))
        }
    }

    private static func send(
        _ callback: Callback, _ name: PyPointer, _ arguments: PyPointer, _ thread: ContextThread?,
        _ state: ModuleState
    ) throws(PythonError) {
        let message = Environment()
        let env = message.pointer
        var encoder = Encoder(env: env, state: state)
        let nameTerm = try encoder.term(name)
        let list = try Object(PySequence_List(arguments))
        let argumentList = try encoder.term(list.pointer)
        let caller = thread?.context.caller?.pid ?? atoms.undefined
        guard let term = resourceTypes.callback.makeTerm(env, callback) else {
            throw valueError("no memory for a call of an Erlang function")
        }
        let request = makeTuple(env, atoms.call, term, nameTerm, argumentList, caller)
        guard CallbackServer.shared.send(message, makeTuple(env, atoms.causeway, request)) else {
            throw runtimeError("Erlang functions cannot be called: the application causeway does not run")
        }
    }

    /// Nobody waits any more: the process that runs the function is told to end.
    static func abandon(_ callback: Callback) {
        guard let process = callback.abandon() else { return }
        let message = Environment()
        let request = makeTuple(message.pointer, atoms.cancelled, process.pid)
        _ = CallbackServer.shared.send(message, makeTuple(message.pointer, atoms.causeway, request))
    }
}
