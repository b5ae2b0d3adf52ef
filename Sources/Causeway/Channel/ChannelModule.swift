import CPython
import Python
import Streams

/// The functions of `_causeway` for byte channels.
enum ChannelModule {
    static var functions: [PyMethodDef] {
        [
            method(
                "_new_channel",
                "_new_channel($module, max_size, /)\n--\n\nA channel for at most so many bytes; 0 is no limit."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let argument = arguments?[0], let state = ModuleState.of(module: module)
                    else { throw typeError("_new_channel() takes a size") }
                    guard let limit = try integer(argument), limit >= 0 else {
                        throw valueError(
                            "max_size is a number of bytes, or 0 for no limit, not \(describe(argument))")
                    }
                    let channel = ByteChannel(limit: limit, isErlangs: false)
                    return try ChannelObject.make(state.channelType, channel).take()
                }
            },
            method(
                "_register_channel",
                "_register_channel($module, channel, busy, closed, aborted, /)\n--\n\nThe classes of erlang._channel."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 4, let arguments, let state = ModuleState.of(module: module),
                        let channel = arguments[0], let busy = arguments[1], let closed = arguments[2],
                        let aborted = arguments[3]
                    else { throw typeError("_register_channel() takes four classes") }
                    for index in 0..<4 { Py_IncRef(arguments[index]) }
                    state.register(
                        ChannelTypes(channel: asType(channel), busy: busy, closed: closed, aborted: aborted))
                    return newNone()
                }
            },
        ]
    }
}

/// The struct of `_causeway._ChannelWaiter`: what an asyncio task waits for.
struct ChannelWaiterObject {
    var head: PyObject
    private var channel: Unmanaged<ByteChannel>?
    private var waiter: Unmanaged<Waiter>?

    static func make(_ type: PyType, _ channel: ByteChannel, _ waiter: Waiter) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        let fields = object.pointer.cast(to: ChannelWaiterObject.self)
        fields.pointee.channel = .passRetained(channel)
        fields.pointee.waiter = .passRetained(waiter)
        return object
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._ChannelWaiter", ChannelWaiterObject.self,
            flags: [.noConstructor, .immutable],
            slots: [
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    let fields = me.cast(to: ChannelWaiterObject.self).pointee
                    if let channel = fields.channel, let waiter = fields.waiter {
                        channel.takeUnretainedValue().queue.cancel(waiter.takeUnretainedValue())
                    }
                    fields.channel?.release()
                    fields.waiter?.release()
                    cpython_free_instance(me)
                },
                slot(Py_tp_methods, table: methods),
                slot(
                    Py_tp_getset,
                    table: [
                        property("settled", "Whether the wait is over.") { me, _ in
                            newBool(ChannelWaiterObject.parts(me)?.waiter.isSettled ?? true)
                        }, PyGetSetDef(),
                    ]),
            ])
    }

    private static func parts(_ me: PyPointer?) -> (channel: ByteChannel, waiter: Waiter)? {
        guard let fields = me?.cast(to: ChannelWaiterObject.self).pointee,
            let channel = fields.channel?.takeUnretainedValue(),
            let waiter = fields.waiter?.takeUnretainedValue()
        else { return nil }
        return (channel, waiter)
    }

    private static var methods: [PyMethodDef] {
        [
            method(
                "finish",
                "finish($self, /)\n--\n\nEnd the wait: the message that has come, or True for one that was sent."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    guard let me, let (channel, waiter) = ChannelWaiterObject.parts(me) else {
                        throw PythonError()
                    }
                    let operation = ChannelOperation(channel, try ModuleState.of(instance: me))
                    switch channel.queue.finish(waiter) {
                    case .message(let message): return try operation.object(message).take()
                    case .closed: throw try operation.closed()
                    case .aborted: throw try operation.aborted()
                    case .sent, .ready, .tooLarge: return newBool(true)
                    case nil: throw runtimeError("nothing has happened yet")
                    }
                }
            },
            method(
                "cancel",
                "cancel($self, /)\n--\n\nEnd the wait: a message that has come is the next again, one to send is not sent."
            ) { me, _, _ in
                if let (channel, waiter) = ChannelWaiterObject.parts(me) { channel.queue.cancel(waiter) }
                return newNone()
            },
            PyMethodDef(),
        ]
    }
}

/// The struct of `_causeway._LoopBell`.
struct LoopBellObject {
    var head: PyObject
    private var reference: Unmanaged<KeyBell>?

    static func bell(_ object: PyPointer?) -> KeyBell? {
        object?.cast(to: LoopBellObject.self).pointee.reference?.takeUnretainedValue()
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._LoopBell", LoopBellObject.self, flags: [.immutable],
            slots: [
                slot(Py_tp_new) { (type: PyType?, _: PyPointer?, _: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        let object = try Object(cpython_alloc_instance(type))
                        do throws(Errno) {
                            let bell = try KeyBell()
                            object.pointer.cast(to: LoopBellObject.self).pointee.reference = .passRetained(
                                bell)
                        } catch { throw osError(error.code) }
                        return object.take()
                    }
                },
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    me.cast(to: LoopBellObject.self).pointee.reference?.release()
                    cpython_free_instance(me)
                },
                slot(Py_tp_methods, table: methods),
            ])
    }

    private static var methods: [PyMethodDef] {
        [
            method("fileno", "fileno($self, /)\n--\n\nWhat the loop watches.") { me, _, _ in
                PyLong_FromLong(Int(LoopBellObject.bell(me)?.descriptor.number ?? -1))
            },
            method("drain", "drain($self, /)\n--\n\nThe keys of the waits that are over, as a list.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    let keys = LoopBellObject.bell(me)?.drain() ?? []
                    let list = try Object(PyList_New(keys.count))
                    for (index, key) in keys.enumerated() {
                        PyList_SetItem(list.pointer, index, try Object(PyLong_FromLong(key)).take())
                    }
                    return list.take()
                }
            },
            PyMethodDef(),
        ]
    }
}
