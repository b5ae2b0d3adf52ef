import Beam
import CErlNif
import CPython
import Python

/// The struct of `erlang.Pid`, `erlang.Ref` and `erlang.Term`: Erlang terms that Python can hold,
/// compare, print and give back, but not look into.
struct TermObject {
    var head: PyObject
    var term: Term
    /// Where the term lives: owned by this object, freed with it.
    var environment: EnvPointer?

    /// A new object that holds a copy of the term.
    static func make(_ type: PyType, _ term: Term) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        let environment = Environment()
        let fields = object.pointer.cast(to: TermObject.self)
        fields.pointee.term = environment.copy(term)
        fields.pointee.environment = environment.release()
        return object
    }

    /// The three types share everything but their names.
    static func makeType(in module: PyPointer, name: StaticString, doc: StaticString) throws(PythonError)
        -> PyType
    {
        try Python.makeType(
            in: module, name: name, TermObject.self, flags: [.noConstructor, .immutable],
            slots: [
                slot(Py_tp_doc, doc: doc),
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    _ = Environment(owning: me.cast(to: TermObject.self).pointee.environment)
                    cpython_free_instance(me)
                },
                slot(Py_tp_repr) { (me: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        guard let me else { throw PythonError() }
                        return try newString(TermObject.printed(me)).take()
                    }
                },
                slot(Py_tp_hash) { (me: PyPointer?) -> Int in
                    guard let me else { return 0 }
                    // -1 is how a hash function reports an error.
                    let hash = enif_hash(ERL_NIF_INTERNAL_HASH, me.cast(to: TermObject.self).pointee.term, 0)
                    return max(0, Int(truncatingIfNeeded: hash >> 1))
                },
                slot(Py_tp_richcompare) {
                    (me: PyPointer?, other: PyPointer?, operation: Int32) -> PyPointer? in
                    guard let me, let other, cpython_type(me) == cpython_type(other) else {
                        return newNotImplemented()
                    }
                    let order = enif_compare(
                        me.cast(to: TermObject.self).pointee.term,
                        other.cast(to: TermObject.self).pointee.term)
                    return compared(Int(order), operation)
                },
            ])
    }

    private static func printed(_ object: PyPointer) -> String {
        let text = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
            _ = cerlnif_format_term(buffer.baseAddress, 256, object.cast(to: TermObject.self).pointee.term)
            return buffer.baseAddress.map { String(cString: $0) } ?? ""
        }
        return "<erlang.\(typeName(of: object)) \(text)>"
    }
}
