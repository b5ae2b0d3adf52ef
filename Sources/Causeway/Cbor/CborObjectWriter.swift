import CPython
import Python
import Streams

/// Python objects as CBOR. With the GIL.
struct CborObjectWriter {
    private(set) var writer = CborWriter()

    mutating func write(_ object: PyPointer, depth: Int = 0) throws(PythonError) {
        guard depth < CborTermWriter.maximumDepth else {
            throw valueError(
                "the object is nested more than \(CborTermWriter.maximumDepth) levels deep, or contains itself"
            )
        }
        switch cpython_exact_kind(object) {
        case CPYTHON_INT: try integer(object)
        case CPYTHON_STR: try string(object)
        case CPYTHON_FLOAT: writer.float(PyFloat_AsDouble(object))
        case CPYTHON_BYTES: try bytesLike(object)
        case CPYTHON_LIST: try list(object, depth)
        case CPYTHON_TUPLE: try tuple(object, depth)
        case CPYTHON_DICT: try dict(object, depth)
        default: try lessCommon(object, depth)
        }
    }

    private mutating func lessCommon(_ object: PyPointer, _ depth: Int) throws(PythonError) {
        if object == cpython_none() { return writer.null() }
        if object == cpython_true() { return writer.bool(true) }
        if object == cpython_false() { return writer.bool(false) }
        if cpython_is_unicode(object) != 0 { return try string(object) }
        if cpython_is_long(object) != 0 { return try integer(object) }
        if cpython_is_subtype_of(object, cpython_float_type()) != 0 {
            return writer.float(PyFloat_AsDouble(object))
        }
        if cpython_is_list(object) != 0 { return try list(object, depth) }
        if cpython_is_tuple(object) != 0 { return try tuple(object, depth) }
        if cpython_is_dict(object) != 0 { return try dict(object, depth) }
        if PyObject_CheckBuffer(object) != 0 { return try bytesLike(object) }
        throw typeError("\(typeName(of: object)) has no form in CBOR")
    }

    private mutating func integer(_ object: PyPointer) throws(PythonError) {
        var overflow: Int32 = 0
        let value = PyLong_AsLongLongAndOverflow(object, &overflow)
        if overflow == 0 { return writer.integer(Int(value)) }
        let number = try BigInteger.withMagnitude(object) { isNegative, magnitude in
            CborBigNumber(isNegative: isNegative, littleEndian: magnitude)
        }
        number.write(to: &writer)
    }

    private mutating func string(_ object: PyPointer) throws(PythonError) {
        var size = 0
        guard let utf8 = PyUnicode_AsUTF8AndSize(object, &size) else { throw PythonError() }
        writer.text(UnsafeRawBufferPointer(start: utf8, count: size))
    }

    private mutating func bytesLike(_ object: PyPointer) throws(PythonError) {
        // Not through `self` in the closure, which would be a copy of what was written.
        var writer = self.writer
        self.writer = CborWriter()
        defer { self.writer = writer }
        try withBuffer(object) { bytes throws(PythonError) in writer.bytes(bytes) }
    }

    // Converting runs Python code nowhere: nobody changes a container meanwhile.

    private mutating func list(_ object: PyPointer, _ depth: Int) throws(PythonError) {
        let count = max(0, PyList_Size(object))
        writer.array(count)
        for index in 0..<count {
            guard let element = PyList_GetItem(object, index) else { throw PythonError() }
            try write(element, depth: depth + 1)
        }
    }

    private mutating func tuple(_ object: PyPointer, _ depth: Int) throws(PythonError) {
        let count = max(0, PyTuple_Size(object))
        writer.array(count)
        for index in 0..<count {
            guard let element = PyTuple_GetItem(object, index) else { throw PythonError() }
            try write(element, depth: depth + 1)
        }
    }

    private mutating func dict(_ object: PyPointer, _ depth: Int) throws(PythonError) {
        writer.map(PyDict_Size(object))
        var position = 0
        var key: PyPointer?
        var value: PyPointer?
        while PyDict_Next(object, &position, &key, &value) != 0 {
            guard let key, let value else { throw PythonError() }
            try write(key, depth: depth + 1)
            try write(value, depth: depth + 1)
        }
    }
}
