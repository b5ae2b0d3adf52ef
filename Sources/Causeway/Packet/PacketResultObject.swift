import CPython
import Python
import Streams

/// The struct of `_causeway._PacketResult`, of which `erlang.packetstream.Result` is the whole.
struct PacketResultObject {
    var head: PyObject
    private var request: Unmanaged<PacketRequest>?
    /// Until somebody has asked: a result that is kept does not keep the descriptors.
    private var link: Unmanaged<PacketLink>?
    private var decode: PyPointer?
    /// What it has come to, once somebody has asked.
    private var value: PyPointer?
    private var error: PyPointer?

    static func make(
        _ type: PyPointer, _ link: PacketLink, _ request: PacketRequest, decode: PyPointer?
    ) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(asType(type)))
        let fields = object.pointer.cast(to: PacketResultObject.self)
        fields.pointee.request = .passRetained(request)
        fields.pointee.link = .passRetained(link)
        if let decode, decode != cpython_none() {
            Py_IncRef(decode)
            fields.pointee.decode = decode
        }
        return object
    }

    private static func request(_ me: PyPointer?) throws(PythonError) -> PacketRequest {
        guard let request = me?.cast(to: PacketResultObject.self).pointee.request?.takeUnretainedValue()
        else {
            throw typeError("a result comes from a request")
        }
        return request
    }

    /// Nil where it is over.
    private static func link(_ me: PyPointer?) -> PacketLink? {
        me?.cast(to: PacketResultObject.self).pointee.link?.takeUnretainedValue()
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._PacketResult", PacketResultObject.self,
            flags: [.base, .immutable, .collected],
            slots: [
                slot(Py_tp_doc, doc: "The native half of erlang.packetstream.Result."),
                // The traceback of an exception has frames that refer to the result.
                slot(Py_tp_traverse) {
                    (me: PyPointer?, visit: visitproc?, argument: UnsafeMutableRawPointer?) -> Int32 in
                    guard let me, let visit else { return 0 }
                    let fields = me.cast(to: PacketResultObject.self).pointee
                    for part in [
                        fields.decode, fields.value, fields.error, cpython_type(me).map { asObject($0) },
                    ] {
                        guard let part else { continue }
                        let result = visit(part, argument)
                        if result != 0 { return result }
                    }
                    return 0
                },
                slot(Py_tp_clear) { (me: PyPointer?) -> Int32 in
                    if let me { PacketResultObject.clear(me) }
                    return 0
                },
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    PyObject_GC_UnTrack(me)
                    PacketResultObject.clear(me)
                    let fields = me.cast(to: PacketResultObject.self).pointee
                    fields.request?.release()
                    fields.link?.release()
                    cpython_free_instance(me)
                },
                slot(Py_tp_call) { (me: PyPointer?, arguments: PyPointer?, names: PyPointer?) -> PyPointer? in
                    returning { () throws(PythonError) in
                        guard let me, PyTuple_Size(arguments) == 0, names == nil else {
                            throw typeError("a result is called without arguments")
                        }
                        let request = try PacketResultObject.request(me)
                        let state = try ModuleState.of(instance: me)
                        _ = try PacketResultObject.link(me)?.wait(for: request, until: .max, state)
                        return try PacketResultObject.outcome(me, request, state).take()
                    }
                },
                slot(Py_tp_methods, table: methods),
                slot(Py_tp_getset, table: properties),
            ])
    }

    private static func clear(_ me: PyPointer) {
        let fields = me.cast(to: PacketResultObject.self)
        let parts = [fields.pointee.decode, fields.pointee.value, fields.pointee.error]
        fields.pointee.decode = nil
        fields.pointee.value = nil
        fields.pointee.error = nil
        // Not before: what goes with them may look at the result.
        for part in parts { Py_DecRef(part) }
    }

    private static var properties: [PyGetSetDef] {
        [
            property("ready", "Whether it is known what became of the request.") { me, _ in
                returning { () throws(PythonError) in newBool(try PacketResultObject.request(me).isSettled) }
            },
            property(
                "cancelled",
                "Whether there will be no response: it was given up, or the connection has ended."
            ) {
                me, _ in
                returning { () throws(PythonError) in
                    let request = try PacketResultObject.request(me)
                    guard request.isSettled else { return newBool(false) }
                    switch request.outcome {
                    case .cancelled, .ended(.finished), .ended(.closed): return newBool(true)
                    default: return newBool(false)
                    }
                }
            },
            property("tag", "The number of the request on its connection.") { me, _ in
                returning { () throws(PythonError) in
                    try Object(
                        PyLong_FromUnsignedLong(
                            UInt(truncatingIfNeeded: try PacketResultObject.request(me).tag))
                    ).take()
                }
            },
            property("channel", "The channel of the request.") { me, _ in
                returning { () throws(PythonError) in
                    try Object(
                        PyLong_FromUnsignedLong(
                            UInt(truncatingIfNeeded: try PacketResultObject.request(me).channel))
                    )
                    .take()
                }
            },
            PyGetSetDef(),
        ]
    }

    private static var methods: [PyMethodDef] {
        [
            method(
                "cancel",
                "cancel($self, /)\n--\n\nGive the request up: who waits gets CancellationError, a response is dropped.\n\nReturns whether that was so; False where it was known already what became of it."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    let request = try PacketResultObject.request(me)
                    return newBool(PacketResultObject.link(me)?.cancel(request) ?? false)
                }
            },
            method(
                "_wait",
                "_wait($self, seconds, /)\n--\n\nWait at most so long, None is for ever; whether it is ready."
            ) {
                me, arguments, count in
                returning { () throws(PythonError) in
                    guard let me, count == 1, let argument = arguments?[0] else {
                        throw typeError("_wait() takes a time")
                    }
                    let request = try PacketResultObject.request(me)
                    let end = try deadline(argument)
                    let state = try ModuleState.of(instance: me)
                    return newBool(
                        try PacketResultObject.link(me)?.wait(for: request, until: end, state) ?? true)
                }
            },
            method("_outcome", "_outcome($self, /)\n--\n\nWhat became of it, where that is known.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    guard let me else { throw PythonError() }
                    return try PacketResultObject.outcome(
                        me, try PacketResultObject.request(me), try ModuleState.of(instance: me)
                    ).take()
                }
            },
            method(
                "_on_settled",
                "_on_settled($self, callable, /)\n--\n\nHave it called by a thread of the connection; False where it is ready already."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let callable = arguments?[0] else {
                        throw typeError("_on_settled() takes a callable")
                    }
                    let request = try PacketResultObject.request(me)
                    guard let link = PacketResultObject.link(me) else { return newBool(false) }
                    // Until it is called, the hook owns it.
                    let held = HeldCall(callable)
                    return newBool(
                        link.lock.withLock { _ in
                            guard request.add({ link.call(held) }) else { return false }
                            Py_IncRef(callable)
                            return true
                        })
                }
            },
            method(
                "_watch", "_watch($self, bell, key, /)\n--\n\nHave the bell tell the key when it is ready."
            ) {
                me, arguments, count in
                returning { () throws(PythonError) in
                    guard let me, count == 2, let bell = arguments?[0], let key = arguments?[1],
                        cpython_type(bell) == (try ModuleState.of(instance: me)).loopBellType,
                        let loopBell = LoopBellObject.bell(bell), let number = try integer(key)
                    else { throw typeError("_watch() takes a bell and a key") }
                    let request = try PacketResultObject.request(me)
                    let link = PacketResultObject.link(me)
                    let isWaiting =
                        link?.lock.withLock { _ in request.add { loopBell.ring(number) } } ?? false
                    if !isWaiting { loopBell.ring(number) }
                    link?.flush(isDue: false)
                    return newNone()
                }
            },
            PyMethodDef(),
        ]
    }

    /// What it has come to: for everybody the same object, or the same exception.
    private static func outcome(
        _ me: PyPointer, _ request: PacketRequest, _ state: ModuleState
    ) throws(PythonError) -> Object {
        let fields = me.cast(to: PacketResultObject.self)
        defer {
            if request.isSettled, let link = fields.pointee.link {
                fields.pointee.link = nil
                link.release()
            }
        }
        if let value = fields.pointee.value { return Object(retaining: value) }
        if let error = fields.pointee.error { throw raise(error) }
        do throws(PythonError) {
            let value = try compute(fields.pointee.decode, request, state)
            Py_IncRef(value.pointer)
            // Decoding may have let another thread come first.
            if let other = fields.pointee.value { Py_DecRef(other) }
            fields.pointee.value = value.pointer
            return value
        } catch {
            guard let exception = Exception.take() else { throw error }
            Py_IncRef(exception.value.pointer)
            if let other = fields.pointee.error { Py_DecRef(other) }
            fields.pointee.error = exception.value.pointer
            throw raise(exception.value.pointer)
        }
    }

    private static func raise(_ exception: PyPointer) -> PythonError {
        PyErr_SetObject(cpython_type(exception).map(asObject), exception)
        return PythonError()
    }

    private static func compute(
        _ decode: PyPointer?, _ request: PacketRequest, _ state: ModuleState
    ) throws(PythonError) -> Object {
        let types = try state.packetTypes()
        guard request.isSettled else { throw runtimeError("the request is not over yet") }
        switch request.outcome {
        case .response(let flags, let payload):
            let isOk = flags & 1 != 0
            let number = try Object(PyLong_FromUnsignedLong(UInt(truncatingIfNeeded: flags >> 1)))
            var content = try payload.object()
            if isOk, let decode {
                content = try withUnsafeTemporaryAllocation(of: PyPointer?.self, capacity: 3) {
                    arguments throws(PythonError) in
                    arguments[0] = nil
                    arguments[1] = number.pointer
                    arguments[2] = content.pointer
                    return try Object(cpython_call(decode, arguments.baseAddress?.advanced(by: 1), 2))
                }
            }
            let tuple = try Object(PyTuple_New(3))
            PyTuple_SetItem(tuple.pointer, 0, newBool(isOk))
            PyTuple_SetItem(tuple.pointer, 1, number.take())
            PyTuple_SetItem(tuple.pointer, 2, content.take())
            return tuple
        case .cancelled: throw raised(types.cancelled, "the request was cancelled")
        case .timedOut: throw raised(cpython_TimeoutError(), "no response in time")
        case .ended(.broken(let text)): throw raised(types.broken, text)
        case .ended(let end): throw raised(types.cancelled, end.text)
        case nil: throw runtimeError("the request is not over yet")
        }
    }
}

/// A callable on its way to a hook.
struct HeldCall: @unchecked Sendable {
    let callable: PyPointer
    init(_ callable: PyPointer) { self.callable = callable }
}

extension PacketLink {
    /// Has the crew call something, which it then owns. From any thread.
    func call(_ held: HeldCall) {
        let hand = lock.withLock { c in
            c.hooks.append(.call(held.callable))
            return needHand(&c)
        }
        follow(hand)
    }
}

/// A time of the monotonic clock from seconds from now; None is never.
func deadline(_ seconds: PyPointer) throws(PythonError) -> Int64 {
    if seconds == cpython_none() { return .max }
    let number = PyFloat_AsDouble(seconds)
    if number == -1, PyErr_Occurred() != nil { throw PythonError() }
    guard number >= 0 else { throw valueError("a time-out is a number of seconds, not \(describe(seconds))") }
    return number < 9.2e9 ? monotonicNanoseconds() &+ Int64(number * 1e9) : .max
}

/// The classes of `erlang.packetstream`. They live as long as their interpreter.
struct PacketTypes {
    let result, cancelled, closed, broken: PyPointer
}
