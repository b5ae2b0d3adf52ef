import CPlatform
import CPython
import Glibc
import Python

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

    /// A buffer with room for `capacity` bytes.
    static func make(_ type: PyType, capacity: Int) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        guard let memory = malloc(max(1, capacity)) else { throw PythonError.outOfMemory() }
        let fields = object.pointer.cast(to: ReactorBuffer.self)
        fields.pointee.base = memory
        fields.pointee.capacity = capacity
        return object
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "erlang.reactor.ReactorBuffer", ReactorBuffer.self, flags: [.immutable],
            slots: [
                slot(
                    Py_tp_doc,
                    doc:
                        "ReactorBuffer(data=b'', /)\n--\n\nBytes as the reactor has read them.\n\nBehaves as bytes, and shows its memory without a copy through the buffer\nprotocol. Methods that it does not have itself are those of bytes(self)."
                ),
                slot(Py_tp_new) {
                    (type: PyType?, arguments: PyPointer?, keywords: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        try ReactorBuffer.new(type, arguments, keywords).take()
                    }
                },
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    free(me.cast(to: ReactorBuffer.self).pointee.base)
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
                slot(Py_tp_getattro) { (me: PyPointer?, name: PyPointer?) -> PyPointer? in
                    ReactorBuffer.attribute(me, name)
                },
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
            method("find", "find($self, sub, start=0, end=sys.maxsize, /)\n--\n\nAs bytes.find.") {
                me, arguments, count in
                guard count == 1, let argument = arguments?[0], PyObject_CheckBuffer(argument) != 0 else {
                    return ReactorBuffer.delegate(me, "find", arguments, count)
                }
                return returning { () throws(PythonError) in
                    let index = try withBuffer(argument) { sub throws(PythonError) in
                        find(sub, in: ReactorBuffer.bytes(me))
                    }
                    return try Object(PyLong_FromLong(index ?? -1)).take()
                }
            },
            method(
                "startswith",
                "startswith($self, prefix, start=0, end=sys.maxsize, /)\n--\n\nAs bytes.startswith; any bytes-like prefix."
            ) { me, arguments, count in
                guard count == 1, let argument = arguments?[0], PyObject_CheckBuffer(argument) != 0 else {
                    return ReactorBuffer.delegate(me, "startswith", arguments, count)
                }
                return returning { () throws(PythonError) in
                    let all = ReactorBuffer.bytes(me)
                    return newBool(
                        try withBuffer(argument) { prefix throws(PythonError) in
                            prefix.count <= all.count
                                && equal(prefix, UnsafeRawBufferPointer(rebasing: all[..<prefix.count]))
                        })
                }
            },
            method(
                "endswith",
                "endswith($self, suffix, start=0, end=sys.maxsize, /)\n--\n\nAs bytes.endswith; any bytes-like suffix."
            ) { me, arguments, count in
                guard count == 1, let argument = arguments?[0], PyObject_CheckBuffer(argument) != 0 else {
                    return ReactorBuffer.delegate(me, "endswith", arguments, count)
                }
                return returning { () throws(PythonError) in
                    let all = ReactorBuffer.bytes(me)
                    return newBool(
                        try withBuffer(argument) { suffix throws(PythonError) in
                            suffix.count <= all.count
                                && equal(
                                    suffix,
                                    UnsafeRawBufferPointer(rebasing: all[(all.count - suffix.count)...]))
                        })
                }
            },
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
        return try withBuffer(source) { source throws(PythonError) in
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

    private static func compare(_ me: PyPointer?, _ other: PyPointer?, _ operation: Int32) throws(PythonError)
        -> PyPointer
    {
        guard let other, PyObject_CheckBuffer(other) != 0 else {
            return newNotImplemented()
        }
        let left = bytes(me)
        let comparison = try withBuffer(other) { right throws(PythonError) in
            let common = min(left.count, right.count)
            let difference = order(left, right, common)
            return difference != 0 ? difference : left.count - right.count
        }
        switch operation {
        case Py_EQ: return newBool(comparison == 0)
        case Py_NE: return newBool(comparison != 0)
        case Py_LT: return newBool(comparison < 0)
        case Py_LE: return newBool(comparison <= 0)
        case Py_GT: return newBool(comparison > 0)
        default: return newBool(comparison >= 0)
        }
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

    /// An attribute of the type, else the one of the same name that `bytes(self)` has.
    private static func attribute(_ me: PyPointer?, _ name: PyPointer?) -> PyPointer? {
        if let own = PyObject_GenericGetAttr(me, name) { return own }
        guard let name, let plain = try? text(of: name), !plain.hasPrefix("_"),
            PyObject_HasAttrString(asObjectOrNil(cpython_bytes_type()), plain) == 1
        else { return nil }
        PyErr_Clear()
        return returning { () throws(PythonError) in
            let copy = try copy(me)
            return try Object(PyObject_GetAttr(copy.pointer, name)).take()
        }
    }

    private static func asObjectOrNil(_ type: PyType?) -> PyPointer? { type.map { asObject($0) } }

    /// Calls the method of `bytes(self)`.
    private static func delegate(
        _ me: PyPointer?, _ name: String, _ arguments: UnsafePointer<PyPointer?>?, _ count: Int
    ) -> PyPointer? {
        returning { () throws(PythonError) in
            let copy = try copy(me)
            let tuple = try Object(PyTuple_New(count))
            for index in 0..<count {
                guard let argument = arguments?[index] else { throw PythonError() }
                Py_IncRef(argument)
                PyTuple_SetItem(tuple.pointer, index, argument)
            }
            return try callMethod(copy.pointer, name, tuple).take()
        }
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

private func equal(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
    left.count == right.count && order(left, right, left.count) == 0
}

/// How the first `count` bytes of two regions compare: below, equal to or above 0.
private func order(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer, _ count: Int) -> Int {
    guard count > 0, let left = left.baseAddress, let right = right.baseAddress else { return 0 }
    return Int(memcmp(left, right, count))
}
