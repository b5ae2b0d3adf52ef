import CPython

/// Runs `body` as if Python code handled no exception at the moment: otherwise that would be the context of every
/// exception raised there, and what `raise` and `sys.exc_info()` find. With the GIL.
///
/// The corresponding C functions are `PyErr_GetHandledException` and `PyErr_SetHandledException`.
public func withoutHandledException(_ body: () -> Void) {
    guard let handled = PyErr_GetHandledException() else { return body() }
    PyErr_SetHandledException(nil)
    // Inside a generator that handles none itself it was that of the code which has resumed the generator. That
    // stays visible, and must not become the generator's.
    let below = PyErr_GetHandledException()
    body()
    if below != handled { PyErr_SetHandledException(handled) }
    Py_DecRef(below)
    Py_DecRef(handled)
}

/// Whether Python code handles an exception of a type: it is in an `except` or `finally` for one. With the GIL.
public func isHandling(_ type: PyPointer) -> Bool {
    guard let handled = PyErr_GetHandledException() else { return false }
    defer { Py_DecRef(handled) }
    return PyErr_GivenExceptionMatches(handled, type) != 0
}
