import CPython
import Python
import Streams

/// The struct of the native half of a transport, of which `erlang._transports.StreamTransport` is the whole.
struct StreamTransportObject {
    var head: PyObject
    /// The fields of the base class, `asyncio.transports._FlowControlMixin`: to send a file in pieces, asyncio wants one of that.
    private var inherited: (PyPointer?, PyPointer?, PyPointer?, PyPointer?, PyPointer?)
    private var reference: Unmanaged<StreamTransport>?

    private static func transport(_ me: PyPointer?) throws(PythonError) -> StreamTransport {
        guard
            let transport = me?.cast(to: StreamTransportObject.self).pointee.reference?.takeUnretainedValue()
        else { throw runtimeError("the transport was not begun") }
        return transport
    }

    /// A type derived from asyncio's transports.
    static func makeType(in module: PyPointer, of base: PyPointer) throws(PythonError) -> PyType {
        try makeSubtype(
            in: module, of: base,
            fieldsOfBase: MemoryLayout<StreamTransportObject>.offset(of: \.reference),
            name: "_causeway._StreamTransport", StreamTransportObject.self,
            slots: [
                slot(Py_tp_doc, doc: "The native half of the transports of erlang.EventLoop."),
                slot(Py_tp_traverse) {
                    (me: PyPointer?, visit: visitproc?, argument: UnsafeMutableRawPointer?) -> Int32 in
                    guard let me, let visit else { return 0 }
                    if let type = cpython_type(me) {
                        let result = visit(asObject(type), argument)
                        if result != 0 { return result }
                    }
                    let fields = me.cast(to: StreamTransportObject.self).pointee
                    let parts = fields.inherited
                    for part in [parts.0, parts.1, parts.2, parts.3, parts.4] {
                        guard let part else { continue }
                        let result = visit(part, argument)
                        if result != 0 { return result }
                    }
                    return fields.reference?.takeUnretainedValue().traverse(visit, argument) ?? 0
                },
                slot(Py_tp_clear) { (me: PyPointer?) -> Int32 in
                    StreamTransportObject.clear(me)
                    return 0
                },
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    PyObject_GC_UnTrack(me)
                    StreamTransportObject.clear(me)
                    if let reference = me.cast(to: StreamTransportObject.self).pointee.reference {
                        reference.takeUnretainedValue().abandon()
                        reference.release()
                    }
                    cpython_free_instance(me)
                },
                slot(Py_tp_methods, table: methods),
                slot(
                    Py_tp_getset,
                    table: [
                        // asyncio's own code looks at it when it sends a file.
                        property("_protocol_paused", "Whether the protocol was told to write no more.") {
                            me, _ in
                            returning { () throws(PythonError) in
                                newBool(try StreamTransportObject.transport(me).isProtocolPaused)
                            }
                        }, PyGetSetDef(),
                    ]),
            ])
    }

    private static func clear(_ me: PyPointer?) {
        guard let fields = me?.cast(to: StreamTransportObject.self) else { return }
        let parts = fields.pointee.inherited
        fields.pointee.inherited = (nil, nil, nil, nil, nil)
        for part in [parts.0, parts.1, parts.2, parts.3, parts.4] { Py_DecRef(part) }
        fields.pointee.reference?.takeUnretainedValue().clear()
    }

    private static func begin(_ me: PyPointer, _ loop: PyPointer, _ number: PyPointer, _ receiver: PyPointer)
        throws(PythonError)
    {
        let core = try LoopObject.core(loop)
        guard let fd = try integer(number).flatMap({ Int32(exactly: $0) }), fd >= 0 else {
            throw valueError("\(describe(number)) is no file descriptor")
        }
        guard me.cast(to: StreamTransportObject.self).pointee.reference == nil else {
            throw runtimeError("the transport was begun already")
        }
        let transport = StreamTransport(core, fd, me, context: try Object(cpython_copy_context()))
        me.cast(to: StreamTransportObject.self).pointee.reference = .passRetained(transport)
        Py_IncRef(receiver)
        transport.protocolObject = receiver
        Py_IncRef(me)
        core.transports[ObjectIdentifier(transport)] = transport
    }

    /// What may be written, as `bytes`: a copy of what may change.
    @inline(__always)
    private static func bytes(_ data: PyPointer) throws(PythonError) -> Object {
        if cpython_is_bytes(data) != 0 { return Object(retaining: data) }
        let type = cpython_type(data)
        guard
            type == cpython_memoryview_type() || cpython_is_subtype_of(data, cpython_bytearray_type()) != 0
        else {
            throw typeError("data argument must be a bytes-like object, not '\(typeName(of: data))'")
        }
        return try withBuffer(data) { (memory) throws(PythonError) in try newBytes(memory) }
    }

    private static func checkMayWrite(_ transport: StreamTransport, _ function: String) throws(PythonError) {
        if transport.hasEnded { throw runtimeError("Cannot call \(function)() after write_eof()") }
        if transport.isWriteAwaited {
            throw runtimeError("unable to \(function); sendfile is in progress")
        }
    }

    private static var methods: [PyMethodDef] {
        [
            method(
                "_begin",
                "_begin($self, loop, fd, protocol, /)\n--\n\nThe transport of a socket, which stays the caller's to close."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 3, let me, let arguments, let loop = arguments[0], let fd = arguments[1],
                        let receiver = arguments[2]
                    else { throw typeError("_begin() takes a loop, a descriptor and a protocol") }
                    try StreamTransportObject.begin(me, loop, fd, receiver)
                    return newNone()
                }
            },
            method(
                "_hold",
                "_hold($self, data, /)\n--\n\nHave bytes delivered first that somebody has read before."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let data = arguments?[0], cpython_exact_kind(data) == CPYTHON_BYTES
                    else {
                        throw typeError("_hold() takes bytes")
                    }
                    try StreamTransportObject.transport(me).hold(Object(retaining: data))
                    return newNone()
                }
            },
            method("_start_reading", "_start_reading($self, /)\n--\n\nBegin to read.") { me, _, _ in
                returning { () throws(PythonError) in
                    try StreamTransportObject.transport(me).startReading()
                    return newNone()
                }
            },
            method(
                "_set_protocol",
                "_set_protocol($self, protocol, is_buffered, /)\n--\n\nWho is called from now on."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 2, let receiver = arguments?[0], let isBuffered = arguments?[1] else {
                        throw typeError("_set_protocol() takes a protocol and a bool")
                    }
                    let transport = try StreamTransportObject.transport(me)
                    transport.isBuffered = isBuffered == cpython_true()
                    let old = transport.protocolObject
                    Py_IncRef(receiver)
                    transport.protocolObject = receiver
                    Py_DecRef(old)
                    return newNone()
                }
            },
            method("get_protocol", "get_protocol($self, /)\n--\n\nThe current protocol.") { me, _, _ in
                returning { () throws(PythonError) in
                    Py_NewRef(try StreamTransportObject.transport(me).protocolObject ?? cpython_none())
                }
            },
            method(
                "write",
                "write($self, data, /)\n--\n\nWrite bytes, without waiting. What is written in one turn of the loop goes out at its end, together."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let data = arguments?[0] else {
                        throw typeError("write() takes exactly one argument (\(count) given)")
                    }
                    let transport = try StreamTransportObject.transport(me)
                    let bytes = try StreamTransportObject.bytes(data)
                    try StreamTransportObject.checkMayWrite(transport, "write")
                    guard transport.lost == 0 else {
                        if PyBytes_Size(bytes.pointer) > 0, let me {
                            transport.writtenInVain()
                            _ = try Object(cpython_call_method_named(me, "_written_in_vain"))
                        }
                        return newNone()
                    }
                    try transport.write(bytes)
                    return newNone()
                }
            },
            method(
                "writelines", "writelines($self, list_of_data, /)\n--\n\nWrite several pieces, together."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let pieces = arguments?[0] else {
                        throw typeError("writelines() takes exactly one argument (\(count) given)")
                    }
                    let transport = try StreamTransportObject.transport(me)
                    try StreamTransportObject.checkMayWrite(transport, "writelines")
                    let iterator = try Object(PyObject_GetIter(pieces))
                    while let piece = PyIter_Next(iterator.pointer) {
                        let held = Object(owning: piece)
                        let bytes = try StreamTransportObject.bytes(held.pointer)
                        if transport.lost == 0 { try transport.write(bytes) }
                    }
                    if PyErr_Occurred() != nil { throw PythonError() }
                    return newNone()
                }
            },
            method(
                "write_eof",
                "write_eof($self, /)\n--\n\nEnd this direction when what was written has gone out."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    try StreamTransportObject.transport(me).writeEnd()
                    return newNone()
                }
            },
            method("can_write_eof", "can_write_eof($self, /)\n--\n\nTrue.") { _, _, _ in newBool(true) },
            method("is_closing", "is_closing($self, /)\n--\n\nWhether it is closed or about to be.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    newBool(try StreamTransportObject.transport(me).isClosing)
                }
            },
            method("is_reading", "is_reading($self, /)\n--\n\nWhether data is received.") { me, _, _ in
                returning { () throws(PythonError) in
                    let transport = try StreamTransportObject.transport(me)
                    return newBool(!transport.isClosing && !transport.isPaused)
                }
            },
            method("pause_reading", "pause_reading($self, /)\n--\n\nReceive no data until resume_reading().")
            {
                me, _, _ in
                returning { () throws(PythonError) in
                    try StreamTransportObject.transport(me).pauseReading()
                    return newNone()
                }
            },
            method("resume_reading", "resume_reading($self, /)\n--\n\nReceive data again.") { me, _, _ in
                returning { () throws(PythonError) in
                    try StreamTransportObject.transport(me).resumeReading()
                    return newNone()
                }
            },
            method("_deliver_held", "_deliver_held($self, /)\n--\n\nDeliver what came while paused.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    try StreamTransportObject.transport(me).deliverHeld()
                    return newNone()
                }
            },
            method(
                "get_write_buffer_size",
                "get_write_buffer_size($self, /)\n--\n\nHow many bytes are to be written yet."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    PyLong_FromLong(try StreamTransportObject.transport(me).size) ?? newNone()
                }
            },
            method(
                "get_write_buffer_limits",
                "get_write_buffer_limits($self, /)\n--\n\nThe low and the high mark of flow control, in bytes."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    let transport = try StreamTransportObject.transport(me)
                    let pair = try Object(PyTuple_New(2))
                    PyTuple_SetItem(pair.pointer, 0, PyLong_FromLong(transport.lowWater))
                    PyTuple_SetItem(pair.pointer, 1, PyLong_FromLong(transport.highWater))
                    return pair.take()
                }
            },
            method(
                "_set_limits", "_set_limits($self, high, low, /)\n--\n\nThe marks of flow control, in bytes."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 2, let first = arguments?[0], let second = arguments?[1] else {
                        throw typeError("_set_limits() takes two sizes")
                    }
                    let high = try integer(first) ?? .max
                    let low = try integer(second) ?? .max
                    try StreamTransportObject.transport(me).setLimits(high: high, low: low)
                    return newNone()
                }
            },
            method(
                "_await_written",
                "_await_written($self, awaited, /)\n--\n\nWhether _written_out() is to be called when all is written. Returns whether it is."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let awaited = arguments?[0] else {
                        throw typeError("_await_written() takes a bool")
                    }
                    let transport = try StreamTransportObject.transport(me)
                    transport.isWriteAwaited = awaited == cpython_true()
                    return newBool(transport.size == 0)
                }
            },
            method(
                "close", "close($self, /)\n--\n\nClose when what was written has gone out."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    try StreamTransportObject.transport(me).close()
                    return newNone()
                }
            },
            method("abort", "abort($self, /)\n--\n\nClose at once; what is not written yet is lost.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    try StreamTransportObject.transport(me).forceClose(nil)
                    return newNone()
                }
            },
            method("_force_close", "_force_close($self, exception, /)\n--\n\nClose at once, because of that.")
            {
                me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let exception = arguments?[0] else {
                        throw typeError("_force_close() takes an exception or None")
                    }
                    try StreamTransportObject.transport(me).forceClose(exception)
                    return newNone()
                }
            },
            method("_finish", "_finish($self, /)\n--\n\nIt is over: nothing is called any more.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    try StreamTransportObject.transport(me).finish()
                    return newNone()
                }
            },
            method(
                "_lost_count", "_lost_count($self, /)\n--\n\nHow often it was written to in vain, and more."
            ) {
                me, _, _ in
                returning { () throws(PythonError) in
                    PyLong_FromLong(try StreamTransportObject.transport(me).lost) ?? newNone()
                }
            },
            PyMethodDef(),
        ]
    }
}
