import Beam
import CErlNif
import CPython
import Python
import Streams

/// Erlang terms to Python objects. With the GIL.
///
/// Deep terms end in a `ValueError`, or where the thread has too little stack in a `RecursionError`.
struct Decoder {
    /// How deep terms may be nested in either direction. A frame takes under 1 KB of the 16 MB stack
    /// of a context thread, which Python's own recursion shares; other threads may have less.
    static let maximumDepth = 4096

    let env: EnvPointer?
    let state: ModuleState
    private let stack = ThreadStack.current

    init(env: EnvPointer?, state: ModuleState) {
        self.env = env
        self.state = state
    }

    /// The object for a term, as a new reference.
    func object(_ term: Term, depth: Int = 0) throws(PythonError) -> Object {
        guard depth < Decoder.maximumDepth else {
            throw valueError("the Erlang term is nested more than \(Decoder.maximumDepth) levels deep")
        }
        guard stack.hasRoom else { throw Decoder.stackIsUsedUp("Erlang term", depth) }
        switch enif_term_type(env, term) {
        case ERL_NIF_TERM_TYPE_ATOM: return try atom(term)
        case ERL_NIF_TERM_TYPE_INTEGER: return try integer(term)
        case ERL_NIF_TERM_TYPE_BITSTRING: return try binary(term)
        case ERL_NIF_TERM_TYPE_FLOAT:
            var value = 0.0
            _ = enif_get_double(env, term, &value)
            return try Object(PyFloat_FromDouble(value))
        case ERL_NIF_TERM_TYPE_LIST: return try list(term, depth)
        case ERL_NIF_TERM_TYPE_TUPLE: return try tuple(term, depth)
        case ERL_NIF_TERM_TYPE_MAP: return try map(term, depth)
        case ERL_NIF_TERM_TYPE_PID: return try TermObject.make(state.pidType, term)
        case ERL_NIF_TERM_TYPE_REFERENCE: return try reference(term)
        default: return try TermObject.make(state.termType, term)
        }
    }

    /// What a conversion throws at that depth in either direction.
    static func stackIsUsedUp(_ what: String, _ depth: Int) -> PythonError {
        raised(
            cpython_RecursionError(),
            "the \(what) is nested too deep for the stack of this thread, which is used up at level \(depth): "
                + "threading.stack_size(16 << 20) gives new threads a larger one")
    }

    private func atom(_ term: Term) throws(PythonError) -> Object {
        switch term {
        case atoms.true: return Object(owning: newBool(true))
        case atoms.false: return Object(owning: newBool(false))
        case atoms.none, atoms.nil, atoms.undefined: return Object(owning: newNone())
        case atoms.nan: return try Object(PyFloat_FromDouble(.nan))
        case atoms.infinity: return try Object(PyFloat_FromDouble(.infinity))
        case atoms.negInfinity: return try Object(PyFloat_FromDouble(-.infinity))
        default: return try name(ofAtom: term)
        }
    }

    /// The name of an atom as an interned `str`.
    func name(ofAtom term: Term) throws(PythonError) -> Object {
        if let known = state.atomNames[term] { return Object(retaining: known) }
        guard let name = atomName(env, term) else { throw valueError("an atom has no readable name") }
        var made: PyPointer? = try newString(name).take()
        PyUnicode_InternInPlace(&made)
        let interned = try Object(made)
        state.remember(atom: term, as: interned.pointer)
        return interned
    }

    private func integer(_ term: Term) throws(PythonError) -> Object {
        var signed = 0
        if enif_get_long(env, term, &signed) != 0 { return try Object(PyLong_FromLong(signed)) }
        var unsigned: UInt = 0
        if enif_get_ulong(env, term, &unsigned) != 0 { return try Object(PyLong_FromUnsignedLong(unsigned)) }
        let made = withBigInteger(env, term) { isNegative, magnitude -> PyPointer? in
            returning { () throws(PythonError) in
                try BigInteger.decode(isNegative: isNegative, magnitude: magnitude).take()
            }
        }
        guard let made else { throw valueError("an Erlang integer could not be read") }
        return try Object(made)
    }

    private func binary(_ term: Term) throws(PythonError) -> Object {
        var binary = ErlNifBinary()
        guard enif_inspect_binary(env, term, &binary) != 0 else {
            throw valueError("a bitstring whose length is not a whole number of bytes has no Python form")
        }
        let bytes = UnsafeRawBufferPointer(start: binary.data, count: binary.size)
        state.decodedBytes &+= bytes.count
        // Most binary data is not UTF-8 within its first bytes. Found out here it costs nothing;
        // Python's decoder would copy everything into an exception.
        if startsAsUTF8(bytes), let base = bytes.baseAddress {
            if bytes.count >= LargeASCII.threshold, let string = LargeASCII.string(bytes) { return string }
            if let string = PyUnicode_DecodeUTF8(base.assumingMemoryBound(to: CChar.self), bytes.count, nil) {
                return Object(owning: string)
            }
            guard PyErr_ExceptionMatches(cpython_UnicodeDecodeError()) != 0 else { throw PythonError() }
            PyErr_Clear()
        } else if bytes.isEmpty {
            return try Object(PyUnicode_FromString(""))
        }
        return try newBytes(bytes)
    }

    /// Whether the first bytes could be the beginning of UTF-8 text.
    private func startsAsUTF8(_ bytes: UnsafeRawBufferPointer) -> Bool {
        if bytes.isEmpty { return false }
        var index = 0
        let end = min(bytes.count, 1024)
        while index < end {
            let lead = bytes[index]
            let following =
                switch lead {
                case 0x00...0x7F: 0
                case 0xC2...0xDF: 1
                case 0xE0...0xEF: 2
                case 0xF0...0xF4: 3
                default: -1
                }
            guard following >= 0, index + following < bytes.count else { return false }
            index += 1
            for _ in 0..<following {
                guard bytes[index] & 0xC0 == 0x80 else { return false }
                index += 1
            }
        }
        return true
    }

    private func list(_ term: Term, _ depth: Int) throws(PythonError) -> Object {
        var length: UInt32 = 0
        guard enif_get_list_length(env, term, &length) != 0 else {
            throw valueError("an improper list has no Python form")
        }
        state.decodedBytes &+= 16 &* Int(length)
        let list = try Object(PyList_New(Int(length)))
        var rest = term
        var head: Term = 0
        var index = 0
        // Lists mostly hold one kind of element: after a small integer the next is tried as one first.
        var number = 0
        var followsNumber = true
        while enif_get_list_cell(env, rest, &head, &rest) != 0 {
            followsNumber = followsNumber && enif_get_long(env, head, &number) != 0
            let element =
                followsNumber ? try Object(PyLong_FromLong(number)) : try object(head, depth: depth + 1)
            // PyList_SetItem takes the reference over.
            PyList_SetItem(list.pointer, index, element.take())
            index += 1
        }
        return list
    }

    private func tuple(_ term: Term, _ depth: Int) throws(PythonError) -> Object {
        var arity: Int32 = 0
        var elements: UnsafePointer<Term>?
        guard enif_get_tuple(env, term, &arity, &elements) != 0 else { throw PythonError() }
        if arity == 0 { return try Object(PyTuple_New(0)) }
        guard let elements else { throw valueError("an Erlang tuple could not be read") }
        if arity == 2, elements[0] == atoms.bytes, enif_is_binary(env, elements[1]) != 0 {
            return try bytes(elements[1])
        }
        return try tuple(elements, Int(arity), depth)
    }

    /// A Python tuple of terms that stand side by side.
    func tuple(_ elements: UnsafePointer<Term>, _ count: Int, _ depth: Int) throws(PythonError) -> Object {
        let tuple = try Object(PyTuple_New(count))
        for index in 0..<count {
            PyTuple_SetItem(tuple.pointer, index, try object(elements[index], depth: depth + 1).take())
        }
        return tuple
    }

    private func bytes(_ term: Term) throws(PythonError) -> Object {
        let made = withBinary(env, term) { bytes in
            returning { () throws(PythonError) in try newBytes(bytes).take() }
        }
        return try Object(made ?? nil)
    }

    private func map(_ term: Term, _ depth: Int) throws(PythonError) -> Object {
        let dict = try Object(PyDict_New())
        var iterator = ErlNifMapIterator()
        guard enif_map_iterator_create(env, term, &iterator, ERL_NIF_MAP_ITERATOR_FIRST) != 0 else {
            throw valueError("an Erlang map could not be read")
        }
        defer { enif_map_iterator_destroy(env, &iterator) }
        var key: Term = 0
        var value: Term = 0
        var size = 0
        while enif_map_iterator_get_pair(env, &iterator, &key, &value) != 0 {
            let pythonKey = try object(key, depth: depth + 1)
            let pythonValue = try object(value, depth: depth + 1)
            guard PyDict_SetItem(dict.pointer, pythonKey.pointer, pythonValue.pointer) == 0 else {
                throw PythonError()
            }
            size += 1
            // `a` and <<"a">> are two keys in Erlang and one in Python: nothing is lost silently.
            guard PyDict_Size(dict.pointer) == size else {
                throw valueError(
                    "two keys of an Erlang map become the same Python key \(printed(pythonKey.pointer))")
            }
            _ = enif_map_iterator_next(env, &iterator)
        }
        return dict
    }

    private func printed(_ object: PyPointer) -> String {
        guard let repr = PyObject_Repr(object) else {
            PyErr_Clear()
            return ""
        }
        defer { Py_DecRef(repr) }
        return describe(repr)
    }

    private func reference(_ term: Term) throws(PythonError) -> Object {
        if let reference = resourceTypes.object.object(env, term) {
            guard !reference.isGone else {
                throw valueError(
                    "a reference to an object of a context that has stopped, whose interpreter was its own")
            }
            guard reference.belongs(to: state) else {
                throw valueError(
                    "a reference to an object of another Python interpreter: use it in the context that it came "
                        + "from, or convert the object there with py:to_term/2")
            }
            return Object(retaining: reference.pointer)
        }
        if let handle = resourceTypes.channel.object(env, term) {
            state.decodedChannels += 1
            return try ChannelObject.make(state.channelTypes().channel, handle.channel)
        }
        if let half = resourceTypes.rpcHalf.object(env, term) {
            return try RpcHalfObject.make(state.rpcHalfType, half.half)
        }
        return try TermObject.make(state.refType, term)
    }
}
