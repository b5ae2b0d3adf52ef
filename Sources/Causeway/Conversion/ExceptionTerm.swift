import Beam
import CErlNif
import CPython
import Python

/// Python exceptions as Erlang terms. With the GIL.
struct ExceptionTerm {
    let env: EnvPointer?
    let state: ModuleState

    /// `{error, {'TypeName', "text"}}` or `{error, #{type, message, …}}` for the current exception, which
    /// is cleared.
    func errorTerm(_ form: Call.ErrorForm) -> Term {
        guard let exception = Exception.take() else {
            return makeError(env, pair("SystemError", "a call failed without an exception"))
        }
        switch form {
        case .pair: return makeError(env, pair(of: exception.value.pointer))
        case .map: return makeError(env, map(of: exception.value.pointer))
        }
    }

    private func pair(of exception: PyPointer) -> Term {
        makeTuple(env, typeAtom(exception), makeCharacterList(env, describe(exception)))
    }

    private func pair(_ type: String, _ message: String) -> Term {
        makeTuple(env, makeAtom(env, type) ?? atoms.error, makeCharacterList(env, message))
    }

    /// The whole exception: type, message, traceback (outermost call first) and cause.
    func map(of exception: PyPointer) -> Term {
        do throws(PythonError) {
            let describe = try state.exceptionDescriber()
            let description = try Object(cpython_call1(describe, exception))
            return try map(description: description.pointer, exception: exception)
        } catch {
            // Out of memory or recursion while describing: what can be had without Python code.
            PyErr_Clear()
            return makeMap(
                env,
                [
                    (atoms.type, typeAtom(exception)), (atoms.message, makeBinary(env, describe(exception))),
                    (atoms.traceback, makeList(env, [])), (atoms.cause, atoms.none),
                ])
        }
    }

    /// From what `erlang._errors.describe` returns: (message, [(file, line, function, code), …],
    /// [cause's exception, cause's description] or None).
    private func map(description: PyPointer, exception: PyPointer) throws(PythonError) -> Term {
        var encoder = Encoder(env: env, state: state)
        guard let message = PyTuple_GetItem(description, 0), let frames = PyTuple_GetItem(description, 1),
            let cause = PyTuple_GetItem(description, 2)
        else { throw PythonError() }
        let traceback = try self.frames(frames)
        var causeTerm = atoms.none
        if cause != cpython_none() {
            guard let inner = PyTuple_GetItem(cause, 0), let innerDescription = PyTuple_GetItem(cause, 1)
            else { throw PythonError() }
            causeTerm = try map(description: innerDescription, exception: inner)
        }
        return makeMap(
            env,
            [
                (atoms.type, typeAtom(exception)), (atoms.message, try encoder.term(message)),
                (atoms.traceback, traceback), (atoms.cause, causeTerm),
            ])
    }

    /// A list of `(file, line, function, code)` as maps.
    func frames(_ frames: PyPointer) throws(PythonError) -> Term {
        var encoder = Encoder(env: env, state: state)
        var terms: [Term] = []
        for index in 0..<max(0, PyList_Size(frames)) {
            guard let frame = PyList_GetItem(frames, index) else { throw PythonError() }
            terms.append(try self.frame(frame, &encoder))
        }
        return makeList(env, terms)
    }

    private func frame(_ frame: PyPointer, _ encoder: inout Encoder) throws(PythonError) -> Term {
        var pairs: [(Term, Term)] = []
        for (index, key) in [atoms.file, atoms.line, atoms.function, atoms.code].enumerated() {
            guard let value = PyTuple_GetItem(frame, index) else { throw PythonError() }
            pairs.append((key, try encoder.term(value)))
        }
        return makeMap(env, pairs)
    }

    /// The name of an exception's class as an atom.
    ///
    /// Atoms are never collected, and code can make classes without end: beyond a number of new names
    /// the nearest base class that has an atom already stands for the class.
    private func typeAtom(_ exception: PyPointer) -> Term {
        let name = typeName(of: exception)
        if let known = existingAtom(env, name) { return known }
        let isAllowed = isBuiltin(exception) || ModuleState.exceptionNames.load(ordering: .relaxed) < 10_000
        if isAllowed, let made = makeAtom(env, name) {
            count(ModuleState.exceptionNames)
            return made
        }
        return baseAtom(exception) ?? atoms.error
    }

    /// Of Python's own exceptions there are some seventy.
    private func isBuiltin(_ exception: PyPointer) -> Bool {
        guard let type = cpython_type(exception),
            let module = PyObject_GetAttrString(asObject(type), "__module__")
        else {
            PyErr_Clear()
            return false
        }
        defer { Py_DecRef(module) }
        return describe(module) == "builtins"
    }

    private func baseAtom(_ exception: PyPointer) -> Term? {
        guard let type = cpython_type(exception),
            let order = PyObject_GetAttrString(asObject(type), "__mro__")
        else {
            PyErr_Clear()
            return nil
        }
        defer { Py_DecRef(order) }
        for index in 0..<max(0, PyTuple_Size(order)) {
            guard let base = PyTuple_GetItem(order, index), let name = PyType_GetName(asType(base)) else {
                break
            }
            defer { Py_DecRef(name) }
            if let utf8 = try? text(of: name), let known = existingAtom(env, utf8) { return known }
        }
        PyErr_Clear()
        return nil
    }
}
