import CPython
import Python

/// The functions of `_causeway` by which `erlang._introspection` sees what Erlang keeps alive.
enum ObjectModule {
    static var functions: [PyMethodDef] {
        [
            method(
                "_held",
                "_held($module, /)\n--\n\nWhat Erlang keeps alive in this interpreter.\n\nReturns the number of references, a list of the objects, each once, and the number of\nprocesses with names of their own."
            ) { module, _, _ in
                returning { () throws(PythonError) in
                    let state = try ModuleState.required(module)
                    let held = state.leftovers.held
                    let result = try Object(PyTuple_New(3))
                    PyTuple_SetItem(result.pointer, 0, try Object(PyLong_FromLong(held.count)).take())
                    PyTuple_SetItem(result.pointer, 1, try held.objects().take())
                    PyTuple_SetItem(
                        result.pointer, 2, try Object(PyLong_FromLong(state.namespaces.count)).take())
                    return result.take()
                }
            }
        ]
    }
}
