import CPython
import Python

/// The struct of `_causeway._Handle` and `_causeway._TimerHandle`: a callback that an event loop is to call.
struct HandleObject {
    var head: PyObject
    var callback: PyPointer?
    /// The only argument, or a tuple of several.
    var arguments: PyPointer?
    /// How many arguments there are.
    var count: Int
    var context: PyPointer?
    /// When it is due, for a timer, in seconds; and the loop that it is of, which counts those that are cancelled. That
    /// is sure to be there while the handle is scheduled.
    var when: Double
    var core: Unmanaged<LoopCore>?
    var isCancelled: Bool
    /// It is in the loop's heap.
    var isScheduled: Bool

    /// Takes over the references to its parts.
    static func make(
        _ type: PyType, _ callback: PyPointer, _ arguments: UnsafePointer<PyPointer?>?, _ count: Int,
        _ context: consuming Object, reusing spare: PyPointer?
    ) throws(PythonError) -> Object {
        let object = try Object(spare ?? cpython_alloc_instance(type))
        let fields = object.pointer.cast(to: HandleObject.self)
        Py_IncRef(callback)
        fields.pointee.callback = callback
        fields.pointee.count = count
        fields.pointee.isCancelled = false
        fields.pointee.context = context.take()
        if count == 1 {
            let only = arguments?[0]
            Py_IncRef(only)
            fields.pointee.arguments = only
        } else if count > 1 {
            let tuple = try Object(PyTuple_New(count))
            for index in 0..<count {
                Py_IncRef(arguments?[index])
                PyTuple_SetItem(tuple.pointer, index, arguments?[index])
            }
            fields.pointee.arguments = tuple.take()
        }
        return object
    }

    /// Calls it in its context. Nil where that raised.
    @inline(__always)
    static func call(_ me: PyPointer) -> PyPointer? {
        let fields = me.cast(to: HandleObject.self)
        guard let callback = fields.pointee.callback, let context = fields.pointee.context else {
            return newNone()
        }
        // It may be cancelled, and let go of them, while they are used.
        Py_IncRef(callback)
        Py_IncRef(context)
        let arguments = fields.pointee.arguments
        Py_IncRef(arguments)
        defer {
            Py_DecRef(arguments)
            Py_DecRef(context)
            Py_DecRef(callback)
        }
        guard cpython_enter_context(context) == 0 else { return nil }
        let result: PyPointer?
        switch fields.pointee.count {
        case 0: result = PyObject_CallNoArgs(callback)
        case 1: result = arguments.flatMap { cpython_call1(callback, $0) }
        default: result = PyObject_Call(callback, arguments, nil)
        }
        if result == nil {
            // To leave a context clears what was raised where it fails; nothing else may be lost by it.
            let exception = Exception.take()
            _ = cpython_exit_context(context)
            exception?.restore()
            return nil
        }
        guard cpython_exit_context(context) == 0 else {
            Py_DecRef(result)
            return nil
        }
        return result
    }

    /// Lets go of what it would call.
    @inline(__always)
    static func clear(_ me: PyPointer) {
        let fields = me.cast(to: HandleObject.self)
        let callback = fields.pointee.callback
        let arguments = fields.pointee.arguments
        let context = fields.pointee.context
        fields.pointee.callback = nil
        fields.pointee.arguments = nil
        fields.pointee.context = nil
        fields.pointee.count = 0
        Py_DecRef(callback)
        Py_DecRef(arguments)
        Py_DecRef(context)
    }

    static func cancel(_ me: PyPointer) {
        let fields = me.cast(to: HandleObject.self)
        guard !fields.pointee.isCancelled else { return }
        fields.pointee.isCancelled = true
        if fields.pointee.isScheduled {
            fields.pointee.core?._withUnsafeGuaranteedRef { $0.timerCancelled() }
        }
        clear(me)
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try makeType(
            in: module, name: "_causeway._Handle", methods: commonMethods + [PyMethodDef()],
            doc: "A callback that an event loop is to call: what call_soon() returns.")
    }

    static func makeTimerType(in module: PyPointer) throws(PythonError) -> PyType {
        let when = method("when", "when($self, /)\n--\n\nWhen it is due, as loop.time() has it.") {
            me, _, _ in
            PyFloat_FromDouble(me?.cast(to: HandleObject.self).pointee.when ?? 0)
        }
        return try makeType(
            in: module, name: "_causeway._TimerHandle", methods: commonMethods + [when, PyMethodDef()],
            doc: "A callback that an event loop is to call later: what call_later() and call_at() return.")
    }

    private static func makeType(
        in module: PyPointer, name: StaticString, methods: [PyMethodDef], doc: StaticString
    ) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: name, HandleObject.self, flags: [.noConstructor, .immutable, .collected],
            slots: [
                slot(Py_tp_doc, doc: doc),
                slot(Py_tp_traverse) {
                    (me: PyPointer?, visit: visitproc?, argument: UnsafeMutableRawPointer?) -> Int32 in
                    guard let me, let visit else { return 0 }
                    // No array of them: Python looks at what is young every few hundred handles.
                    let fields = me.cast(to: HandleObject.self)
                    var result: Int32 = 0
                    if let part = fields.pointee.callback { result = visit(part, argument) }
                    if result == 0, let part = fields.pointee.arguments { result = visit(part, argument) }
                    if result == 0, let part = fields.pointee.context { result = visit(part, argument) }
                    if result == 0, let type = cpython_type(me) { result = visit(asObject(type), argument) }
                    return result
                },
                slot(Py_tp_clear) { (me: PyPointer?) -> Int32 in
                    if let me { HandleObject.clear(me) }
                    return 0
                },
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    PyObject_GC_UnTrack(me)
                    HandleObject.clear(me)
                    cpython_free_instance(me)
                },
                slot(Py_tp_repr) { (me: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        guard let me else { throw PythonError() }
                        let fields = me.cast(to: HandleObject.self).pointee
                        // As asyncio's own are shown.
                        let name = typeName(of: me).drop { $0 == "_" }
                        if fields.isCancelled { return try newString("<\(name) cancelled>").take() }
                        guard let callback = fields.callback else {
                            return try newString("<\(name) done>").take()
                        }
                        return try newString("<\(name) \(describe(callback))>").take()
                    }
                },
                slot(Py_tp_methods, table: methods),
                slot(
                    Py_tp_getset,
                    table: [
                        property("_cancelled", "Whether it was cancelled.") { me, _ in
                            newBool(me?.cast(to: HandleObject.self).pointee.isCancelled ?? true)
                        },
                        property("_callback", "What is to be called; None afterwards.") { me, _ in
                            Py_NewRef(me?.cast(to: HandleObject.self).pointee.callback ?? cpython_none())
                        },
                        property("_args", "The arguments, as a tuple; None afterwards.") { me, _ in
                            returning { () throws(PythonError) in
                                guard let fields = me?.cast(to: HandleObject.self).pointee,
                                    fields.callback != nil
                                else { return newNone() }
                                if fields.count > 1 { return Py_NewRef(fields.arguments) }
                                let tuple = try Object(PyTuple_New(fields.count))
                                if fields.count == 1 {
                                    PyTuple_SetItem(tuple.pointer, 0, Py_NewRef(fields.arguments))
                                }
                                return tuple.take()
                            }
                        },
                        PyGetSetDef(),
                    ]),
            ])
    }

    private static var commonMethods: [PyMethodDef] {
        [
            method("cancel", "cancel($self, /)\n--\n\nHave it not called. Any number of times.") { me, _, _ in
                if let me { HandleObject.cancel(me) }
                return newNone()
            },
            method("cancelled", "cancelled($self, /)\n--\n\nWhether it was cancelled.") { me, _, _ in
                newBool(me?.cast(to: HandleObject.self).pointee.isCancelled ?? true)
            },
            method(
                "get_context", "get_context($self, /)\n--\n\nThe contextvars.Context that it is called in."
            ) {
                me, _, _ in
                Py_NewRef(me?.cast(to: HandleObject.self).pointee.context ?? cpython_none())
            },
        ]
    }
}
