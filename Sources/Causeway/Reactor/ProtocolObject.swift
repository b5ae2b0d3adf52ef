import CPlatform
import CPython
import Glibc
import Python
import Streams

/// The struct of `erlang.reactor.Protocol`, the base class of all protocols.
struct ProtocolObject {
    var head: PyObject
    var fd: Int32
    var closed: CChar
    /// The kernel had no memory for what was to be written last.
    var isShortOfMemory: CChar
    var clientInfo: PyPointer?
    var writeBuffer: PyPointer?
    /// The number under which the protocol was registered, whatever Python does to `fd`; -1 before.
    var registered: Int32
    /// Where the connection is served, retained by this object; NULL in a protocol driven by hand.
    var inbox: Unmanaged<ReactorInbox>?
    var token: UInt64
    /// From whom the last datagram came; NULL before there was one.
    var peer: UnsafeMutablePointer<SocketAddress>?

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "erlang.reactor.Protocol", ProtocolObject.self, flags: [.base, .collected],
            slots: [
                slot(
                    Py_tp_doc,
                    doc:
                        "Protocol()\n--\n\nBase class of protocols: one instance serves one connection.\n\nAll methods run on the thread of the connection's context, or the one that is\nin run(): what waits in one holds up all others. An exception ends the\nconnection, and is logged."
                ),
                slot(Py_tp_new) { (type: PyType?, arguments: PyPointer?, _: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in try ProtocolObject.new(type, arguments).take() }
                },
                slot(Py_tp_traverse) {
                    (me: PyPointer?, visit: visitproc?, argument: UnsafeMutableRawPointer?) -> Int32 in
                    ProtocolObject.traverse(me, visit, argument)
                },
                slot(Py_tp_clear) { (me: PyPointer?) -> Int32 in
                    ProtocolObject.clear(me)
                    return 0
                },
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    PyObject_GC_UnTrack(me)
                    ProtocolObject.clear(me)
                    ProtocolObject.detach(me)
                    me.cast(to: ProtocolObject.self).pointee.peer?.deallocate()
                    cpython_free_instance(me)
                },
                slot(Py_tp_repr) { (me: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        guard let me else { throw PythonError() }
                        let fields = me.cast(to: ProtocolObject.self).pointee
                        let standing =
                            fields.closed != 0 ? "closed" : fields.fd < 0 ? "not connected" : "open"
                        return try newString("<\(typeName(of: me)) fd=\(fields.fd) \(standing)>").take()
                    }
                },
                slot(
                    Py_tp_members,
                    table: [
                        member(
                            "fd", T_INT, MemoryLayout<ProtocolObject>.offset(of: \.fd),
                            "File descriptor of the connection; -1 before there is one."),
                        member(
                            "closed", T_BOOL, MemoryLayout<ProtocolObject>.offset(of: \.closed),
                            "Whether the connection is over."),
                        member(
                            "client_info", T_OBJECT, MemoryLayout<ProtocolObject>.offset(of: \.clientInfo),
                            "What Erlang told about the connection, as a dict with str keys."),
                        member(
                            "write_buffer", T_OBJECT_EX,
                            MemoryLayout<ProtocolObject>.offset(of: \.writeBuffer),
                            "A bytearray of what is to be written. One that is shown by a\nmemoryview when it is written is replaced."
                        ),
                        PyMemberDef(),
                    ]),
                slot(
                    Py_tp_getset,
                    table: [
                        property(
                            "peer",
                            "Address of who sent the datagram that data_received() has got last, in the form of\nthe module socket; None for a stream. write() and write_buffer answer there."
                        ) { me, _ in
                            returning { () throws(PythonError) in
                                guard let me else { throw PythonError() }
                                return try ProtocolObject.peer(me).object().take()
                            }
                        },
                        PyGetSetDef(),
                    ]),
                slot(Py_tp_methods, table: methods),
            ])
    }

    private static var methods: [PyMethodDef] {
        [
            method(
                "connection_made",
                "connection_made($self, fd, client_info, /)\n--\n\nA connection begins. The base class keeps both arguments as attributes."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard let me, count == 2, let fd = arguments?[0], let info = arguments?[1] else {
                        throw typeError("connection_made() takes a file descriptor and a dict")
                    }
                    let number = PyLong_AsLong(fd)
                    if number == -1, PyErr_Occurred() != nil { throw PythonError() }
                    ProtocolObject.setConnection(me, Int32(truncatingIfNeeded: number), info)
                    return newNone()
                }
            },
            method(
                "data_received",
                "data_received($self, data, /)\n--\n\nData has come, as a ReactorBuffer: without a copy, to be kept as long as is\nwished. Returns an action: 'continue', as the base class does, 'write_pending',\n'async_pending' or 'close'."
            ) { _, _, _ in
                returning { () throws(PythonError) in try newString("continue").take() }
            },
            method(
                "write_ready",
                "write_ready($self, /)\n--\n\nThe descriptor can be written to. The base class writes what it can of\nwrite_buffer. Returns an action: 'continue' while something is left, then\n'read_pending'; or 'close'."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    guard let me else { throw PythonError() }
                    return try newString(try ProtocolObject.flush(me) ? "read_pending" : "continue").take()
                }
            },
            method(
                "eof_received",
                "eof_received($self, /)\n--\n\nThe peer sends nothing more, but may still read. Returns an action: the base\nclass 'close', which writes what is left in write_buffer before. After any\nother the protocol goes on writing until an action says 'close'."
            ) { _, _, _ in
                returning { () throws(PythonError) in try newString("close").take() }
            },
            method(
                "send_to",
                "send_to($self, data, address, /)\n--\n\nSend bytes as one datagram to an address in the form of the module socket,\nwith a numeric host. Returns whether there was room for it.\n\nRaises OSError where the kernel refuses it, ConnectionRefusedError where nobody\nhas that address, ValueError for a host name."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard let me, count == 2, let data = arguments?[0], let address = arguments?[1] else {
                        throw typeError("send_to() takes bytes and an address")
                    }
                    let destination = try SocketAddress.from(address)
                    let outcome = try withBuffer(data) { data throws(PythonError) in
                        sendDatagram(me.cast(to: ProtocolObject.self).pointee.fd, data, to: destination)
                    }
                    switch outcome {
                    case .bytes(let size):
                        ProtocolObject.countWritten(size, by: me)
                        return newBool(true)
                    case .wouldBlock, .noMemory: return newBool(false)
                    case .failed(let error): throw osError(error.code)
                    }
                }
            },
            method(
                "connection_lost",
                "connection_lost($self, /)\n--\n\nThe connection is over. The descriptor is closed after this method."
            ) { _, _, _ in newNone() },
            method(
                "read",
                "read($self, size=65536, /)\n--\n\nRead at most size bytes. b'' at the end of the stream, on an error, and when\nnothing is there: it never blocks. Raises ValueError for a negative size."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard let me, count <= 1 else { throw typeError("read() takes at most one argument") }
                    var size = 65536
                    if count == 1, let argument = arguments?[0] {
                        size = PyLong_AsSsize_t(argument)
                        if size == -1, PyErr_Occurred() != nil { throw PythonError() }
                    }
                    guard size >= 0 else {
                        throw valueError("read() needs a size of at least 0, not \(size)")
                    }
                    return try ProtocolObject.read(me, size).take()
                }
            },
            method(
                "write",
                "write($self, data, /)\n--\n\nWrite bytes; returns how many were taken, 0 when there is no room now.\n\nRaises BrokenPipeError or ConnectionResetError when the peer is gone. For datagrams\nConnectionRefusedError: not caught, it ends no socket, as there are other peers."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard let me, count == 1, let data = arguments?[0] else {
                        throw typeError("write() takes one bytes-like object")
                    }
                    let written = try withBuffer(data) { data throws(PythonError) in
                        try ProtocolObject.write(me, data)
                    }
                    return try Object(PyLong_FromLong(written)).take()
                }
            },
            PyMethodDef(),
        ]
    }

    // MARK: Life

    /// Subclasses may have arguments of their own; the base class has none.
    private static func new(_ type: PyType?, _ arguments: PyPointer?) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        let fields = object.pointer.cast(to: ProtocolObject.self)
        fields.pointee.fd = -1
        fields.pointee.registered = -1
        if PyTuple_Size(arguments) > 0, type == (try ModuleState.of(instance: object.pointer)).protocolType {
            throw typeError("Protocol() takes no arguments")
        }
        fields.pointee.writeBuffer = try Object(PyByteArray_FromStringAndSize(nil, 0)).take()
        fields.pointee.clientInfo = try Object(PyDict_New()).take()
        return object
    }

    private static func traverse(_ me: PyPointer?, _ visit: visitproc?, _ argument: UnsafeMutableRawPointer?)
        -> Int32
    {
        guard let me, let visit else { return 0 }
        let fields = me.cast(to: ProtocolObject.self).pointee
        for part in [fields.clientInfo, fields.writeBuffer, cpython_type(me).map { asObject($0) }] {
            guard let part else { continue }
            let result = visit(part, argument)
            if result != 0 { return result }
        }
        return 0
    }

    private static func clear(_ me: PyPointer?) {
        guard let fields = me?.cast(to: ProtocolObject.self) else { return }
        let parts = [fields.pointee.clientInfo, fields.pointee.writeBuffer]
        fields.pointee.clientInfo = nil
        fields.pointee.writeBuffer = nil
        for part in parts { Py_DecRef(part) }
    }

    /// Sets what every protocol has, whether or not a subclass calls `super()`.
    static func setConnection(_ me: PyPointer, _ fd: Int32, _ info: PyPointer) {
        let fields = me.cast(to: ProtocolObject.self)
        fields.pointee.fd = fd
        Py_IncRef(info)
        let old = fields.pointee.clientInfo
        fields.pointee.clientInfo = info
        Py_DecRef(old)
    }

    /// Notes which reactor serves the connection.
    static func attach(_ me: PyPointer, _ inbox: ReactorInbox, _ token: Poller.Token) {
        let fields = me.cast(to: ProtocolObject.self)
        detach(me)
        fields.pointee.inbox = .passRetained(inbox)
        fields.pointee.token = token.bits
    }

    /// Undoes `attach`.
    static func detach(_ me: PyPointer) {
        let fields = me.cast(to: ProtocolObject.self)
        fields.pointee.inbox?.release()
        fields.pointee.inbox = nil
    }

    /// From whom the datagram is that comes next.
    static func setPeer(_ me: PyPointer, _ address: SocketAddress) {
        let fields = me.cast(to: ProtocolObject.self)
        guard let known = fields.pointee.peer else {
            let made = UnsafeMutablePointer<SocketAddress>.allocate(capacity: 1)
            made.initialize(to: address)
            fields.pointee.peer = made
            return
        }
        known.pointee = address
    }

    /// Whom a datagram answers; no address where there was none yet.
    static func peer(_ me: PyPointer) -> SocketAddress {
        me.cast(to: ProtocolObject.self).pointee.peer?.pointee ?? SocketAddress()
    }

    // MARK: Bytes

    private static func read(_ me: PyPointer, _ size: Int) throws(PythonError) -> Object {
        let result = try Object(PyBytes_FromStringAndSize(nil, size))
        guard let memory = PyBytes_AsString(result.pointer) else { throw PythonError() }
        let outcome = readAvailable(me.cast(to: ProtocolObject.self).pointee.fd, memory, size)
        guard case .bytes(let count) = outcome, count > 0 else {
            return try newBytes(UnsafeRawBufferPointer(start: nil, count: 0))
        }
        if count == size { return result }
        return try newBytes(UnsafeRawBufferPointer(start: memory, count: count))
    }

    static func write(_ me: PyPointer, _ data: UnsafeRawBufferPointer) throws(PythonError) -> Int {
        let fields = me.cast(to: ProtocolObject.self).pointee
        let outcome =
            if let peer = fields.peer { sendDatagram(fields.fd, data, to: peer.pointee) } else {
                writeAvailable(fields.fd, data)
            }
        note(outcome, of: me)
        switch outcome {
        case .bytes(let written):
            countWritten(written, by: me)
            return written
        case .wouldBlock, .noMemory: return 0
        case .failed(let error): throw osError(error.code)
        }
    }

    /// Counts what the protocol of a served connection has written, whoever has it written.
    private static func countWritten(_ size: Int, by me: PyPointer) {
        let inbox = me.cast(to: ProtocolObject.self).pointee.inbox?.takeUnretainedValue()
        if let inbox { count(inbox.statistics.bytesOut, size) }
    }

    /// Notes whether the kernel lacked memory for a write.
    @inline(__always)
    static func note(_ outcome: Transfer, of me: PyPointer) {
        var isShort: CChar = 0
        if case .noMemory = outcome { isShort = 1 }
        me.cast(to: ProtocolObject.self).pointee.isShortOfMemory = isShort
    }

    /// Whether the last write has failed for a lack of memory: the poller says all the time that there is room.
    static func isShortOfMemory(_ me: PyPointer) -> Bool {
        me.cast(to: ProtocolObject.self).pointee.isShortOfMemory != 0
    }

    /// Writes what it can of `write_buffer`; true when nothing is left.
    static func flush(_ me: PyPointer) throws(PythonError) -> Bool {
        guard let buffer = try checkedWriteBuffer(me) else { return true }
        // The callbacks of this protocol run on this thread only, so the size cannot change between
        // here and the end of the write, which keeps the GIL: a socket that is not ready says so at once.
        let size = PyByteArray_Size(buffer)
        if size == 0 { return true }
        let written = try write(me, UnsafeRawBufferPointer(start: PyByteArray_AsString(buffer), count: size))
        if written > 0 { try forget(written, of: buffer, me) }
        return written == size
    }

    /// `write_buffer`, nil where it was deleted.
    static func checkedWriteBuffer(_ me: PyPointer) throws(PythonError) -> PyPointer? {
        guard let buffer = me.cast(to: ProtocolObject.self).pointee.writeBuffer else { return nil }
        guard cpython_is_subtype_of(buffer, cpython_bytearray_type()) != 0 else {
            throw typeError("write_buffer must be a bytearray, not \(typeName(of: buffer))")
        }
        return buffer
    }

    /// Takes what was written out of `write_buffer`. One that a memoryview shows cannot shrink: the rest
    /// goes on in a new bytearray, or it would be written again.
    static func forget(_ written: Int, of buffer: PyPointer, _ me: PyPointer) throws(PythonError) {
        let size = PyByteArray_Size(buffer)
        let result = written == size ? PyByteArray_Resize(buffer, 0) : PySequence_DelSlice(buffer, 0, written)
        if result == 0 { return }
        guard PyErr_ExceptionMatches(cpython_BufferError()) != 0 else { throw PythonError() }
        PyErr_Clear()
        let rest = try Object(
            PyByteArray_FromStringAndSize(PyByteArray_AsString(buffer).map { $0 + written }, size - written))
        me.cast(to: ProtocolObject.self).pointee.writeBuffer = rest.take()
        Py_DecRef(buffer)
    }

    /// How much waits in `write_buffer`.
    static func unwritten(_ me: PyPointer) throws(PythonError) -> Int {
        guard let buffer = try checkedWriteBuffer(me) else { return 0 }
        return PyByteArray_Size(buffer)
    }
}
