import Beam
import CErlNif
import CPython
import Python
import Streams

/// Python objects to Erlang terms. With the GIL.
///
/// Objects that refer to themselves and structures that share parts so often that they would not fit
/// into memory when written out end in a `ValueError`; deep ones do so, or end in a `RecursionError` where the
/// thread has too little stack.
struct Encoder {
    /// How many terms one result may have.
    static let maximumTerms = 1 << 26
    /// What a term of any size counts as that is copied whole: it is not small.
    private static let anySize = 1 << 10

    let env: EnvPointer?
    let state: ModuleState
    /// How many it has made.
    private(set) var terms: Int
    private let stack: ThreadStack

    init(env: EnvPointer?, state: ModuleState) {
        self.env = env
        self.state = state
        terms = 0
        stack = .current
    }

    /// For a part of what another one converts.
    private init(env: EnvPointer?, partOf whole: Encoder) {
        self.env = env
        state = whole.state
        terms = whole.terms
        stack = whole.stack
    }

    /// The term for a borrowed object.
    mutating func term(_ object: PyPointer, depth: Int = 0) throws(PythonError) -> Term {
        guard depth < Decoder.maximumDepth else {
            throw valueError(
                "the Python object is nested more than \(Decoder.maximumDepth) levels deep, or contains itself"
            )
        }
        guard stack.hasRoom else { throw Decoder.stackIsUsedUp("Python object", depth) }
        terms += 1
        guard terms < Encoder.maximumTerms else {
            throw Encoder.tooLarge()
        }
        switch cpython_exact_kind(object) {
        case CPYTHON_INT: return try integer(object)
        case CPYTHON_STR: return try string(object)
        case CPYTHON_FLOAT: return float(object)
        case CPYTHON_BYTES: return try bytes(object)
        case CPYTHON_LIST: return try list(object, depth)
        case CPYTHON_TUPLE: return try tuple(object, depth)
        case CPYTHON_DICT: return try dict(object, depth)
        default: return try lessCommon(object, depth)
        }
    }

    private static func tooLarge() -> PythonError {
        valueError("the Python object becomes more than \(maximumTerms) Erlang terms")
    }

    /// Constants, subclasses, and what has no form of its own in Erlang.
    private mutating func lessCommon(_ object: PyPointer, _ depth: Int) throws(PythonError) -> Term {
        if object == cpython_none() { return atoms.none }
        if object == cpython_true() { return atoms.true }
        if object == cpython_false() { return atoms.false }
        if cpython_is_unicode(object) != 0 {
            if cpython_type(object) == state.atomType { return try AtomObject.term(env, object) }
            return try string(object)
        }
        if cpython_is_long(object) != 0 { return try integer(object) }
        if cpython_is_subtype_of(object, cpython_float_type()) != 0 { return float(object) }
        if cpython_is_bytes(object) != 0 { return try bytes(object) }
        if cpython_is_list(object) != 0 { return try list(object, depth) }
        if cpython_is_tuple(object) != 0 { return try tuple(object, depth) }
        if cpython_is_dict(object) != 0 { return try dict(object, depth) }
        return try other(object, depth)
    }

    private func string(_ object: PyPointer) throws(PythonError) -> Term {
        var size = 0
        guard let utf8 = PyUnicode_AsUTF8AndSize(object, &size) else { throw PythonError() }
        return try binary(UnsafeRawBufferPointer(start: utf8, count: size))
    }

    private func binary(_ bytes: UnsafeRawBufferPointer) throws(PythonError) -> Term {
        guard let term = makeBinary(env, bytes) else {
            throw valueError("no memory for a binary of \(bytes.count) bytes")
        }
        return term
    }

    private func bytes(_ object: PyPointer) throws(PythonError) -> Term {
        var start: UnsafeMutablePointer<CChar>?
        var size = 0
        guard PyBytes_AsStringAndSize(object, &start, &size) == 0 else { throw PythonError() }
        return try binary(UnsafeRawBufferPointer(start: start, count: size))
    }

    private mutating func integer(_ object: PyPointer) throws(PythonError) -> Term {
        var overflow: Int32 = 0
        let value = PyLong_AsLongLongAndOverflow(object, &overflow)
        if overflow != 0 {
            terms += Encoder.anySize
            return try BigInteger.encode(env, object)
        }
        return enif_make_long(env, Int(value))
    }

    private func float(_ object: PyPointer) -> Term {
        let value = PyFloat_AsDouble(object)
        if value.isNaN { return atoms.nan }
        if value.isInfinite { return value > 0 ? atoms.infinity : atoms.negInfinity }
        return enif_make_double(env, value)
    }

    private mutating func list(_ object: PyPointer, _ depth: Int) throws(PythonError) -> Term {
        try array(
            max(0, PyList_Size(object)), depth, { PyList_GetItem(object, $0) }, enif_make_list_from_array)
    }

    /// Converts elements one after the other, and makes a term of all of them at once: cell by cell it would be
    /// one piece of memory for every hundred cells.
    @inline(__always)
    private mutating func array(
        _ count: Int, _ depth: Int, _ element: (Int) -> PyPointer?,
        _ make: (EnvPointer?, UnsafePointer<Term>?, UInt32) -> Term
    ) throws(PythonError) -> Term {
        guard count < Encoder.maximumTerms else { throw Encoder.tooLarge() }
        let elements = UnsafeMutablePointer<Term>.allocate(capacity: count)
        defer { elements.deallocate() }
        for index in 0..<count {
            // Converting an element can run Python code, which can shrink a list: then there is none.
            guard let element = element(index) else { throw PythonError() }
            elements[index] = try retained(element, depth)
        }
        return make(env, elements, UInt32(truncatingIfNeeded: count))
    }

    /// Converts an element of a container that might let go of it meanwhile.
    @inline(__always)
    private mutating func retained(_ element: PyPointer, _ depth: Int) throws(PythonError) -> Term {
        // A number runs no Python code on its way: nobody can let go of it.
        if cpython_exact_kind(element) == CPYTHON_INT {
            terms += 1
            return try integer(element)
        }
        let element = Object(retaining: element)
        return try term(element.pointer, depth: depth + 1)
    }

    private mutating func tuple(_ object: PyPointer, _ depth: Int) throws(PythonError) -> Term {
        let count = max(0, PyTuple_Size(object))
        guard count < 1 << 24 else {
            throw valueError("a tuple of \(count) elements is too large for Erlang")
        }
        return try array(count, depth, { PyTuple_GetItem(object, $0) }, enif_make_tuple_from_array)
    }

    private mutating func dict(_ object: PyPointer, _ depth: Int) throws(PythonError) -> Term {
        if PyDict_Size(object) > LargeMap.threshold { return try largeDict(object, depth) }
        var keys: [Term] = []
        var values: [Term] = []
        var position = 0
        var key: PyPointer?
        var value: PyPointer?
        let size = PyDict_Size(object)
        while PyDict_Next(object, &position, &key, &value) != 0 {
            guard let key, let value else { throw PythonError() }
            let heldValue = Object(retaining: value)
            keys.append(try retained(key, depth))
            values.append(try term(heldValue.pointer, depth: depth + 1))
            guard PyDict_Size(object) == size else {
                throw runtimeError("a dict changed while it was converted")
            }
        }
        var map: Term = 0
        let made = keys.withUnsafeBufferPointer { keys in
            values.withUnsafeBufferPointer { values in
                enif_make_map_from_arrays(
                    env, UnsafeMutablePointer(mutating: keys.baseAddress),
                    UnsafeMutablePointer(mutating: values.baseAddress), keys.count, &map)
            }
        }
        guard made != 0 else { throw collision() }
        return map
    }

    /// A dict of more keys than the function above can be used for: see `LargeMap`.
    private mutating func largeDict(_ object: PyPointer, _ depth: Int) throws(PythonError) -> Term {
        var large = LargeMap()
        var position = 0
        var key: PyPointer?
        var value: PyPointer?
        let size = PyDict_Size(object)
        while PyDict_Next(object, &position, &key, &value) != 0 {
            guard let key, let value else { throw PythonError() }
            let heldValue = Object(retaining: value)
            var encoder = Encoder(env: large.env, partOf: self)
            let keyTerm = try encoder.retained(key, depth)
            let valueTerm = try encoder.term(heldValue.pointer, depth: depth + 1)
            terms = encoder.terms
            guard large.insert(keyTerm, valueTerm) else { throw collision() }
            guard PyDict_Size(object) == size else {
                throw runtimeError("a dict changed while it was converted")
            }
        }
        return large.finish(in: env)
    }

    private func collision() -> PythonError {
        valueError("two keys of a dict become the same Erlang term, as 'a' and b'a' do")
    }

    private mutating func other(_ object: PyPointer, _ depth: Int) throws(PythonError) -> Term {
        let type = cpython_type(object)
        if type == state.pidType || type == state.refType || type == state.termType {
            if type == state.termType { terms += Encoder.anySize }
            return enif_make_copy(env, object.cast(to: TermObject.self).pointee.term)
        }
        if cpython_is_subtype_of(object, state.channelType) != 0 {
            guard let term = ChannelObject.channel(object).term(env) else {
                throw valueError("no memory for a reference to a byte channel")
            }
            return term
        }
        if cpython_is_subtype_of(object, cpython_set_type()) != 0
            || cpython_is_subtype_of(object, cpython_frozenset_type()) != 0
        {
            let elements = try Object(PySequence_List(object))
            return try list(elements.pointer, depth)
        }
        if let term = try bytesLike(object) { return term }
        if let term = try index(object) { return term }
        return try reference(object)
    }

    /// `bytearray`, `memoryview` and whatever else is one row of single bytes.
    private func bytesLike(_ object: PyPointer) throws(PythonError) -> Term? {
        guard PyObject_CheckBuffer(object) != 0 else { return nil }
        var view = Py_buffer()
        guard PyObject_GetBuffer(object, &view, PyBUF_FULL_RO) == 0 else {
            // A released memoryview, or a type that exports to nobody: not bytes-like now.
            PyErr_Clear()
            return nil
        }
        defer { PyBuffer_Release(&view) }
        guard view.itemsize == 1, view.ndim == 1,
            PyBuffer_IsContiguous(&view, CChar(bitPattern: UInt8(ascii: "C"))) != 0
        else {
            if type(object, is: cpython_memoryview_type()) { return try copied(view) }
            return nil
        }
        return try binary(UnsafeRawBufferPointer(start: view.buf, count: view.len))
    }

    /// The bytes of a memoryview with gaps or larger items, in the order of `tobytes()`.
    private func copied(_ view: Py_buffer) throws(PythonError) -> Term {
        var view = view
        let bytes = try Object(PyBytes_FromStringAndSize(nil, view.len))
        var start: UnsafeMutablePointer<CChar>?
        var size = 0
        guard PyBytes_AsStringAndSize(bytes.pointer, &start, &size) == 0,
            PyBuffer_ToContiguous(start, &view, view.len, CChar(bitPattern: UInt8(ascii: "C"))) == 0
        else { throw PythonError() }
        return try self.bytes(bytes.pointer)
    }

    private func type(_ object: PyPointer, is type: PyType?) -> Bool { cpython_type(object) == type }

    /// Numbers that are not `int` but stand for one, such as numpy's.
    private mutating func index(_ object: PyPointer) throws(PythonError) -> Term? {
        guard PyIndex_Check(object) != 0 else { return nil }
        guard let number = PyNumber_Index(object) else {
            // An array has __index__ too, and refuses: it is an object like any other.
            guard PyErr_ExceptionMatches(cpython_TypeError()) != 0 else { throw PythonError() }
            PyErr_Clear()
            return nil
        }
        let held = Object(owning: number)
        return try integer(held.pointer)
    }

    /// The term for an object, nil where that is only a reference to it.
    mutating func ownForm(_ object: PyPointer) throws(PythonError) -> Term? {
        let term = try self.term(object)
        return resourceTypes.object.object(env, term) == nil ? term : nil
    }

    /// A reference to an object, also where it has a form of its own in Erlang.
    func reference(_ object: PyPointer) throws(PythonError) -> Term {
        guard
            let term = resourceTypes.object.makeTerm(env, ObjectReference(object, leftovers: state.leftovers))
        else {
            throw valueError("no memory for a reference to a Python object")
        }
        return term
    }
}
