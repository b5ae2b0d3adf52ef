import CPython
import Python

/// The struct of `_causeway._CallbackWaiter`: an Erlang function that a task of asyncio waits for.
struct CallbackWaiterObject {
    var head: PyObject
    private var callback: Unmanaged<Callback>?

    static func make(_ type: PyType, _ callback: Callback) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        object.pointer.cast(to: CallbackWaiterObject.self).pointee.callback = .passRetained(callback)
        return object
    }

    private static func callback(_ me: PyPointer?) -> Callback? {
        me?.cast(to: CallbackWaiterObject.self).pointee.callback?.takeUnretainedValue()
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._CallbackWaiter", CallbackWaiterObject.self,
            flags: [.noConstructor, .immutable],
            slots: [
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    if let callback = CallbackWaiterObject.callback(me) { CallbackModule.abandon(callback) }
                    me.cast(to: CallbackWaiterObject.self).pointee.callback?.release()
                    cpython_free_instance(me)
                },
                slot(Py_tp_methods, table: methods),
                slot(
                    Py_tp_getset,
                    table: [
                        property("settled", "Whether the wait is over.") { me, _ in
                            newBool(CallbackWaiterObject.callback(me)?.outcome != nil)
                        }, PyGetSetDef(),
                    ]),
            ])
    }

    private static var methods: [PyMethodDef] {
        [
            method("finish", "finish($self, /)\n--\n\nWhat the function has come to, as of _call().") {
                me, _, _ in
                returning { () throws(PythonError) in
                    guard let me, let callback = CallbackWaiterObject.callback(me), callback.outcome != nil
                    else {
                        throw runtimeError("nothing has happened yet")
                    }
                    return try CallbackModule.answer(of: callback, try ModuleState.of(instance: me)).take()
                }
            },
            method("cancel", "cancel($self, /)\n--\n\nWait no more: the process of the function is ended.") {
                me, _, _ in
                if let callback = CallbackWaiterObject.callback(me) { CallbackModule.abandon(callback) }
                return newNone()
            },
            PyMethodDef(),
        ]
    }
}
