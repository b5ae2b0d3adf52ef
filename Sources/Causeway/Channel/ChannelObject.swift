import CPython
import Python
import Streams

/// The struct of `_causeway.ByteChannel`, of which `erlang.ByteChannel` is the whole: it adds asyncio and files.
struct ChannelObject {
    var head: PyObject
    private var reference: Unmanaged<ByteChannel>?

    /// A new object for a channel. `type` is `erlang.ByteChannel` or a subclass.
    static func make(_ type: PyType?, _ channel: ByteChannel) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        object.pointer.cast(to: ChannelObject.self).pointee.reference = .passRetained(channel)
        return object
    }

    /// The channel of an instance.
    static func channel(_ object: PyPointer) -> ByteChannel {
        // Set before anybody else sees the instance.
        object.cast(to: ChannelObject.self).pointee.reference?.takeUnretainedValue()
            ?? ByteChannel(limit: 0, isErlangs: false)
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway.ByteChannel", ChannelObject.self, flags: [.base, .immutable],
            slots: [
                slot(Py_tp_doc, doc: "The native half of erlang.ByteChannel."),
                slot(Py_tp_new) {
                    (type: PyType?, arguments: PyPointer?, keywords: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        try ChannelObject.new(type, arguments, keywords).take()
                    }
                },
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    me.cast(to: ChannelObject.self).pointee.reference?.release()
                    cpython_free_instance(me)
                },
                slot(Py_tp_repr) { (me: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        guard let me else { throw PythonError() }
                        return try newString(ChannelObject.channel(me).description).take()
                    }
                },
                slot(Py_tp_hash) { (me: PyPointer?) -> Int in
                    guard let me else { return 0 }
                    // -1 is how a hash function reports an error.
                    return ObjectIdentifier(ChannelObject.channel(me)).hashValue & Int.max
                },
                slot(Py_tp_richcompare) {
                    (me: PyPointer?, other: PyPointer?, operation: Int32) -> PyPointer? in
                    guard let me, let other, operation == Py_EQ || operation == Py_NE,
                        let type = try? ModuleState.of(instance: me).channelType,
                        cpython_is_subtype_of(other, type) != 0
                    else {
                        PyErr_Clear()
                        return newNotImplemented()
                    }
                    let isSame = ChannelObject.channel(me) === ChannelObject.channel(other)
                    return newBool(isSame == (operation == Py_EQ))
                },
                slot(Py_tp_iter) { (me: PyPointer?) -> PyPointer? in
                    Py_IncRef(me)
                    return me
                },
                slot(Py_tp_iternext) { (me: PyPointer?) -> PyPointer? in
                    ChannelObject.operate(me) { operation throws(PythonError) in
                        // No result and no error is how an iterator says that there is no more.
                        guard let message = try operation.next(within: -1) else { return nil }
                        return try operation.object(message).take()
                    }
                },
                slot(Py_tp_methods, table: methods),
                slot(Py_tp_getset, table: [closedProperty, maxSizeProperty, PyGetSetDef()]),
            ])
    }

    private static var closedProperty: PyGetSetDef {
        property(
            "closed",
            "Whether nothing more can be sent: it was closed or aborted, or Erlang, which made it, has let go."
        ) { me, _ in
            guard let me else { return nil }
            return newBool(ChannelObject.channel(me).queue.info.end != nil)
        }
    }

    private static var maxSizeProperty: PyGetSetDef {
        property("max_size", "How many bytes may be queued; 0 is no limit.") { me, _ in
            guard let me else { return nil }
            return PyLong_FromLong(ChannelObject.channel(me).queue.limit)
        }
    }

    private static func new(_ type: PyType?, _ arguments: PyPointer?, _ keywords: PyPointer?)
        throws(PythonError) -> Object
    {
        let usage = "ByteChannel() takes the channel that Erlang has passed; ByteChannel.new() makes one"
        guard let type, PyTuple_Size(arguments) == 1, keywords == nil || PyDict_Size(keywords) == 0,
            let source = PyTuple_GetItem(arguments, 0)
        else { throw typeError(usage) }
        let state = try ModuleState.current()
        guard cpython_is_subtype_of(source, state.channelType) != 0 else {
            throw typeError("\(usage), not \(typeName(of: source))")
        }
        return try make(type, channel(source))
    }

    private static var methods: [PyMethodDef] {
        [
            method(
                "send_bytes",
                keywords:
                    "send_bytes($self, data, *, timeout_ms=None)\n--\n\nSend one message of bytes, of which a copy is made, except of large `bytes`.\n\nReturns True. Where there is no room it raises ByteChannelBusy at once; with\ntimeout_ms it waits for room, without the GIL, and raises TimeoutError after\nthat many milliseconds (-1: never). Raises ByteChannelClosed or\nByteChannelAborted where that has happened, TypeError for what is not bytes-like."
            ) { me, arguments, count, names in
                ChannelObject.operate(me) { operation throws(PythonError) in
                    var given = Arguments(of: "send_bytes", arguments, count, names)
                    let data = try given.next("data")
                    let timeout = given.named("timeout_ms")
                    try given.end()
                    guard let data else { throw typeError("send_bytes() needs data to send") }
                    try operation.send(data, timeout: timeout)
                    return newBool(true)
                }
            },
            method(
                "try_receive_bytes",
                keywords:
                    "try_receive_bytes($self)\n--\n\nThe next message as bytes, or None where there is none now.\n\nRaises ByteChannelClosed once it is closed and empty, ByteChannelAborted."
            ) { me, arguments, count, names in
                ChannelObject.operate(me) { operation throws(PythonError) in
                    try Arguments(of: "try_receive_bytes", arguments, count, names).end()
                    guard let message = try operation.tryReceive() else { return newNone() }
                    return try operation.object(message).take()
                }
            },
            method(
                "receive_bytes",
                keywords:
                    "receive_bytes($self, timeout_ms=-1)\n--\n\nWait for the next message, without the GIL, and return it as bytes.\n\nRaises TimeoutError after that many milliseconds (-1 or None: never),\nByteChannelClosed once it is closed and empty, ByteChannelAborted."
            ) { me, arguments, count, names in
                ChannelObject.operate(me) { operation throws(PythonError) in
                    var given = Arguments(of: "receive_bytes", arguments, count, names)
                    let timeout = try given.next("timeout_ms")
                    try given.end()
                    return try operation.object(try operation.receive(timeout: timeout)).take()
                }
            },
            method(
                "receive_buffer",
                keywords:
                    "receive_buffer($self, timeout_ms=-1)\n--\n\nAs receive_bytes, but a ReactorBuffer that shows the message where it is,\nwithout a copy: a large binary of Erlang's stays there as long as it lives."
            ) { me, arguments, count, names in
                ChannelObject.operate(me) { operation throws(PythonError) in
                    var given = Arguments(of: "receive_buffer", arguments, count, names)
                    let timeout = try given.next("timeout_ms")
                    try given.end()
                    return try operation.buffer(try operation.receive(timeout: timeout)).take()
                }
            },
            method(
                "receive_into",
                keywords:
                    "receive_into($self, buffer, timeout_ms=-1)\n--\n\nAs receive_bytes, but copies the message to the start of a writable buffer.\n\nReturns how many bytes it has. Where they do not fit it raises ValueError, and\nthe message stays the next."
            ) { me, arguments, count, names in
                ChannelObject.operate(me) { operation throws(PythonError) in
                    var given = Arguments(of: "receive_into", arguments, count, names)
                    let buffer = try given.next("buffer")
                    let timeout = try given.next("timeout_ms")
                    try given.end()
                    guard let buffer else { throw typeError("receive_into() needs a buffer") }
                    let size = try operation.receive(into: buffer, timeout: timeout)
                    return PyLong_FromLong(size)
                }
            },
            method(
                "receive_many",
                keywords:
                    "receive_many($self, max_bytes=1048576, timeout_ms=-1)\n--\n\nWait as receive_bytes for the next message; return a list of it and of all\nthat are there already, up to max_bytes together and to 4,096 messages. The\nfirst is taken however large it is. Raises ValueError for a max_bytes below 1."
            ) { me, arguments, count, names in
                ChannelObject.operate(me) { operation throws(PythonError) in
                    var given = Arguments(of: "receive_many", arguments, count, names)
                    let bytes = try given.next("max_bytes")
                    let timeout = try given.next("timeout_ms")
                    try given.end()
                    return try operation.receiveMany(bytes: bytes, timeout: timeout).take()
                }
            },
            method(
                "close",
                keywords:
                    "close($self)\n--\n\nTake no more messages; what is queued can be received. Any number of times."
            ) { me, arguments, count, names in
                ChannelObject.operate(me) { operation throws(PythonError) in
                    try Arguments(of: "close", arguments, count, names).end()
                    operation.channel.queue.close()
                    return newNone()
                }
            },
            method(
                "abort",
                keywords:
                    "abort($self, reason=None)\n--\n\nDrop what is queued: from now on every side gets ByteChannelAborted, in Erlang\n{error, {aborted, Reason}}. The first reason stays."
            ) { me, arguments, count, names in
                ChannelObject.operate(me) { operation throws(PythonError) in
                    var given = Arguments(of: "abort", arguments, count, names)
                    let reason = try given.next("reason")
                    try given.end()
                    let why = try AbortReason(reason ?? cpython_none(), operation.state)
                    operation.channel.abort(why, origin: .none)
                    return newNone()
                }
            },
            method(
                "info",
                keywords:
                    "info($self)\n--\n\nHow it stands, as a dict: size and max_size in bytes, closed, aborted, messages,\nmessages_in, messages_out, bytes_in, bytes_out, waiting_receivers, waiting_senders."
            ) { me, arguments, count, names in
                ChannelObject.operate(me) { operation throws(PythonError) in
                    try Arguments(of: "info", arguments, count, names).end()
                    return try operation.channel.info().take()
                }
            },
            method(
                "_wait_receive",
                keywords:
                    "_wait_receive($self, bell, key)\n--\n\nBegin to wait for a message; the bell tells the key when it is there."
            ) { me, arguments, count, names in
                ChannelObject.operate(me) { operation throws(PythonError) in
                    var given = Arguments(of: "_wait_receive", arguments, count, names)
                    let bell = try given.next("bell")
                    let key = try given.next("key")
                    try given.end()
                    return try operation.wait(bell: bell, key: key, message: nil).take()
                }
            },
            method(
                "_wait_send",
                keywords:
                    "_wait_send($self, bell, key, data)\n--\n\nBegin to wait for room; the bell tells the key when the data was sent."
            ) { me, arguments, count, names in
                ChannelObject.operate(me) { operation throws(PythonError) in
                    var given = Arguments(of: "_wait_send", arguments, count, names)
                    let bell = try given.next("bell")
                    let key = try given.next("key")
                    let data = try given.next("data")
                    try given.end()
                    guard let data else { throw typeError("_wait_send() needs the data") }
                    let message = try Payload.make(data, operation.state)
                    return try operation.wait(bell: bell, key: key, message: message).take()
                }
            },
            PyMethodDef(),
        ]
    }

    /// Runs a method, with what it needs of the instance.
    static func operate(
        _ me: PyPointer?, _ body: (ChannelOperation) throws(PythonError) -> PyPointer?
    ) -> PyPointer? {
        guard let me else { return nil }
        do throws(PythonError) {
            return try body(ChannelOperation(channel(me), try ModuleState.of(instance: me)))
        } catch { return nil }
    }
}

extension ByteChannel: CustomStringConvertible {
    var description: String {
        let info = queue.info
        let limit = queue.limit == 0 ? "" : " of \(queue.limit)"
        let end = info.end.map { $0 == .closed ? ", closed" : ", aborted" } ?? ""
        return "<erlang.ByteChannel \(info.messages) messages, \(info.size)\(limit) bytes\(end)>"
    }

    /// The same as Erlang's `info/1`.
    func info() throws(PythonError) -> Object {
        let (numbers, flags) = facts
        let dict = try Object(PyDict_New())
        for (name, number) in numbers { try set(name, Object(PyLong_FromLong(number)), in: dict.pointer) }
        for (name, flag) in flags { try set(name, Object(owning: newBool(flag)), in: dict.pointer) }
        return dict
    }
}
