import Beam
import CErlNif
import CPython
import Python

/// The functions of `_causeway` that take what Python prints and logs; `erlang._output` and `erlang._log` make
/// streams and handlers of them.
enum OutputModule {
    static var functions: [PyMethodDef] {
        [
            method(
                "_write",
                "_write($module, text, /)\n--\n\nWhat sys.stdout.write is inside the BEAM: complete lines go to a group leader.\n\nReturns the number of characters."
            ) { _, arguments, count in
                returning { () throws(PythonError) in try OutputModule.write(arguments, count, to: .output) }
            },
            method(
                "_write_error",
                "_write_error($module, text, /)\n--\n\nWhat sys.stderr.write is inside the BEAM: complete lines go to Erlang's logger.\n\nReturns the number of characters."
            ) { _, arguments, count in
                returning { () throws(PythonError) in try OutputModule.write(arguments, count, to: .errors) }
            },
            method(
                "_flush",
                "_flush($module, /)\n--\n\nSend what the calling thread has written of lines that are not complete."
            ) { _, _, _ in
                returning { () throws(PythonError) in
                    try ErlangModule.requireBeam("_flush")
                    let (outlet, context) = Outlet.ofThisThread()
                    outlet.flush(context)
                    return newNone()
                }
            },
            method(
                "_log",
                "_log($module, level, text, details, /)\n--\n\nSend an event to Erlang's logger: a level of Python, a text, and a dict of metadata."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    try ErlangModule.requireBeam("_log")
                    guard count == 3, let arguments, let level = arguments[0], let text = arguments[1],
                        let details = arguments[2], cpython_is_unicode(text) != 0
                    else {
                        throw typeError("_log() takes a level, a str and a dict")
                    }
                    let state = try ModuleState.required(module)
                    let (outlet, context) = Outlet.ofThisThread()
                    let size = OutputModule.eventSize &+ PyUnicode_GetLength(text)
                    try outlet.log(context, size: size) { (env) throws(PythonError) in
                        var encoder = Encoder(env: env, state: state)
                        return makeTuple(
                            env, try encoder.term(level), try encoder.term(text), try encoder.term(details))
                    }
                    return newNone()
                }
            },
            method(
                "_log_level",
                "_log_level($module, /)\n--\n\nThe least level of Python's logging whose events Erlang's logger took when the application started."
            ) { _, _, _ in
                PyLong_FromLong(LogLevel.shared.value)
            },
        ]
    }

    /// About how many bytes an event takes beside its text.
    private static let eventSize = 500

    private static func write(_ arguments: UnsafePointer<PyPointer?>?, _ count: Int, to stream: Outlet.Stream)
        throws(PythonError) -> PyPointer
    {
        try ErlangModule.requireBeam("_write")
        guard count == 1, let text = arguments?[0] else {
            throw typeError("write() takes exactly one argument (\(count) given)")
        }
        guard cpython_is_unicode(text) != 0 else {
            throw typeError("write() argument must be str, not \(typeName(of: text))")
        }
        let (outlet, context) = Outlet.ofThisThread()
        var size = 0
        if let utf8 = PyUnicode_AsUTF8AndSize(text, &size) {
            outlet.write(UnsafeRawBufferPointer(start: utf8, count: size), to: stream, context)
        } else {
            // Lone surrogates, as names of files may have them.
            PyErr_Clear()
            let escaped = try Object(PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace"))
            try withBuffer(escaped.pointer) { (bytes) throws(PythonError) in
                outlet.write(bytes, to: stream, context)
            }
        }
        return try Object(PyLong_FromLong(PyUnicode_GetLength(text))).take()
    }
}
