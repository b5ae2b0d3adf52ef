import Beam
import CErlNif
import CPython
import Python

/// Sends what a task takes from an asynchronous iterator to the consumer of a stream.
final class StreamEmitter {
    private let call: Call
    private let consumer: ErlNifPid
    private let held = Environment()
    private let message = Environment()
    private let reference: Term
    private let state: ModuleState

    init(_ call: Call, _ consumer: ErlNifPid, _ reference: Term, _ state: ModuleState) {
        self.call = call
        self.consumer = consumer
        self.state = state
        self.reference = held.copy(reference)
    }

    /// False where nobody wants it any more.
    func emit(_ item: PyPointer) throws(PythonError) -> Bool {
        var encoder = Encoder(env: message.pointer, state: state)
        let data = makeTuple(message.pointer, atoms.data, try encoder.term(item))
        let event = makeTuple(message.pointer, atoms.pyStream, message.copy(reference), data)
        return call.deliver { send(to: consumer, message, event) }
    }
}

/// The struct of `_causeway._StreamEmitter`: the same as a function of Python's.
struct StreamEmitterObject {
    var head: PyObject
    private var reference: Unmanaged<StreamEmitter>?

    static func make(_ type: PyType, _ emitter: StreamEmitter) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        object.pointer.cast(to: StreamEmitterObject.self).pointee.reference = .passRetained(emitter)
        return object
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._StreamEmitter", StreamEmitterObject.self,
            flags: [.noConstructor, .immutable],
            slots: [
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    me.cast(to: StreamEmitterObject.self).pointee.reference?.release()
                    cpython_free_instance(me)
                },
                slot(Py_tp_call) { (me: PyPointer?, arguments: PyPointer?, _: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        let reference = me?.cast(to: StreamEmitterObject.self).pointee.reference
                        guard let emitter = reference?.takeUnretainedValue(), PyTuple_Size(arguments) == 1,
                            let item = PyTuple_GetItem(arguments, 0)
                        else { throw typeError("an item is needed") }
                        return newBool(try emitter.emit(item))
                    }
                },
            ])
    }
}
