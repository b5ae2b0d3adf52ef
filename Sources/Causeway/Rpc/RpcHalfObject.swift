import CPython
import Python
import Streams

/// The struct of `_causeway._RpcHalf`, on which `erlang.rpc` builds its streams.
struct RpcHalfObject {
    var head: PyObject
    private var reference: Unmanaged<StreamHalf>?
    /// How many bytes were taken that the other half was not told of.
    private var owed = 0
    /// Whether Python has made it: Erlang looks after its own.
    private var isOurs = false

    static func make(_ type: PyType?, _ half: StreamHalf, isOurs: Bool = false) throws(PythonError) -> Object
    {
        let object = try Object(cpython_alloc_instance(type))
        let fields = object.pointer.cast(to: RpcHalfObject.self)
        fields.pointee.reference = .passRetained(half)
        fields.pointee.isOurs = isOurs
        return object
    }

    private static func half(_ object: PyPointer?) -> StreamHalf? {
        object?.cast(to: RpcHalfObject.self).pointee.reference?.takeUnretainedValue()
    }

    /// A chunk, and how much it weighs, for who counts that itself.
    static func pair(_ chunk: Payload, _ operation: RpcOperation) throws(PythonError) -> Object {
        let weight = chunk.count
        let object = try operation.object(chunk)
        let pair = try Object(PyTuple_New(2))
        PyTuple_SetItem(pair.pointer, 0, object.take())
        PyTuple_SetItem(pair.pointer, 1, try Object(PyLong_FromLong(weight)).take())
        return pair
    }

    private static func count(_ chunk: Payload, _ me: PyPointer) {
        me.cast(to: RpcHalfObject.self).pointee.owed &+= chunk.count
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._RpcHalf", RpcHalfObject.self, flags: [.immutable],
            slots: [
                slot(
                    Py_tp_doc,
                    doc: "The native half of a stream of erlang.rpc, with a window of so many bytes."),
                slot(Py_tp_new) {
                    (type: PyType?, arguments: PyPointer?, _: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        guard PyTuple_Size(arguments) == 1, let argument = PyTuple_GetItem(arguments, 0),
                            let window = try integer(argument), window > 0
                        else { throw valueError("window is a positive number of bytes") }
                        return try RpcHalfObject.make(type, StreamHalf(window: window) { _ in }, isOurs: true)
                            .take()
                    }
                },
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    let fields = me.cast(to: RpcHalfObject.self).pointee
                    if fields.isOurs { fields.reference?.takeUnretainedValue().detach() }
                    fields.reference?.release()
                    cpython_free_instance(me)
                },
                slot(Py_tp_iter) { (me: PyPointer?) -> PyPointer? in
                    Py_IncRef(me)
                    return me
                },
                slot(Py_tp_iternext) { (me: PyPointer?) -> PyPointer? in
                    RpcHalfObject.operate(me) { me, operation throws(PythonError) in
                        // No result and no error is how an iterator says that there is no more.
                        switch try operation.receive(within: -1) {
                        case .chunk(let chunk):
                            RpcHalfObject.count(chunk, me)
                            return try operation.object(chunk).take()
                        case .failed(let failure): throw try operation.raise(failure)
                        case .end, .empty: return nil
                        }
                    }
                },
                slot(Py_tp_methods, table: methods),
                slot(Py_tp_getset, table: properties),
            ])
    }

    private static var properties: [PyGetSetDef] {
        [
            property("owed", "How many bytes were taken since settle().") { me, _ in
                PyLong_FromLong(me?.cast(to: RpcHalfObject.self).pointee.owed ?? 0)
            },
            property("waiting", "How many bytes wait in the outbox.") { me, _ in
                PyLong_FromLong(RpcHalfObject.half(me)?.outbox?.info.size ?? 0)
            },
            property("over", "Whether nothing can happen any more.") { me, _ in
                newBool(RpcHalfObject.half(me)?.isOver ?? true)
            }, PyGetSetDef(),
        ]
    }

    private static var methods: [PyMethodDef] {
        sending + receiving + ending
            + [
                method(
                    "_wait",
                    "_wait($self, bell, key, goal, data=None, /)\n--\n\nBegin to wait on behalf of a loop."
                ) { me, arguments, count in
                    RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                        guard count >= 3, let arguments, let bell = arguments[0], let key = arguments[1],
                            let number = arguments[2],
                            let goal = RpcOperation.Goal(rawValue: try integer(number) ?? -1)
                        else { throw typeError("_wait() takes a bell, a key and a goal") }
                        return try operation.wait(goal, bell: bell, key: key, count > 3 ? arguments[3] : nil)?
                            .take() ?? newNone()
                    }
                }, PyMethodDef(),
            ]
    }

    private static var sending: [PyMethodDef] {
        [
            method(
                "send",
                "send($self, data, timeout_ms=-1, /)\n--\n\nSend a chunk, and wait for room. False where nothing is sent any more."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    guard count >= 1, let arguments, let data = arguments[0] else {
                        throw typeError("send() needs a chunk")
                    }
                    let sent = try operation.send(
                        data, within: try milliseconds(count > 1 ? arguments[1] : nil))
                    return sent.map { newBool($0) } ?? newNone()
                }
            },
            method(
                "attach", "attach($self, window, /)\n--\n\nHave what is sent wait in an outbox."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    guard count == 1, let argument = arguments?[0], let window = try integer(argument),
                        window > 0
                    else { throw valueError("a window is a positive number of bytes") }
                    _ = operation.half.attachOutbox(window: window)
                    return newNone()
                }
            },
            method(
                "pair", "pair($self, other, /)\n--\n\nJoin two halves: what one sends the other receives."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { me, operation throws(PythonError) in
                    guard count == 1, let other = arguments?[0], cpython_type(other) == cpython_type(me),
                        let half = RpcHalfObject.half(other)
                    else { throw typeError("pair() takes another half") }
                    StreamHalf.pair(operation.half, half)
                    return newNone()
                }
            },
            method(
                "take",
                "take($self, max_bytes, start, /)\n--\n\nWhat is in the outbox: (start and the chunks, weight, chunks, whether it has ended)."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    guard count == 2, let arguments, let limit = arguments[0], let start = arguments[1],
                        let bytes = try integer(limit)
                    else { throw typeError("take() needs a number of bytes and a start") }
                    return try RpcHalfObject.take(max(bytes, 0), start, operation).take()
                }
            },
        ]
    }

    private static func take(_ bytes: Int, _ start: PyPointer, _ operation: RpcOperation) throws(PythonError)
        -> Object
    {
        guard let outbox = operation.half.outbox else { throw runtimeError("there is no outbox") }
        let taken = try withBuffer(start) { start throws(PythonError) in
            try RpcPacket.take(outbox, bytes: bytes, after: start, operation.state)
        }
        let tuple = try Object(PyTuple_New(4))
        Py_IncRef(taken.packet.pointer)
        PyTuple_SetItem(tuple.pointer, 0, taken.packet.pointer)
        PyTuple_SetItem(tuple.pointer, 1, try Object(PyLong_FromLong(taken.weight)).take())
        PyTuple_SetItem(tuple.pointer, 2, try Object(PyLong_FromLong(taken.chunks)).take())
        PyTuple_SetItem(tuple.pointer, 3, newBool(taken.hasEnded))
        return tuple
    }

    private static var receiving: [PyMethodDef] {
        [
            method(
                "receive",
                "receive($self, timeout_ms, at_end, /)\n--\n\nWait for the next chunk; at the end returns the other argument."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { me, operation throws(PythonError) in
                    guard count == 2, let arguments, let atEnd = arguments[1] else {
                        throw typeError("receive() takes a time-out and what it returns at the end")
                    }
                    let time = try milliseconds(arguments[0])
                    switch try operation.receive(within: time) {
                    case .chunk(let chunk):
                        RpcHalfObject.count(chunk, me)
                        return try operation.object(chunk).take()
                    case .failed(let failure): throw try operation.raise(failure)
                    case .end:
                        Py_IncRef(atEnd)
                        return atEnd
                    case .empty: throw operation.noChunk(time)
                    }
                }
            },
            method(
                "try_receive",
                "try_receive($self, empty, at_end, /)\n--\n\nThe next chunk, or what stands for none and for the end."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { me, operation throws(PythonError) in
                    guard count == 2, let arguments, let empty = arguments[0], let atEnd = arguments[1] else {
                        throw typeError("try_receive() takes two values")
                    }
                    switch operation.half.receive() {
                    case .chunk(let chunk):
                        RpcHalfObject.count(chunk, me)
                        return try operation.object(chunk).take()
                    case .failed(let failure): throw try operation.raise(failure)
                    case .end:
                        Py_IncRef(atEnd)
                        return atEnd
                    case .empty:
                        Py_IncRef(empty)
                        return empty
                    }
                }
            },
            method(
                "receive_many",
                "receive_many($self, max_bytes, timeout_ms, /)\n--\n\nThe next chunks as a list, empty at the end."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { me, operation throws(PythonError) in
                    guard count == 2, let arguments, let limit = arguments[0], let bytes = try integer(limit),
                        bytes > 0
                    else { throw valueError("max_bytes must be positive") }
                    let chunks = try operation.receiveMany(
                        bytes: bytes, within: try milliseconds(arguments[1]))
                    let list = try Object(PyList_New(chunks.count))
                    for (index, chunk) in chunks.enumerated() {
                        RpcHalfObject.count(chunk, me)
                        PyList_SetItem(list.pointer, index, try chunk.chunk(operation.state).take())
                    }
                    return list.take()
                }
            },
            method(
                "settle", "settle($self, more=0, /)\n--\n\nHow many bytes were taken since the last time."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { me, _ throws(PythonError) in
                    let fields = me.cast(to: RpcHalfObject.self)
                    if count == 1, let argument = arguments?[0] {
                        fields.pointee.owed &+= try integer(argument) ?? 0
                        return PyLong_FromLong(fields.pointee.owed)
                    }
                    defer { fields.pointee.owed = 0 }
                    return PyLong_FromLong(fields.pointee.owed)
                }
            },
            method(
                "deliver",
                "deliver($self, packet, start, /)\n--\n\nThe chunks of a packet have come. Returns how many those are."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    guard count == 2, let arguments, let packet = arguments[0], let place = arguments[1],
                        let start = try integer(place)
                    else { throw typeError("deliver() takes a packet and a place") }
                    let chunks = try RpcPacket.deliver(
                        packet, from: start, to: operation.half, try operation.state.rpcFunctions().makeReply,
                        operation.state)
                    return PyLong_FromLong(chunks)
                }
            },
        ]
    }

    private static var ending: [PyMethodDef] {
        [
            method(
                "reply",
                "reply($self, timeout_ms=-1, /)\n--\n\nThe reply, 'closed' or 'peer_closed' where none will come, None where none has come in time."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    let time = try milliseconds(count > 0 ? arguments?[0] : nil)
                    return try operation.reply(within: time)?.take() ?? newNone()
                }
            },
            method("set_reply", "set_reply($self, reply, /)\n--\n\nGive the reply. Only the first counts.") {
                me, arguments, count in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    guard count == 1, let reply = arguments?[0] else { throw typeError("a reply is needed") }
                    return newBool(operation.half.setReply(try AbortReason(reply, operation.state)))
                }
            },
            method(
                "end",
                "end($self, how, here=None, there=None, /)\n--\n\n'send', 'close', 'abort' for a reason, or 'lose' for one here and one there."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    guard count >= 1, let arguments, let how = arguments[0] else {
                        throw typeError("end() needs a kind")
                    }
                    let half = operation.half
                    switch try text(of: how) {
                    case "send": half.closeSending()
                    case "close": half.close()
                    case "abort" where count == 2:
                        half.abort(try RpcHalfObject.reason(arguments[1], operation))
                    case "lose" where count == 3:
                        half.lose(
                            here: try RpcHalfObject.reason(arguments[1], operation),
                            there: try RpcHalfObject.reason(arguments[2], operation))
                    default: throw valueError("end() does not know \(describe(how))")
                    }
                    return newNone()
                }
            },
            method(
                "event",
                "event($self, what, reason=None, /)\n--\n\nThe other half has ended: 'send', 'close', or 'abort' or 'lose' for a reason."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    guard count >= 1, let arguments, let what = arguments[0] else {
                        throw typeError("event() needs a kind")
                    }
                    switch try text(of: what) {
                    case "send": operation.half.deliverEnd()
                    case "close": operation.half.deliverClose()
                    case "abort" where count == 2:
                        operation.half.deliverFailure(try RpcHalfObject.reason(arguments[1], operation))
                    case "lose" where count == 2:
                        operation.half.deliverLoss(try RpcHalfObject.reason(arguments[1], operation))
                    default: throw valueError("event() does not know \(describe(what))")
                    }
                    return newNone()
                }
            },
            method("info", "info($self, /)\n--\n\nHow it stands, as a dict.") { me, _, _ in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    try RpcHalfObject.info(operation.half).take()
                }
            },
        ]
    }

    private static func reason(_ object: PyPointer?, _ operation: RpcOperation) throws(PythonError)
        -> AbortReason
    {
        try AbortReason(object ?? cpython_none(), operation.state)
    }

    /// The same as Erlang's `info/1`.
    private static func info(_ half: StreamHalf) throws(PythonError) -> Object {
        let info = half.info
        let numbers: [(StaticString, Int)] = [
            ("inbox_size", info.inbox), ("inbox_bytes", info.inboxBytes), ("window", half.inbox.limit),
            ("waiters", info.receivers), ("seq_in", info.sequenceIn), ("seq_out", info.sequenceOut),
        ]
        let dict = try Object(PyDict_New())
        for (name, number) in numbers { try set(name, Object(PyLong_FromLong(number)), in: dict.pointer) }
        try set("closed_recv", Object(owning: newBool(info.isReceivingClosed)), in: dict.pointer)
        try set("closed_send", Object(owning: newBool(info.isSendingClosed)), in: dict.pointer)
        return dict
    }

    private static func operate(
        _ me: PyPointer?, _ body: (PyPointer, RpcOperation) throws(PythonError) -> PyPointer?
    ) -> PyPointer? {
        guard let me, let half = half(me) else { return nil }
        do throws(PythonError) {
            return try body(me, RpcOperation(half: half, state: try ModuleState.of(instance: me)))
        } catch { return nil }
    }
}

/// A time-out: -1 is none.
private func milliseconds(_ object: PyPointer?) throws(PythonError) -> Int {
    guard let object else { return -1 }
    guard let number = try integer(object), number >= -1, number < 1 << 40 else {
        throw valueError("a time-out is a number of milliseconds, or -1 to wait without limit")
    }
    return number
}

/// The functions of `_causeway` for streaming calls.
enum RpcModule {
    static var functions: [PyMethodDef] {
        [
            method(
                "_register_rpc",
                "_register_rpc($module, make_error, make_reply, /)\n--\n\nThe functions of erlang.rpc."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 2, let arguments, let state = ModuleState.of(module: module),
                        let makeError = arguments[0], let makeReply = arguments[1]
                    else { throw typeError("_register_rpc() takes two functions") }
                    Py_IncRef(makeError)
                    Py_IncRef(makeReply)
                    state.register(RpcFunctions(makeError: makeError, makeReply: makeReply))
                    return newNone()
                }
            }
        ]
    }
}
