import CPython

/// A pointer to a Python object, as the C functions take it. Whether it owns a reference is said where
/// it appears; nothing here may be used without the GIL.
public typealias PyPointer = UnsafeMutablePointer<PyObject>

/// Thrown when Python's error indicator is set: the error itself stays there, as in C.
public struct PythonError: Error {
    /// Use it right after a C function has reported failure.
    @inlinable public init() {}
}

/// A strong reference to a Python object, given back when the value ends. Needs the GIL, also to end.
@frozen
public struct Object: ~Copyable {
    /// The object, borrowed: valid as long as this value.
    public let pointer: PyPointer

    /// Takes over a reference that the caller owns.
    @inlinable public init(owning pointer: PyPointer) { self.pointer = pointer }

    /// Takes over the result of a C function that returns a new reference, or NULL with an error set.
    /// Throws that error.
    @inlinable
    public init(_ result: PyPointer?) throws(PythonError) {
        guard let result else { throw PythonError() }
        pointer = result
    }

    /// Adds a reference of its own to a borrowed object.
    @inlinable
    public init(retaining pointer: PyPointer) {
        Py_IncRef(pointer)
        self.pointer = pointer
    }

    @inlinable deinit { Py_DecRef(pointer) }

    /// Gives the reference to the caller.
    @inlinable
    public consuming func take() -> PyPointer {
        let pointer = self.pointer
        discard self
        return pointer
    }
}

/// A new reference to `None`, as functions return it that return nothing.
@inlinable
public func newNone() -> PyPointer {
    let none = cpython_none()
    Py_IncRef(none)
    return none
}

/// A new reference to `NotImplemented`, by which operators say that they do not know the other operand.
public func newNotImplemented() -> PyPointer {
    let notImplemented = cpython_not_implemented()
    Py_IncRef(notImplemented)
    return notImplemented
}

/// A new reference to `True` or `False`.
@inlinable
public func newBool(_ value: Bool) -> PyPointer {
    let object = value ? cpython_true() : cpython_false()
    Py_IncRef(object)
    return object
}

/// A `str` from text. Throws MemoryError. The corresponding C function is `PyUnicode_DecodeUTF8`.
public func newString(_ text: String) throws(PythonError) -> Object {
    var text = text
    let made = text.withUTF8 { utf8 in
        UnsafeRawPointer(utf8.baseAddress)?.withMemoryRebound(to: CChar.self, capacity: utf8.count) {
            PyUnicode_DecodeUTF8($0, utf8.count, nil)
        } ?? PyUnicode_FromString("")
    }
    return try Object(made)
}

/// A `bytes` with a copy of the given bytes. Throws MemoryError. The corresponding C function is
/// `PyBytes_FromStringAndSize`.
@inlinable
public func newBytes(_ bytes: UnsafeRawBufferPointer) throws(PythonError) -> Object {
    // An empty slice may have no address at all; PyBytes does not look at it then.
    try Object(PyBytes_FromStringAndSize(bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count))
}

/// An interned `str` that lives as long as the interpreter: for names that are looked up often. Throws
/// MemoryError. The corresponding C function is `PyUnicode_InternFromString`.
public func internedName(_ name: StaticString) throws(PythonError) -> PyPointer {
    try Object(
        PyUnicode_InternFromString(UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self))
    )
    .take()
}

/// The text of a `str`. Throws for one with lone surrogates, which has no UTF-8 form. The corresponding C
/// function is `PyUnicode_AsUTF8AndSize`.
public func text(of object: PyPointer) throws(PythonError) -> String {
    var size = 0
    guard let utf8 = PyUnicode_AsUTF8AndSize(object, &size) else { throw PythonError() }
    let bytes = UnsafeRawBufferPointer(start: utf8, count: size)
    return String(decoding: bytes, as: UTF8.self)
}

/// What `str(object)` says, or a placeholder where that raises or has no UTF-8 form. The corresponding C
/// function is `PyObject_Str`.
public func describe(_ object: PyPointer) -> String {
    do {
        let string = try Object(PyObject_Str(object))
        if let utf8 = try? text(of: string.pointer) { return utf8 }
        PyErr_Clear()
        let escaped = try Object(PyUnicode_AsEncodedString(string.pointer, "utf-8", "backslashreplace"))
        var start: UnsafeMutablePointer<CChar>?
        var size = 0
        guard PyBytes_AsStringAndSize(escaped.pointer, &start, &size) == 0 else { throw PythonError() }
        return String(decoding: UnsafeRawBufferPointer(start: start, count: size), as: UTF8.self)
    } catch {
        PyErr_Clear()
        return "<unprintable \(typeName(of: object))>"
    }
}

/// The name of an object's type, without its module. The corresponding C function is `PyType_GetName`.
public func typeName(of object: PyPointer) -> String {
    guard let type = cpython_type(object), let name = PyType_GetName(type) else {
        PyErr_Clear()
        return "object"
    }
    defer { Py_DecRef(name) }
    guard let name = try? text(of: name) else {
        PyErr_Clear()
        return "object"
    }
    return name
}

/// Calls `object.name(*arguments)` for the rare calls; the hot ones use `cpython_call_method1`. Throws what
/// that raises. The corresponding C function is `PyObject_Call`.
public func callMethod(
    _ object: PyPointer, _ name: String, _ arguments: borrowing Object
) throws(PythonError) -> Object {
    let method = try Object(PyObject_GetAttrString(object, name))
    return try Object(PyObject_Call(method.pointer, arguments.pointer, nil))
}

/// Sets an item of a dict. Throws MemoryError. The corresponding C function is `PyDict_SetItemString`.
public func set(_ key: StaticString, _ value: consuming Object, in dict: PyPointer) throws(PythonError) {
    guard PyDict_SetItemString(dict, cString(key), value.pointer) == 0 else { throw PythonError() }
}

/// Runs `body` on the memory of a bytes-like object, which cannot move meanwhile. Throws BufferError or
/// TypeError for what shows none, and what `body` throws. The corresponding C function is
/// `PyObject_GetBuffer`.
public func withBuffer<Result: ~Copyable>(
    _ object: PyPointer?, flags: Int32 = 0,
    _ body: (UnsafeRawBufferPointer) throws(PythonError) -> Result
) throws(PythonError) -> Result {
    var view = Py_buffer()
    guard PyObject_GetBuffer(object, &view, flags) == 0 else { throw PythonError() }
    defer { PyBuffer_Release(&view) }
    return try body(UnsafeRawBufferPointer(start: view.buf, count: view.len))
}

extension UnsafeMutablePointer where Pointee == PyObject {
    /// The object seen as the struct of one of our heap types, which begins with a `PyObject`.
    @inlinable
    public func cast<T>(to _: T.Type = T.self) -> UnsafeMutablePointer<T> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: T.self)
    }
}
