import CPython
import Python
import Streams

/// The struct of `_causeway._RpcHalf`, on which `erlang.rpc` builds its streams.
struct RpcHalfObject {
    var head: PyObject
    private var reference: Unmanaged<StreamHalf>?
    /// Where the other half is at the other end of a packet connection.
    private var flow: Unmanaged<RpcFlow>?
    /// Whether Python has made it: Erlang looks after its own.
    private var isOurs = false

    static func make(
        _ type: PyType?, _ half: StreamHalf, _ flow: RpcFlow? = nil, isOurs: Bool = false
    ) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        let fields = object.pointer.cast(to: RpcHalfObject.self)
        fields.pointee.reference = .passRetained(half)
        fields.pointee.flow = flow.map { .passRetained($0) }
        fields.pointee.isOurs = isOurs
        return object
    }

    private static func half(_ object: PyPointer?) -> StreamHalf? {
        object?.cast(to: RpcHalfObject.self).pointee.reference?.takeUnretainedValue()
    }

    /// A chunk, and how much it weighs, for who counts that itself.
    static func pair(_ chunk: Payload, _ operation: RpcOperation) throws(PythonError) -> Object {
        let weight = chunk.chunkWeight
        let object = try operation.object(chunk)
        let pair = try Object(PyTuple_New(2))
        PyTuple_SetItem(pair.pointer, 0, object.take())
        PyTuple_SetItem(pair.pointer, 1, try Object(PyLong_FromLong(weight)).take())
        return pair
    }

    private static func flow(_ object: PyPointer) -> RpcFlow? {
        object.cast(to: RpcHalfObject.self).pointee.flow?.takeUnretainedValue()
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
                    if fields.isOurs, fields.flow == nil { fields.reference?.takeUnretainedValue().detach() }
                    fields.flow?.release()
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
                        case .chunk(let chunk): return try operation.taken(chunk).take()
                        case .failed(let failure): throw try operation.raise(failure)
                        case .end, .empty:
                            operation.took(0)
                            return nil
                        }
                    }
                },
                slot(Py_tp_methods, table: methods),
                slot(Py_tp_getset, table: properties),
            ])
    }

    private static var properties: [PyGetSetDef] {
        [
            property("over", "Whether nothing can happen any more.") { me, _ in
                newBool(RpcHalfObject.half(me)?.isOver ?? true)
            },
            property("room", "How many bytes the other half may send before any are received.") { me, _ in
                PyLong_FromLong(RpcFlow.room(RpcHalfObject.half(me)?.inbox.limit ?? 0))
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
                "attach",
                "attach($self, link, number, credit, /)\n--\n\nHave what is sent go over a connection of packets, where the other half has room for so\nmany bytes and the number comes with what it sends. False where that has ended."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { me, operation throws(PythonError) in
                    guard count == 3, let arguments, let object = arguments[0], let number = arguments[1],
                        let credit = arguments[2], let number = UInt32(exactly: try integer(number) ?? -1),
                        let credit = try integer(credit), credit >= 0
                    else { throw typeError("attach() takes a link, a number and a credit") }
                    let link = try PacketLinkObject.link(object)
                    let half = operation.half
                    _ = half.attachOutbox(window: RpcFlow.outbox)
                    let flow = RpcFlow(
                        half, link, number: number, credit: credit, room: RpcFlow.room(half.inbox.limit))
                    guard link.add(flow) else { return newBool(false) }
                    me.cast(to: RpcHalfObject.self).pointee.flow = .passRetained(flow)
                    return newBool(true)
                }
            },
            method(
                "grant", "grant($self, bytes, /)\n--\n\nThe other half has room for more."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    guard count == 1, let argument = arguments?[0], let more = try integer(argument),
                        more >= 0
                    else { throw valueError("room is a number of bytes") }
                    operation.flow?.grant(more)
                    operation.passOn()
                    return newNone()
                }
            },
            method(
                "pass_on",
                "pass_on($self, /)\n--\n\nHave what was sent, or an end, go over the connection, if there is one."
            ) { me, _, _ in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    operation.passOn()
                    return newNone()
                }
            },
            method(
                "ending",
                "ending($self, code=None, message=None, /)\n--\n\nSay how it is about to end: with an error, or closed."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    guard count == 2, let code = arguments?[0], let message = arguments?[1] else {
                        operation.flow?.willEnd(.both)
                        return newNone()
                    }
                    operation.flow?.willEnd(
                        .failure(code: try text(of: code), message: try text(of: message)))
                    return newNone()
                }
            },
            method(
                "leave", "leave($self, /)\n--\n\nNothing more goes over the connection."
            ) { me, _, _ in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    operation.flow?.leave()
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
        ]
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
                    case .chunk(let chunk): return try operation.taken(chunk).take()
                    case .failed(let failure): throw try operation.raise(failure)
                    case .end:
                        operation.took(0)
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
                    case .chunk(let chunk): return try operation.taken(chunk).take()
                    case .failed(let failure): throw try operation.raise(failure)
                    case .end:
                        operation.took(0)
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
                        PyList_SetItem(list.pointer, index, try chunk.chunk(operation.state).take())
                    }
                    operation.took(chunks.reduce(0) { $0 + $1.chunkWeight })
                    return list.take()
                }
            },
            method(
                "took", "took($self, weight, /)\n--\n\nA chunk of so many bytes was taken by a waiter."
            ) { me, arguments, count in
                RpcHalfObject.operate(me) { _, operation throws(PythonError) in
                    guard count == 1, let argument = arguments?[0], let weight = try integer(argument) else {
                        throw typeError("a number of bytes is needed")
                    }
                    operation.took(weight)
                    return newNone()
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
                    let isFirst = operation.half.setReply(try RpcHalfObject.reply(reply, operation))
                    operation.passOn()
                    return newBool(isFirst)
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
                    operation.passOn()
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
                    operation.passOn()
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

    /// The third of a reply's tuple is what goes over the wire.
    private static func reply(_ object: PyPointer, _ operation: RpcOperation) throws(PythonError)
        -> any StreamHalf.Value
    {
        let reply = try AbortReason(object, operation.state)
        guard cpython_is_tuple(object) != 0, PyTuple_Size(object) == 3, let body = PyTuple_GetItem(object, 2),
            cpython_type(body) == cpython_bytes_type()
        else { return reply }
        let bytes = UnsafeRawBufferPointer(start: PyBytes_AsString(body), count: PyBytes_Size(body))
        return WireReply(reply, body: Payload(copying: bytes))
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
            return try body(
                me, RpcOperation(half: half, flow: flow(me), state: try ModuleState.of(instance: me)))
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
                "_register_rpc($module, make_error, make_reply, begin_wait, end_wait, /)\n--\n\nThe functions of erlang.rpc."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 4, let arguments, let state = ModuleState.of(module: module),
                        let makeError = arguments[0], let makeReply = arguments[1],
                        let beginWait = arguments[2], let endWait = arguments[3]
                    else { throw typeError("_register_rpc() takes four functions") }
                    for index in 0..<4 { Py_IncRef(arguments[index]) }
                    state.register(
                        RpcFunctions(
                            makeError: makeError, makeReply: makeReply, beginWait: beginWait, endWait: endWait
                        ))
                    return newNone()
                }
            }
        ]
    }
}
