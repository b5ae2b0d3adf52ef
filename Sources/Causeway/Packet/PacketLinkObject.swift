import CPython
import Python
import Streams

/// The struct of `_causeway._PacketLink`: the engine behind `erlang.packetstream.PacketConnection`.
struct PacketLinkObject {
    var head: PyObject
    private var reference: Unmanaged<PacketLink>?

    static func make(_ type: PyType?, _ link: PacketLink) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        object.pointer.cast(to: PacketLinkObject.self).pointee.reference = .passRetained(link)
        return object
    }

    static func link(_ me: PyPointer?) throws(PythonError) -> PacketLink {
        guard let link = me?.cast(to: PacketLinkObject.self).pointee.reference?.takeUnretainedValue() else {
            throw typeError("erlang.packetstream makes links")
        }
        return link
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._PacketLink", PacketLinkObject.self,
            flags: [.noConstructor, .immutable],
            slots: [
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    if let reference = me.cast(to: PacketLinkObject.self).pointee.reference {
                        reference.takeUnretainedValue().shut(
                            .closed("the connection was dropped without close()"))
                        reference.release()
                    }
                    cpython_free_instance(me)
                },
                slot(Py_tp_methods, table: methods),
                slot(
                    Py_tp_getset,
                    table: [
                        property("end", "Why no more packets come: a kind and a text; None while they may.") {
                            me, _ in
                            returning { () throws(PythonError) in
                                guard let end = try PacketLinkObject.link(me).lock.withLock({ $0.end }) else {
                                    return newNone()
                                }
                                let tuple = try Object(PyTuple_New(2))
                                PyTuple_SetItem(tuple.pointer, 0, try newString(end.kind).take())
                                PyTuple_SetItem(tuple.pointer, 1, try newString(end.text).take())
                                return tuple.take()
                            }
                        },
                        property("requests_allowed", "Whether the peer may make requests.") { me, _ in
                            returning { () throws(PythonError) in
                                newBool(
                                    try PacketLinkObject.link(me).lock.withLock {
                                        !$0.theirRequestsEnded && $0.refusal == nil && $0.end == nil
                                    })
                            }
                        },
                        PyGetSetDef(),
                    ]),
            ])
    }

    private static var methods: [PyMethodDef] {
        [
            method(
                "request",
                "request($self, rq_type, flags, payload, decode_response, channel, timeout, blocking, /)\n--\n\nMake a request; None where there is no room for it and it may not wait."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard let me, count == 7, let arguments else {
                        throw typeError("request() takes seven arguments")
                    }
                    return try PacketLinkObject.request(me, arguments)
                }
            },
            method(
                "watch_room",
                "watch_room($self, bell, key, /)\n--\n\nHave the bell tell the key when there may be room for a request."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 2, let bell = LoopBellObject.bell(arguments?[0]), let key = arguments?[1],
                        let number = try integer(key)
                    else { throw typeError("watch_room() takes a bell and a key") }
                    let link = try PacketLinkObject.link(me)
                    let hasRoom = link.lock.withLock { c in
                        if link.mayAsk(c) { return true }
                        c.nextWatcher += 1
                        c.watchers.append(
                            PacketLink.Watcher(number: c.nextWatcher) { [weak link] c in
                                link?.mayAsk(c) ?? true
                            } wake: {
                                bell.ring(number)
                            })
                        return false
                    }
                    if hasRoom { bell.ring(number) }
                    return newNone()
                }
            },
            method(
                "set_handler",
                "set_handler($self, channel, handler, takes_lists, /)\n--\n\nOpen a channel, whose requests a handler answers, or None."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 3, let channel = arguments?[0], let handler = arguments?[1],
                        let takesLists = arguments?[2]
                    else { throw typeError("set_handler() takes three arguments") }
                    let link = try PacketLinkObject.link(me)
                    let number = try unsigned("channel", channel)
                    let made =
                        handler == cpython_none()
                        ? nil
                        : PacketHandler(handler, takesLists: PyObject_IsTrue(takesLists) == 1, link.garbage)
                    link.lock.withLock { $0.handlers[number] = .some(made) }
                    return newNone()
                }
            },
            method("remove_handler", "remove_handler($self, channel, /)\n--\n\nClose a channel.") {
                me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let channel = arguments?[0] else {
                        throw typeError("a channel is needed")
                    }
                    let number = try unsigned("channel", channel)
                    return newBool(
                        try PacketLinkObject.link(me).lock.withLock {
                            $0.handlers.removeValue(forKey: number)
                        } != nil)
                }
            },
            method("start", "start($self, /)\n--\n\nBegin to read.") { me, _, _ in
                returning { () throws(PythonError) in
                    let link = try PacketLinkObject.link(me)
                    link.follow(link.lock.withLock { link.needHand(&$0) })
                    return newNone()
                }
            },
            method(
                "answer",
                "answer($self, token, result, /)\n--\n\nAnswer a request of a list with what a handler returned."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 2, let token = arguments?[0], let result = arguments?[1] else {
                        throw typeError("answer() takes a token and a result")
                    }
                    if let number = try integer(token) {
                        try PacketLinkObject.link(me).answerDeferred(number, with: result)
                    }
                    return newNone()
                }
            },
            method("refuse", "refuse($self, token, /)\n--\n\nAnswer that the handler has failed.") {
                me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let token = arguments?[0] else {
                        throw typeError("refuse() takes a token")
                    }
                    if let number = try integer(token) {
                        try PacketLinkObject.link(me).answerDeferred(number, with: nil)
                    }
                    return newNone()
                }
            },
            method(
                "stop_requests",
                "stop_requests($self, text, /)\n--\n\nReject requests with a text from now on."
            ) {
                me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let argument = arguments?[0] else {
                        throw typeError("a text is needed")
                    }
                    try PacketLinkObject.link(me).refuse(try text(of: argument))
                    return newNone()
                }
            },
            method(
                "drain",
                "drain($self, seconds, /)\n--\n\nWait until all requests are answered, both ways; False after so long."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard let me, count == 1, let seconds = arguments?[0] else {
                        throw typeError("a time is needed")
                    }
                    let link = try PacketLinkObject.link(me)
                    let end = try deadline(seconds)
                    let own = PyThread_get_thread_ident()
                    return newBool(
                        try link.wait(until: end, try ModuleState.of(instance: me)) { c in
                            if case .broken = c.end { return true }
                            // A handler that closes its connection need not wait for itself.
                            let running = c.running - (c.crew.contains(own) ? 1 : 0)
                            return running <= 0 && c.work.isEmpty && c.deferred.isEmpty && c.pending.isEmpty
                        })
                }
            },
            method("send_end", "send_end($self, /)\n--\n\nSend the packet that ends this direction.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    try PacketLinkObject.link(me).sendControl(.endOfStream)
                    return newNone()
                }
            },
            method(
                "send_end_of_requests",
                "send_end_of_requests($self, /)\n--\n\nSay that no more requests will come."
            ) {
                me, _, _ in
                returning { () throws(PythonError) in
                    try PacketLinkObject.link(me).sendControl(.endOfRequests)
                    return newNone()
                }
            },
            method(
                "wait_sent",
                "wait_sent($self, seconds, /)\n--\n\nWait until all is written; False after so long."
            ) {
                me, arguments, count in
                returning { () throws(PythonError) in
                    guard let me, count == 1, let seconds = arguments?[0] else {
                        throw typeError("a time is needed")
                    }
                    let link = try PacketLinkObject.link(me)
                    return newBool(
                        try link.wait(until: try deadline(seconds), try ModuleState.of(instance: me)) { c in
                            link.output.size == 0 || c.sendFailure != nil
                        })
                }
            },
            method(
                "join", "join($self, seconds, /)\n--\n\nWait until no more packets come; False after so long."
            ) {
                me, arguments, count in
                returning { () throws(PythonError) in
                    guard let me, count == 1, let seconds = arguments?[0] else {
                        throw typeError("a time is needed")
                    }
                    return newBool(
                        try PacketLinkObject.link(me).wait(
                            until: try deadline(seconds), try ModuleState.of(instance: me)
                        ) {
                            $0.end != nil
                        })
                }
            },
            method("shut", "shut($self, text, /)\n--\n\nEnd at once; the text says why.") {
                me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1, let argument = arguments?[0] else {
                        throw typeError("a text is needed")
                    }
                    try PacketLinkObject.link(me).shut(.closed(try text(of: argument)))
                    return newNone()
                }
            },
            method(
                "wait_over",
                "wait_over($self, seconds, /)\n--\n\nWait until the threads have ended; False after so long."
            ) {
                me, arguments, count in
                returning { () throws(PythonError) in
                    guard let me, count == 1, let seconds = arguments?[0] else {
                        throw typeError("a time is needed")
                    }
                    let own = PyThread_get_thread_ident()
                    return newBool(
                        try PacketLinkObject.link(me).wait(
                            until: try deadline(seconds), try ModuleState.of(instance: me)
                        ) { c in
                            c.starting == 0 && c.crew.allSatisfy { $0 == own }
                        })
                }
            },
            method(
                "halves",
                "halves($self, number=None, /)\n--\n\nThe native halves of the streaming calls that go over it: all, or that of a number."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard let me else { throw PythonError() }
                    var number: UInt32?
                    if count == 1, let argument = arguments?[0] {
                        number = UInt32(exactly: try integer(argument) ?? -1)
                    }
                    let all = try PacketLinkObject.link(me).lock.withLock { c -> [RpcFlow] in
                        guard count > 0 else { return (c.flows ?? [:]).map(\.value) }
                        return number.flatMap { c.flows?[$0] }.map { [$0] } ?? []
                    }
                    let state = try ModuleState.of(instance: me)
                    let list = try Object(PyList_New(all.count))
                    for (index, flow) in all.enumerated() {
                        let half = try RpcHalfObject.make(state.rpcHalfType, flow.half, flow)
                        PyList_SetItem(list.pointer, index, half.take())
                    }
                    return list.take()
                }
            },
            method(
                "calls_of_peer", "calls_of_peer($self, /)\n--\n\nHow many calls the other side has open."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    guard let me else { throw PythonError() }
                    let number = try PacketLinkObject.link(me).lock.withLock { $0.flowsOfPeer }
                    return try Object(PyLong_FromLong(number)).take()
                }
            },
            method("takes_calls", "takes_calls($self, /)\n--\n\nStreaming calls go over it from now on.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    try PacketLinkObject.link(me).lock.withLock { $0.flows = [:] }
                    return newNone()
                }
            },
            method("info", "info($self, /)\n--\n\nCounters and levels, as a dict.") { me, _, _ in
                returning { () throws(PythonError) in try PacketLinkObject.link(me).info().take() }
            },
            PyMethodDef(),
        ]
    }

    private static func request(_ me: PyPointer, _ arguments: UnsafePointer<PyPointer?>) throws(PythonError)
        -> PyPointer
    {
        guard let type = arguments[0], let flags = arguments[1], let data = arguments[2],
            let channel = arguments[4],
            let timeout = arguments[5], let blocking = arguments[6]
        else { throw PythonError() }
        let link = try PacketLinkObject.link(me)
        let state = try ModuleState.of(instance: me)
        let types = try state.packetTypes()
        let number = try unsigned("rq_type", type)
        guard number < .max else {
            throw valueError("rq_type must have less than 64 bits, not \(describe(type))")
        }
        let head = PacketHead(
            isRequest: true, channel: try unsigned("channel", channel), tag: 0,
            flags: try unsigned("flags", flags),
            requestType: number &+ 1)
        guard head.flags <= PacketHead.largestFlags else {
            throw valueError("flags must have at most 62 bits, not \(describe(flags))")
        }
        let payload = try bytes(data)
        let size = PyBytes_Size(payload.pointer)
        guard size <= link.options.maximum - PacketHead.longest else {
            throw valueError(
                "a payload of \(size) bytes is more than max_packet, \(link.options.maximum), allows")
        }
        let end = try deadline(timeout)
        let waits = blocking == cpython_true()
        while true {
            let (request, refusal) = link.submit(head, payload.pointer, deadline: end)
            if let request {
                return try PacketResultObject.make(types.result, link, request, decode: arguments[3]).take()
            }
            switch refusal {
            case .closed: throw raised(types.closed, "the connection is closed")
            case .noRequests:
                throw raised(types.closed, "the end of the requests was sent: no more can be made")
            case .unknownChannel: throw valueError("unknown channel \(head.channel): open_channel() opens it")
            case .noRoom: if !waits { return newNone() }
            }
            let hasRoom = try link.wait(until: end, state) { c in
                link.mayAsk(c)
            }
            guard hasRoom else { throw raised(cpython_TimeoutError(), "no room for a request in time") }
        }
    }
}

/// A `bytes` with what a bytes-like object has.
func bytes(_ object: PyPointer) throws(PythonError) -> Object {
    if cpython_exact_kind(object) == CPYTHON_BYTES { return Object(retaining: object) }
    guard PyObject_CheckBuffer(object) != 0 else {
        throw typeError("a payload is bytes or something bytes-like, not \(typeName(of: object))")
    }
    return try Object(PyBytes_FromObject(object))
}

/// A number of a packet.
func unsigned(_ name: StaticString, _ object: PyPointer) throws(PythonError) -> UInt64 {
    if let small = try integer(object) {
        guard let number = UInt64(exactly: small) else {
            throw valueError("\(name) must not be negative, but is \(small)")
        }
        return number
    }
    let large = PyLong_AsUnsignedLongLong(object)
    if large == .max, PyErr_Occurred() != nil {
        PyErr_Clear()
        throw valueError("\(name) must be 0 or more and have at most 64 bits, not \(describe(object))")
    }
    return large
}

extension PacketLink {
    func info() throws(PythonError) -> Object {
        let (counters, levels) = lock.withLock { c in
            (
                c.counters,
                [
                    ("outstanding", c.pending.count), ("unanswered", c.inFlight.count),
                    ("waiting", c.work.count),
                    ("running", c.running), ("queued_bytes", output.size), ("inbound_bytes", c.inboundBytes),
                    ("threads", c.crew.count),
                ] as [(StaticString, Int)]
            )
        }
        let all: [(StaticString, Int)] =
            levels + [
                ("packets_sent", counters.packetsSent), ("packets_received", counters.packetsReceived),
                ("bytes_sent", counters.bytesSent), ("bytes_received", counters.bytesReceived),
                ("requests_sent", counters.requestsSent), ("requests_received", counters.requestsReceived),
                ("rejected", counters.rejected), ("late_responses", counters.lateResponses),
                ("unknown_responses", counters.unknownResponses),
            ]
        let dict = try Object(PyDict_New())
        for (name, number) in all { try set(name, Object(PyLong_FromLong(number)), in: dict.pointer) }
        return dict
    }
}
