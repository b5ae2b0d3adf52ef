import Beam
import CErlNif
import CPython
import Python

/// Gives what a call takes from an iterator to the outbox of its stream.
struct StreamEmitter {
    let call: Call
    let outbox: StreamOutbox
    let state: ModuleState

    /// False where nobody wants it any more.
    func emit(_ item: PyPointer) throws(PythonError) -> Bool {
        guard !call.isCancelled else { return false }
        return try outbox.add(item, to: call.caller, state)  // the relay is who has made the call
    }
}

/// The struct of `_causeway._StreamEmitter`: the same as a function of Python's.
struct StreamEmitterObject {
    /// What the object owns.
    private final class Holder {
        let emitter: StreamEmitter
        init(_ emitter: StreamEmitter) { self.emitter = emitter }
    }

    var head: PyObject
    private var holder: Unmanaged<Holder>?

    static func make(_ type: PyType, _ emitter: StreamEmitter) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        object.pointer.cast(to: StreamEmitterObject.self).pointee.holder = .passRetained(Holder(emitter))
        return object
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._StreamEmitter", StreamEmitterObject.self,
            flags: [.noConstructor, .immutable],
            slots: [
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    me.cast(to: StreamEmitterObject.self).pointee.holder?.release()
                    cpython_free_instance(me)
                },
                slot(Py_tp_call) { (me: PyPointer?, arguments: PyPointer?, _: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        let holder = me?.cast(to: StreamEmitterObject.self).pointee.holder
                        guard let emitter = holder?.takeUnretainedValue().emitter,
                            PyTuple_Size(arguments) == 1, let item = PyTuple_GetItem(arguments, 0)
                        else { throw typeError("an item is needed") }
                        return newBool(try emitter.emit(item))
                    }
                },
            ])
    }
}
