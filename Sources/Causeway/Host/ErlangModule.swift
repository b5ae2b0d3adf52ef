import Beam
import CErlNif
import CPython
import Python

/// The functions of `_causeway` that talk to Erlang. Without a BEAM they raise `RuntimeError`.
enum ErlangModule {
    static var functions: [PyMethodDef] {
        [
            method(
                "send",
                "send($module, pid, term, /)\n--\n\nSend a term to an Erlang process; from any thread. Never waits.\n\nThe term is copied, and becomes what a result of a call would. Returns None,\nalso where the process is gone, as Erlang's `!` does.\nRaises RuntimeError outside the BEAM, TypeError for a pid that is none,\nValueError for a term that has no form in Erlang."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    try ErlangModule.requireBeam("send")
                    guard count == 2, let arguments, let pid = arguments[0], let term = arguments[1] else {
                        throw typeError("send() takes a pid and a term")
                    }
                    let state = try ModuleState.required(module)
                    guard cpython_type(pid) == state.pidType else {
                        throw typeError("send() needs an erlang.Pid, not \(typeName(of: pid))")
                    }
                    try ErlangModule.send(term, to: pid, state)
                    return newNone()
                }
            },
            method(
                "whereis",
                "whereis($module, name, /)\n--\n\nThe process that is registered under a name, or None; on\nthis node, as Erlang's `whereis/1`. From any thread.\n\nRaises RuntimeError outside the BEAM, TypeError for a name that is no str."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    try ErlangModule.requireBeam("whereis")
                    guard count == 1, let name = arguments?[0], cpython_is_unicode(name) != 0 else {
                        throw typeError("whereis() takes one str")
                    }
                    let state = try ModuleState.required(module)
                    return try ErlangModule.whereis(try text(of: name), state).take()
                }
            },
            method(
                "self",
                "self($module, /)\n--\n\nThe process on whose behalf this code runs: the caller in a call, the context's\nprocess in a reactor's callback.\n\nRaises RuntimeError in a thread that runs neither, and outside the BEAM."
            ) { module, _, _ in
                returning { () throws(PythonError) in
                    try ErlangModule.requireBeam("self")
                    guard let context = ContextThread.current?.context else {
                        throw runtimeError("self() is no Erlang process here: this thread is no context's")
                    }
                    let state = try ModuleState.required(module)
                    return try TermObject.make(state.pidType, context.beneficiary.pid).take()
                }
            },
            method(
                "_caller",
                "_caller($module, /)\n--\n\nThe Erlang process whose call the calling thread runs, or None."
            ) { module, _, _ in
                returning { () throws(PythonError) in
                    guard let caller = ContextThread.current?.context.caller,
                        let state = ModuleState.of(module: module)
                    else { return newNone() }
                    return try TermObject.make(state.pidType, caller.pid).take()
                }
            },
            method(
                "_context",
                "_context($module, /)\n--\n\nThe process of the context that the calling thread is, or None."
            ) { module, _, _ in
                returning { () throws(PythonError) in
                    guard let context = ContextThread.current?.context,
                        let state = ModuleState.of(module: module)
                    else { return newNone() }
                    return try TermObject.make(state.pidType, context.owner.pid).take()
                }
            },
            method("in_beam", "in_beam($module, /)\n--\n\nWhether this Python runs inside the BEAM.") {
                _, _, _ in
                newBool(hostIsBeam)
            },
        ]
    }

    /// What needs Erlang says so where there is none, instead of failing in some other way.
    static func requireBeam(_ function: String) throws(PythonError) {
        if hostIsBeam { return }
        throw runtimeError(
            "erlang.\(function)() needs a BEAM: this Python runs by itself. "
                + "Start Python from Erlang with the application causeway, and call it through py:call/3")
    }

    private static func send(_ term: PyPointer, to pid: PyPointer, _ state: ModuleState) throws(PythonError) {
        var process = ErlNifPid(pid: pid.cast(to: TermObject.self).pointee.term)
        let message = Environment()
        var encoder = Encoder(env: message.pointer, state: state)
        let content = try encoder.term(term)
        guard enif_is_pid_local(&process) else {
            throw valueError("send() reaches processes of this node only")
        }
        Beam.send(to: process, message, content)
    }

    private static func whereis(_ name: String, _ state: ModuleState) throws(PythonError) -> Object {
        let scratch = Environment()
        var process = ErlNifPid()
        guard let atom = existingAtom(scratch.pointer, name), enif_whereis_pid(nil, atom, &process) != 0
        else {
            return Object(owning: newNone())
        }
        return try TermObject.make(state.pidType, process.pid)
    }
}

/// Whether a pid is one of this node: only such are a word that `enif_send` takes.
private func enif_is_pid_local(_ process: inout ErlNifPid) -> Bool {
    var local = ErlNifPid()
    return enif_get_local_pid(nil, process.pid, &local) != 0
}
