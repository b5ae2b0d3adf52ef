import CPython

/// Sets a Python error and returns the Swift error that says one is set. The corresponding C function is
/// `PyErr_SetString`.
public func raised(_ type: PyPointer?, _ message: String) -> PythonError {
    PyErr_SetString(type, message)
    return PythonError()
}

/// A `TypeError`. The text says what was wrong and what is accepted.
public func typeError(_ message: String) -> PythonError { raised(cpython_TypeError(), message) }

/// A `ValueError`.
public func valueError(_ message: String) -> PythonError { raised(cpython_ValueError(), message) }

/// A `RuntimeError`.
public func runtimeError(_ message: String) -> PythonError { raised(cpython_RuntimeError(), message) }

/// An `OSError` of the subclass that fits the number (`BrokenPipeError`, `ConnectionResetError` …).
public func osError(_ number: Int32) -> PythonError {
    cpython_raise_errno(number)
    return PythonError()
}

/// The border of every function that Python calls: the result as an owned reference, or NULL where the
/// body threw, with the error set.
@inlinable
public func returning(_ body: () throws(PythonError) -> PyPointer) -> PyPointer? {
    do throws(PythonError) { return try body() } catch { return nil }
}

/// An exception that was taken out of Python's error indicator.
public struct Exception: ~Copyable {
    /// The exception object, with its traceback attached.
    public let value: Object

    /// Takes the current error and clears the indicator. Nil when there was none. The corresponding C
    /// function is `PyErr_Fetch`.
    public static func take() -> Exception? {
        var type: PyPointer?
        var value: PyPointer?
        var traceback: PyPointer?
        PyErr_Fetch(&type, &value, &traceback)
        guard type != nil else { return nil }
        PyErr_NormalizeException(&type, &value, &traceback)
        if let value, let traceback { PyException_SetTraceback(value, traceback) }
        Py_DecRef(traceback)
        Py_DecRef(type)
        guard let value else { return nil }
        return Exception(value: Object(owning: value))
    }

    /// Whether it is an `Exception`; others, as `KeyboardInterrupt`, are meant to end the program.
    public var isOrdinary: Bool { PyErr_GivenExceptionMatches(value.pointer, cpython_Exception()) != 0 }

    /// Puts it back into the error indicator. The corresponding C function is `PyErr_Restore`.
    public consuming func restore() {
        let type = cpython_type(value.pointer).map { asObject($0) }
        Py_IncRef(type)
        PyErr_Restore(type, Py_NewRef(value.pointer), PyException_GetTraceback(value.pointer))
    }

    /// Takes the current error as text: type and message. Nil when there was none.
    public static func takeText() -> String? {
        guard let exception = take() else { return nil }
        return "\(typeName(of: exception.value.pointer)): \(describe(exception.value.pointer))"
    }
}
