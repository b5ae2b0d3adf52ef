import CPlatform
import CPython
import Glibc
import Python
import Streams

/// The struct of `erlang.reactor.ReactorBuffer`: bytes that were read without the GIL, shown to Python
/// without a copy.
///
/// The reactor reuses a buffer after the callback where nobody else refers to it. Otherwise it gives it
/// away: memory that a memoryview shows never moves and never changes.
struct ReactorBuffer {
    var head: PyObject
    var base: UnsafeMutableRawPointer?
    var count: Int
    var capacity: Int
    /// How many views there are.
    var exports: Int
    /// Whose memory it is; nil where it is the buffer's own.
    var owner: Unmanaged<AnyObject>?

    /// A buffer with room for `capacity` bytes.
    static func make(_ type: PyType, capacity: Int) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        guard let memory = malloc(max(1, capacity)) else { throw PythonError.outOfMemory() }
        let fields = object.pointer.cast(to: ReactorBuffer.self)
        fields.pointee.base = memory
        fields.pointee.capacity = capacity
        return object
    }

    /// A buffer with a copy of bytes.
    static func make(_ type: PyType, of bytes: UnsafeRawBufferPointer) throws(PythonError) -> Object {
        let object = try make(type, capacity: bytes.count)
        let fields = object.pointer.cast(to: ReactorBuffer.self)
        if let base = fields.pointee.base, let source = bytes.baseAddress {
            base.copyMemory(from: source, byteCount: bytes.count)
        }
        fields.pointee.count = bytes.count
        return object
    }

    /// A buffer that shows the bytes of a message, without a copy.
    static func make(_ type: PyType, of message: Payload) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        let fields = object.pointer.cast(to: ReactorBuffer.self)
        // Only ever read: the buffers that are written to are those that the reactor has made.
        fields.pointee.base = UnsafeMutableRawPointer(mutating: message.bytes.baseAddress)
        fields.pointee.count = message.count
        fields.pointee.capacity = message.count
        fields.pointee.owner = .passRetained(message.keeper)
        return object
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "erlang.reactor.ReactorBuffer", ReactorBuffer.self, flags: [.immutable],
            slots: [
                slot(
                    Py_tp_doc,
                    doc:
                        "ReactorBuffer(data=b'', /)\n--\n\nBytes as the reactor has read them.\n\nBehaves as bytes, and shows its memory without a copy through the buffer\nprotocol. It has all read-only methods of bytes."
                ),
                slot(Py_tp_new) {
                    (type: PyType?, arguments: PyPointer?, keywords: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        try ReactorBuffer.new(type, arguments, keywords).take()
                    }
                },
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    let fields = me.cast(to: ReactorBuffer.self)
                    if let owner = fields.pointee.owner { owner.release() } else { free(fields.pointee.base) }
                    cpython_free_instance(me)
                },
                slot(Py_tp_repr) { (me: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in try ReactorBuffer.repr(me).take() }
                },
                slot(Py_tp_hash) { (me: PyPointer?) -> Int in
                    // A hash of -1 says that an error is set.
                    guard let copy = try? ReactorBuffer.copy(me) else { return -1 }
                    return PyObject_Hash(copy.pointer)
                },
                slot(Py_tp_richcompare) {
                    (me: PyPointer?, other: PyPointer?, operation: Int32) -> PyPointer? in
                    returning { () throws(PythonError) in try ReactorBuffer.compare(me, other, operation) }
                },
                slot(Py_tp_iter) { (me: PyPointer?) -> PyPointer? in PySeqIter_New(me) },
                slot(Py_sq_length) { (me: PyPointer?) -> Int in ReactorBuffer.bytes(me).count },
                slot(Py_sq_item) { (me: PyPointer?, index: Int) -> PyPointer? in ReactorBuffer.item(me, index)
                },
                slot(Py_sq_contains) { (me: PyPointer?, element: PyPointer?) -> Int32 in
                    do throws(PythonError) { return try ReactorBuffer.contains(me, element) ? 1 : 0 } catch {
                        return -1
                    }
                },
                slot(Py_sq_concat) { (me: PyPointer?, other: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        let copy = try ReactorBuffer.copy(me)
                        return try Object(PySequence_Concat(copy.pointer, other)).take()
                    }
                },
                slot(Py_sq_repeat) { (me: PyPointer?, times: Int) -> PyPointer? in
                    returning { () throws(PythonError) in
                        let copy = try ReactorBuffer.copy(me)
                        return try Object(PySequence_Repeat(copy.pointer, times)).take()
                    }
                },
                slot(Py_nb_remainder) { (left: PyPointer?, right: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in try ReactorBuffer.remainder(left, right) }
                },
                slot(Py_mp_length) { (me: PyPointer?) -> Int in ReactorBuffer.bytes(me).count },
                slot(Py_mp_subscript) { (me: PyPointer?, key: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in try ReactorBuffer.subscripted(me, key).take() }
                },
                slot(Py_bf_getbuffer) {
                    (me: PyPointer?, view: UnsafeMutablePointer<Py_buffer>?, flags: Int32) -> Int32 in
                    guard let me else { return -1 }
                    let fields = me.cast(to: ReactorBuffer.self)
                    let result = PyBuffer_FillInfo(
                        view, me, fields.pointee.base, fields.pointee.count, 1, flags)
                    if result == 0 { fields.pointee.exports += 1 }
                    return result
                },
                slot(Py_bf_releasebuffer) { (me: PyPointer?, _: UnsafeMutablePointer<Py_buffer>?) -> Void in
                    me?.cast(to: ReactorBuffer.self).pointee.exports -= 1
                },
                slot(Py_tp_methods, table: methods),
            ])
    }

    private static var methods: [PyMethodDef] {
        [
            method(
                "memoryview",
                "memoryview($self, /)\n--\n\nA view of the bytes, without a copy. It stays valid and unchanged."
            ) { me, _, _ in
                PyMemoryView_FromObject(me)
            },
            method("__bytes__", "__bytes__($self, /)\n--\n\nA copy as bytes.") { me, _, _ in
                returning { () throws(PythonError) in try ReactorBuffer.copy(me).take() }
            },
            method(
                "__reduce__",
                "__reduce__($self, /)\n--\n\nCopies and pickles as a ReactorBuffer of the same bytes."
            ) { me, _, _ in
                returning { () throws(PythonError) in try ReactorBuffer.reduced(me).take() }
            },
            // Those that protocols use most look at the memory itself.
            method(
                "find",
                asBytes: { me, arguments, count, names in
                    guard let argument = ReactorBuffer.single(arguments, count, names) else {
                        return ReactorBuffer.delegate(me, "find", arguments, count, names)
                    }
                    return returning { () throws(PythonError) in
                        let index = try withBuffer(argument) { sub throws(PythonError) in
                            find(sub, in: ReactorBuffer.bytes(me))
                        }
                        return try Object(PyLong_FromLong(index ?? -1)).take()
                    }
                }),
            method(
                "startswith",
                asBytes: { me, arguments, count, names in
                    guard let argument = ReactorBuffer.single(arguments, count, names) else {
                        return ReactorBuffer.delegate(me, "startswith", arguments, count, names)
                    }
                    return returning { () throws(PythonError) in
                        let all = ReactorBuffer.bytes(me)
                        return newBool(
                            try withBuffer(argument) { prefix throws(PythonError) in
                                prefix.count <= all.count && order(prefix, all, prefix.count) == 0
                            })
                    }
                }),
            method(
                "endswith",
                asBytes: { me, arguments, count, names in
                    guard let argument = ReactorBuffer.single(arguments, count, names) else {
                        return ReactorBuffer.delegate(me, "endswith", arguments, count, names)
                    }
                    return returning { () throws(PythonError) in
                        let all = ReactorBuffer.bytes(me)
                        return newBool(
                            try withBuffer(argument) { suffix throws(PythonError) in
                                guard suffix.count <= all.count else { return false }
                                let end = UnsafeRawBufferPointer(rebasing: all[(all.count - suffix.count)...])
                                return order(suffix, end, suffix.count) == 0
                            })
                    }
                }),
            // The others are those of bytes(self). A C function cannot hold a name: each has a line.
            method("capitalize", asBytes: { ReactorBuffer.delegate($0, "capitalize", $1, $2, $3) }),
            method("center", asBytes: { ReactorBuffer.delegate($0, "center", $1, $2, $3) }),
            method("count", asBytes: { ReactorBuffer.delegate($0, "count", $1, $2, $3) }),
            method("decode", asBytes: { ReactorBuffer.delegate($0, "decode", $1, $2, $3) }),
            method("expandtabs", asBytes: { ReactorBuffer.delegate($0, "expandtabs", $1, $2, $3) }),
            method("hex", asBytes: { ReactorBuffer.delegate($0, "hex", $1, $2, $3) }),
            method("index", asBytes: { ReactorBuffer.delegate($0, "index", $1, $2, $3) }),
            method("isalnum", asBytes: { ReactorBuffer.delegate($0, "isalnum", $1, $2, $3) }),
            method("isalpha", asBytes: { ReactorBuffer.delegate($0, "isalpha", $1, $2, $3) }),
            method("isascii", asBytes: { ReactorBuffer.delegate($0, "isascii", $1, $2, $3) }),
            method("isdigit", asBytes: { ReactorBuffer.delegate($0, "isdigit", $1, $2, $3) }),
            method("islower", asBytes: { ReactorBuffer.delegate($0, "islower", $1, $2, $3) }),
            method("isspace", asBytes: { ReactorBuffer.delegate($0, "isspace", $1, $2, $3) }),
            method("istitle", asBytes: { ReactorBuffer.delegate($0, "istitle", $1, $2, $3) }),
            method("isupper", asBytes: { ReactorBuffer.delegate($0, "isupper", $1, $2, $3) }),
            method("join", asBytes: { ReactorBuffer.delegate($0, "join", $1, $2, $3) }),
            method("ljust", asBytes: { ReactorBuffer.delegate($0, "ljust", $1, $2, $3) }),
            method("lower", asBytes: { ReactorBuffer.delegate($0, "lower", $1, $2, $3) }),
            method("lstrip", asBytes: { ReactorBuffer.delegate($0, "lstrip", $1, $2, $3) }),
            method("partition", asBytes: { ReactorBuffer.delegate($0, "partition", $1, $2, $3) }),
            method("removeprefix", asBytes: { ReactorBuffer.delegate($0, "removeprefix", $1, $2, $3) }),
            method("removesuffix", asBytes: { ReactorBuffer.delegate($0, "removesuffix", $1, $2, $3) }),
            method("replace", asBytes: { ReactorBuffer.delegate($0, "replace", $1, $2, $3) }),
            method("rfind", asBytes: { ReactorBuffer.delegate($0, "rfind", $1, $2, $3) }),
            method("rindex", asBytes: { ReactorBuffer.delegate($0, "rindex", $1, $2, $3) }),
            method("rjust", asBytes: { ReactorBuffer.delegate($0, "rjust", $1, $2, $3) }),
            method("rpartition", asBytes: { ReactorBuffer.delegate($0, "rpartition", $1, $2, $3) }),
            method("rsplit", asBytes: { ReactorBuffer.delegate($0, "rsplit", $1, $2, $3) }),
            method("rstrip", asBytes: { ReactorBuffer.delegate($0, "rstrip", $1, $2, $3) }),
            method("split", asBytes: { ReactorBuffer.delegate($0, "split", $1, $2, $3) }),
            method("splitlines", asBytes: { ReactorBuffer.delegate($0, "splitlines", $1, $2, $3) }),
            method("strip", asBytes: { ReactorBuffer.delegate($0, "strip", $1, $2, $3) }),
            method("swapcase", asBytes: { ReactorBuffer.delegate($0, "swapcase", $1, $2, $3) }),
            method("title", asBytes: { ReactorBuffer.delegate($0, "title", $1, $2, $3) }),
            method("translate", asBytes: { ReactorBuffer.delegate($0, "translate", $1, $2, $3) }),
            method("upper", asBytes: { ReactorBuffer.delegate($0, "upper", $1, $2, $3) }),
            method("zfill", asBytes: { ReactorBuffer.delegate($0, "zfill", $1, $2, $3) }),
            method("fromhex", static: { ReactorBuffer.delegate($0, "fromhex", $1, $2, $3) }),
            method("maketrans", static: { ReactorBuffer.delegate($0, "maketrans", $1, $2, $3) }),
            PyMethodDef(),
        ]
    }

    // MARK: Parts of the slots

    /// The bytes of a buffer, valid as long as the object.
    static func bytes(_ object: PyPointer?) -> UnsafeRawBufferPointer {
        guard let object else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        let fields = object.cast(to: ReactorBuffer.self)
        return UnsafeRawBufferPointer(start: fields.pointee.base, count: fields.pointee.count)
    }

    private static func new(_ type: PyType?, _ arguments: PyPointer?, _ keywords: PyPointer?)
        throws(PythonError) -> Object
    {
        guard let type, PyTuple_Size(arguments) <= 1, keywords == nil || PyDict_Size(keywords) == 0 else {
            throw typeError("ReactorBuffer takes at most one positional argument, a bytes-like object")
        }
        guard PyTuple_Size(arguments) == 1, let source = PyTuple_GetItem(arguments, 0) else {
            return try make(type, capacity: 0)
        }
        // A view with gaps cannot be borrowed as a row of bytes: bytes() closes them.
        let row =
            cpython_type(source) == cpython_memoryview_type()
            ? try Object(PyBytes_FromObject(source)) : Object(retaining: source)
        return try withBuffer(row.pointer) { source throws(PythonError) in
            let object = try make(type, capacity: source.count)
            let fields = object.pointer.cast(to: ReactorBuffer.self)
            if let from = source.baseAddress {
                fields.pointee.base?.copyMemory(from: from, byteCount: source.count)
            }
            fields.pointee.count = source.count
            return object
        }
    }

    private static func copy(_ me: PyPointer?) throws(PythonError) -> Object { try newBytes(bytes(me)) }

    private static func repr(_ me: PyPointer?) throws(PythonError) -> Object {
        let copy = try copy(me)
        let shown = try Object(PyObject_Repr(copy.pointer))
        return try newString("ReactorBuffer(\(describe(shown.pointer)))")
    }

    private static func item(_ me: PyPointer?, _ index: Int) -> PyPointer? {
        let bytes = bytes(me)
        guard bytes.indices.contains(index) else {
            PyErr_SetString(cpython_IndexError(), "index out of range")
            return nil
        }
        return PyLong_FromLong(Int(bytes[index]))
    }

    private static func subscripted(_ me: PyPointer?, _ key: PyPointer?) throws(PythonError) -> Object {
        let bytes = bytes(me)
        guard let key else { throw PythonError() }
        if cpython_is_subtype_of(key, cpython_slice_type()) != 0 { return try slice(bytes, key) }
        guard PyIndex_Check(key) != 0 else {
            throw typeError("byte indices must be integers or slices, not \(typeName(of: key))")
        }
        let index = PyNumber_AsSsize_t(key, cpython_IndexError())
        if index == -1, PyErr_Occurred() != nil { throw PythonError() }
        // An index beyond Int was an error above, so adding the count cannot overflow.
        return try Object(item(me, index < 0 ? index + bytes.count : index))
    }

    private static func slice(_ bytes: UnsafeRawBufferPointer, _ key: PyPointer) throws(PythonError) -> Object
    {
        var start = 0
        var stop = 0
        var step = 0
        guard PySlice_Unpack(key, &start, &stop, &step) == 0 else { throw PythonError() }
        let count = PySlice_AdjustIndices(bytes.count, &start, &stop, step)
        if count <= 0 { return try Object(PyBytes_FromStringAndSize(nil, 0)) }
        if step == 1 { return try newBytes(UnsafeRawBufferPointer(rebasing: bytes[start..<(start + count)])) }
        let result = try Object(PyBytes_FromStringAndSize(nil, count))
        guard let to = PyBytes_AsString(result.pointer) else { throw PythonError() }
        var index = start
        for place in 0..<count {
            // AdjustIndices keeps every index of the slice within the bytes.
            to[place] = CChar(bitPattern: bytes[index])
            index = index &+ step
        }
        return result
    }

    /// With the bytes-like types of Python. A memoryview may have gaps or larger items: whether it is equal it
    /// says itself, and for the order its bytes count.
    private static func compare(_ me: PyPointer?, _ other: PyPointer?, _ operation: Int32) throws(PythonError)
        -> PyPointer
    {
        guard let me, let other else { return newNotImplemented() }
        if cpython_type(other) == cpython_memoryview_type() {
            let isEquality = operation == Py_EQ || operation == Py_NE
            let left = isEquality ? try Object(PyMemoryView_FromObject(me)) : Object(retaining: me)
            let right = isEquality ? Object(retaining: other) : try Object(PyBytes_FromObject(other))
            return try Object(PyObject_RichCompare(left.pointer, right.pointer, operation)).take()
        }
        let isComparable =
            cpython_is_bytes(other) != 0 || cpython_type(other) == cpython_type(me)
            || cpython_is_subtype_of(other, cpython_bytearray_type()) != 0
        guard isComparable else { return newNotImplemented() }
        let left = bytes(me)
        let comparison = try withBuffer(other) { right throws(PythonError) in
            let difference = order(left, right, min(left.count, right.count))
            return difference != 0 ? difference : left.count - right.count
        }
        return compared(comparison, operation)
    }

    private static func contains(_ me: PyPointer?, _ element: PyPointer?) throws(PythonError) -> Bool {
        guard let element else { throw PythonError() }
        if PyObject_CheckBuffer(element) != 0 {
            return try withBuffer(element) { sub throws(PythonError) in find(sub, in: bytes(me)) != nil }
        }
        // Everything else as bytes does it, with its errors.
        let copy = try copy(me)
        let result = PySequence_Contains(copy.pointer, element)
        guard result >= 0 else { throw PythonError() }
        return result == 1
    }

    private static func remainder(_ left: PyPointer?, _ right: PyPointer?) throws(PythonError) -> PyPointer {
        // A number slot is called for either operand: ours is the format only on the left.
        guard let left, typeName(of: left) == "ReactorBuffer" else {
            return newNotImplemented()
        }
        let format = try copy(left)
        return try Object(PyNumber_Remainder(format.pointer, right)).take()
    }

    /// Calls the method of `bytes(self)`, with whatever arguments.
    private static func delegate(
        _ me: PyPointer?, _ name: StaticString, _ arguments: UnsafePointer<PyPointer?>?, _ count: Int,
        _ names: PyPointer?
    ) -> PyPointer? {
        returning { () throws(PythonError) in
            let copy = try copy(me)
            let method = try Object(PyObject_GetAttrString(copy.pointer, cString(name)))
            return try Object(cpython_call_with_names(method.pointer, arguments, count, names)).take()
        }
    }

    /// The only argument, where there is one and it is bytes-like.
    private static func single(_ arguments: UnsafePointer<PyPointer?>?, _ count: Int, _ names: PyPointer?)
        -> PyPointer?
    {
        guard count == 1, names == nil, let argument = arguments?[0], PyObject_CheckBuffer(argument) != 0
        else {
            return nil
        }
        return argument
    }

    private static func reduced(_ me: PyPointer?) throws(PythonError) -> Object {
        guard let me, let type = cpython_type(me) else { throw PythonError() }
        let arguments = try Object(PyTuple_New(1))
        PyTuple_SetItem(arguments.pointer, 0, try copy(me).take())
        let pair = try Object(PyTuple_New(2))
        PyTuple_SetItem(pair.pointer, 0, Object(retaining: asObject(type)).take())
        PyTuple_SetItem(pair.pointer, 1, arguments.take())
        return pair
    }
}

extension PythonError {
    /// A `MemoryError`.
    static func outOfMemory() -> PythonError {
        PyErr_NoMemory()
        return PythonError()
    }
}

/// Where `sub` begins in `bytes`, as `bytes.find` has it.
private func find(_ sub: UnsafeRawBufferPointer, in bytes: UnsafeRawBufferPointer) -> Int? {
    guard let needle = sub.baseAddress, let start = bytes.baseAddress, !sub.isEmpty else { return 0 }
    guard let found = memmem(start, bytes.count, needle, sub.count) else { return nil }
    return UnsafeRawPointer(found) - start
}

/// How the first `count` bytes of two regions compare: below, equal to or above 0.
private func order(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer, _ count: Int) -> Int {
    guard count > 0, let left = left.baseAddress, let right = right.baseAddress else { return 0 }
    return Int(memcmp(left, right, count))
}
