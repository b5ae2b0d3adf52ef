import Beam
import CPython
import Python

/// `erlang.Atom`: a `str` that becomes an atom in Erlang.
enum AtomObject {
    /// How many atoms Python may add to a node, which has room for a million by default and ends when it is full.
    private static let limit = 100_000

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeSubtype(
            in: module, of: cpython_unicode_type(), name: "erlang.Atom",
            slots: [
                slot(
                    Py_tp_doc,
                    doc: "Atom(name)\n--\n\nA str of at most 255 characters that becomes an atom in Erlang."),
                slot(Py_tp_repr) { (me: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        let plain = try Object(PyObject_Str(me))
                        let repr = try Object(PyObject_Repr(plain.pointer))
                        return try newString("erlang.Atom(\(try text(of: repr.pointer)))").take()
                    }
                },
            ])
    }

    /// The atom of that name, made where it is not there yet.
    static func term(_ env: EnvPointer?, _ object: PyPointer) throws(PythonError) -> Term {
        let name = try text(of: object)
        if let known = existingAtom(env, name) { return known }
        guard name.unicodeScalars.count <= 255 else {
            throw valueError("an atom has at most 255 characters, not \(name.unicodeScalars.count)")
        }
        guard ModuleState.newAtoms.load(ordering: .relaxed) < limit else {
            throw valueError(
                "Python has made \(limit) atoms in this node, which are never freed: use str, which becomes a binary"
            )
        }
        guard let made = makeAtom(env, name) else { throw valueError("no atom can have the name \(name)") }
        count(ModuleState.newAtoms)
        return made
    }
}
