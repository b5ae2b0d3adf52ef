import CPython
import Python

/// The struct of `_causeway._TaskAnswer`: the callback of a task that answers a call of Erlang's.
struct TaskAnswerObject {
    var head: PyObject
    private var call: Unmanaged<Call>?
    /// A reference to the owner of the task.
    private var owner: PyPointer?
    private var isSmall: Bool

    static func make(_ type: PyType, _ call: Call, _ owner: PyPointer, isSmall: Bool) throws(PythonError)
        -> Object
    {
        let object = try Object(cpython_alloc_instance(type))
        let fields = object.pointer.cast(to: TaskAnswerObject.self)
        fields.pointee.call = .passRetained(call)
        fields.pointee.owner = Py_NewRef(owner)
        fields.pointee.isSmall = isSmall
        return object
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._TaskAnswer", TaskAnswerObject.self,
            flags: [.noConstructor, .immutable],
            slots: [
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    me.cast(to: TaskAnswerObject.self).pointee.call?.release()
                    Py_DecRef(me.cast(to: TaskAnswerObject.self).pointee.owner)
                    cpython_free_instance(me)
                },
                slot(Py_tp_call) { (me: PyPointer?, arguments: PyPointer?, _: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        guard let fields = me?.cast(to: TaskAnswerObject.self).pointee,
                            let call = fields.call?.takeUnretainedValue(), let thread = ContextThread.current,
                            PyTuple_Size(arguments) == 1, let task = PyTuple_GetItem(arguments, 0)
                        else { throw typeError("a task answers a call on its context's thread") }
                        let hasPrinted = fields.owner?.cast(to: TaskOwnerObject.self).pointee.hasPrinted
                        thread.answer(
                            call, by: task, isSmall: fields.isSmall, hasPrinted: hasPrinted ?? false)
                        return newNone()
                    }
                },
            ])
    }
}
