import CErlNif
import CPython
import Python

/// The struct of `_causeway._TaskOwner`: whose a task is, and what that starts. It is in the `contextvars.Context` of each.
struct TaskOwnerObject {
    var head: PyObject
    /// On whose behalf it runs.
    private(set) var process: ErlNifPid
    /// The number of the call that has started it, in its context.
    private(set) var call: UInt64
    /// Something was printed.
    var hasPrinted: Bool

    static func make(_ type: PyType, _ call: Call) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        let fields = object.pointer.cast(to: TaskOwnerObject.self)
        fields.pointee.process = call.beneficiary
        fields.pointee.call = call.number
        return object
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._TaskOwner", TaskOwnerObject.self,
            flags: [.noConstructor, .immutable],
            slots: [
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in if let me { cpython_free_instance(me) } }
            ])
    }
}

extension ModuleState {
    /// The owner of the task that runs on this thread, or of what has started what runs; nil for none.
    var taskOwner: Object? {
        guard let value = cpython_context_value(taskOwnerVariable) else { return nil }
        let held = Object(owning: value)
        guard cpython_type(held.pointer) == taskOwnerType else { return nil }
        return held
    }

    /// The number of the call that has started what runs in a `contextvars.Context`.
    func call(owning context: PyPointer) -> UInt64? {
        guard let value = PyObject_GetItem(context, taskOwnerVariable) else {
            PyErr_Clear()
            return nil
        }
        let held = Object(owning: value)
        guard cpython_type(held.pointer) == taskOwnerType else { return nil }
        return held.pointer.cast(to: TaskOwnerObject.self).pointee.call
    }
}
