import CPython
import Python
import Streams

/// The struct of the native half of a transport, of which a class in `erlang._transports` is the whole.
struct TransportObject {
    var head: PyObject
    /// The fields of the base class, `asyncio.transports._FlowControlMixin`: to send a file in pieces, asyncio wants one of that.
    private var inherited: (PyPointer?, PyPointer?, PyPointer?, PyPointer?, PyPointer?)
    private var reference: Unmanaged<LoopTransport>?

    static func transport(_ me: PyPointer?) throws(PythonError) -> LoopTransport {
        guard let transport = me?.cast(to: TransportObject.self).pointee.reference?.takeUnretainedValue()
        else { throw runtimeError("the transport was not begun") }
        return transport
    }

    /// A type derived from asyncio's transports, with the methods of one kind beside the common ones.
    static func makeType(
        in module: PyPointer, of base: PyPointer, name: StaticString, _ methods: [PyMethodDef]
    ) throws(PythonError) -> PyType {
        try makeSubtype(
            in: module, of: base,
            fieldsOfBase: MemoryLayout<TransportObject>.offset(of: \.reference),
            name: name, TransportObject.self,
            slots: [
                slot(Py_tp_doc, doc: "The native half of the transports of erlang.EventLoop."),
                slot(Py_tp_traverse) {
                    (me: PyPointer?, visit: visitproc?, argument: UnsafeMutableRawPointer?) -> Int32 in
                    guard let me, let visit else { return 0 }
                    if let type = cpython_type(me) {
                        let result = visit(asObject(type), argument)
                        if result != 0 { return result }
                    }
                    let fields = me.cast(to: TransportObject.self).pointee
                    let parts = fields.inherited
                    for part in [parts.0, parts.1, parts.2, parts.3, parts.4] {
                        guard let part else { continue }
                        let result = visit(part, argument)
                        if result != 0 { return result }
                    }
                    return fields.reference?.takeUnretainedValue().traverse(visit, argument) ?? 0
                },
                slot(Py_tp_clear) { (me: PyPointer?) -> Int32 in
                    TransportObject.clear(me)
                    return 0
                },
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    PyObject_GC_UnTrack(me)
                    TransportObject.clear(me)
                    if let reference = me.cast(to: TransportObject.self).pointee.reference {
                        reference.takeUnretainedValue().abandon()
                        reference.release()
                    }
                    cpython_free_instance(me)
                },
                slot(Py_tp_methods, table: methods + commonMethods + [PyMethodDef()]),
                slot(
                    Py_tp_getset,
                    table: [
                        // asyncio's own code looks at it when it sends a file.
                        property("_protocol_paused", "Whether the protocol was told to write no more.") {
                            me, _ in
                            returning { () throws(PythonError) in
                                newBool(try TransportObject.transport(me).isProtocolPaused)
                            }
                        }, PyGetSetDef(),
                    ]),
            ])
    }

    private static func clear(_ me: PyPointer?) {
        guard let fields = me?.cast(to: TransportObject.self) else { return }
        let parts = fields.pointee.inherited
        fields.pointee.inherited = (nil, nil, nil, nil, nil)
        for part in [parts.0, parts.1, parts.2, parts.3, parts.4] { Py_DecRef(part) }
        fields.pointee.reference?.takeUnretainedValue().clear()
    }

    /// Begins a transport, once.
    static func begin(
        _ me: PyPointer, _ loop: PyPointer, _ number: PyPointer, _ receiver: PyPointer,
        make: (LoopCore, Int32, consuming Object) throws(PythonError) -> LoopTransport
    ) throws(PythonError) {
        let core = try LoopObject.core(loop)
        guard let fd = try integer(number).flatMap({ Int32(exactly: $0) }), fd >= 0 else {
            throw valueError("\(describe(number)) is no file descriptor")
        }
        guard me.cast(to: TransportObject.self).pointee.reference == nil else {
            throw runtimeError("the transport was begun already")
        }
        let transport = try make(core, fd, try Object(cpython_copy_context()))
        me.cast(to: TransportObject.self).pointee.reference = .passRetained(transport)
        Py_IncRef(receiver)
        transport.protocolObject = receiver
        Py_IncRef(me)
        core.transports[ObjectIdentifier(transport)] = transport
    }

    /// What may be written, as `bytes`: a copy of what may change.
    @inline(__always)
    static func bytes(_ data: PyPointer) throws(PythonError) -> Object {
        if cpython_is_bytes(data) != 0 { return Object(retaining: data) }
        let type = cpython_type(data)
        guard
            type == cpython_memoryview_type() || cpython_is_subtype_of(data, cpython_bytearray_type()) != 0
        else {
            throw typeError("data argument must be a bytes-like object, not '\(typeName(of: data))'")
        }
        return try withBuffer(data) { (memory) throws(PythonError) in try newBytes(memory) }
    }

    private static var commonMethods: [PyMethodDef] {
        [
            method("_start_reading", "_start_reading($self, /)\n--\n\nBegin to read.") { me, _, _ in
                returning { () throws(PythonError) in
                    try TransportObject.transport(me).startReading()
                    return newNone()
                }
            },
            method("get_protocol", "get_protocol($self, /)\n--\n\nThe current protocol.") { me, _, _ in
                returning { () throws(PythonError) in
                    Py_NewRef(try TransportObject.transport(me).protocolObject ?? cpython_none())
                }
            },
            method("is_closing", "is_closing($self, /)\n--\n\nWhether it is closed or about to be.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    newBool(try TransportObject.transport(me).isClosing)
                }
            },
            method(
                "get_write_buffer_size",
                "get_write_buffer_size($self, /)\n--\n\nHow many bytes are to be written yet."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    PyLong_FromLong(try TransportObject.transport(me).size) ?? newNone()
                }
            },
            method(
                "get_write_buffer_limits",
                "get_write_buffer_limits($self, /)\n--\n\nThe low and the high mark of flow control, in bytes."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    let transport = try TransportObject.transport(me)
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
                    try TransportObject.transport(me).setLimits(high: high, low: low)
                    return newNone()
                }
            },
            method(
                "close", "close($self, /)\n--\n\nClose when what was written has gone out."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    try TransportObject.transport(me).close()
                    return newNone()
                }
            },
            method("abort", "abort($self, /)\n--\n\nClose at once; what is not written yet is lost.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    try TransportObject.transport(me).forceClose(nil)
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
                    try TransportObject.transport(me).forceClose(exception)
                    return newNone()
                }
            },
            method("_finish", "_finish($self, /)\n--\n\nIt is over: nothing is called any more.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    try TransportObject.transport(me).finish()
                    return newNone()
                }
            },
            method(
                "_lost_count", "_lost_count($self, /)\n--\n\nHow often it was written to in vain, and more."
            ) {
                me, _, _ in
                returning { () throws(PythonError) in
                    PyLong_FromLong(try TransportObject.transport(me).lost) ?? newNone()
                }
            },
        ]
    }
}
