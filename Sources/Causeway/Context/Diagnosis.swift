import Beam
import CErlNif
import CPython
import Python

/// The question what a context executes just now, answered by the janitor of its interpreter.
struct Diagnosis: Sendable {
    let context: Context
    let process: ErlNifPid
    let environment: Environment.Shared
    /// The first element of the answer `{Tag, Stack, Call}`.
    let tag: Term

    /// Sends the stack of the context's thread, the outermost call first, and the call in hand. With the GIL.
    func answer(_ state: ModuleState) {
        let message = Environment()
        let env = message.pointer
        let stack = (try? stack(env, state)) ?? makeList(env, [])
        PyErr_Clear()
        let call = context.calls.lastInHand?.summary(env) ?? atoms.undefined
        send(to: process, message, makeTuple(env, message.copy(tag), stack, call))
    }

    private func stack(_ env: EnvPointer?, _ state: ModuleState) throws(PythonError) -> Term {
        let module = try Object(PyImport_ImportModule("erlang._errors"))
        let function = try Object(PyObject_GetAttrString(module.pointer, "stack"))
        let thread = try Object(
            PyLong_FromUnsignedLong(context.threadIdentifier.load(ordering: .relaxed)))
        let frames = try Object(cpython_call1(function.pointer, thread.pointer))
        return try ExceptionTerm(env: env, state: state).frames(frames.pointer)
    }
}
