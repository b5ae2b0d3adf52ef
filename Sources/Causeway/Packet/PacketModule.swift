import CPython
import Glibc
import Python
import Streams

/// The functions of `_causeway` for packets.
enum PacketModule {
    static var functions: [PyMethodDef] {
        [
            method(
                "_new_packet_link",
                "_new_packet_link($module, recv, send, hook, options, /)\n--\n\nA link that owns two descriptors from then on. The options are a dict."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 4, let arguments, let recv = arguments[0], let send = arguments[1],
                        let hook = arguments[2], let options = arguments[3],
                        let source = Int32(exactly: try integer(recv) ?? -1),
                        let target = Int32(exactly: try integer(send) ?? -1), source >= 0, target >= 0
                    else { throw typeError("_new_packet_link() takes two descriptors, a hook and options") }
                    let state = try ModuleState.required(module)
                    let input = Descriptor(owning: source)
                    let output = Descriptor(owning: target)
                    let chosen = try PacketLink.Options(options)
                    do throws(Errno) {
                        let link = try PacketLink(
                            source: try PacketStream(owning: input), target: try PacketStream(owning: output),
                            options: chosen, hook: hook, interpreter: PyInterpreterState_Get())
                        return try PacketModule.object(state, link)
                    } catch { throw osError(error.code) }
                }
            },
            method(
                "_register_packets",
                "_register_packets($module, result, cancelled, closed, broken, /)\n--\n\nThe classes of erlang.packetstream."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 4, let arguments, let result = arguments[0], let cancelled = arguments[1],
                        let closed = arguments[2], let broken = arguments[3]
                    else { throw typeError("_register_packets() takes four classes") }
                    for index in 0..<4 { Py_IncRef(arguments[index]) }
                    try ModuleState.required(module).register(
                        PacketTypes(result: result, cancelled: cancelled, closed: closed, broken: broken))
                    return newNone()
                }
            },
            method(
                "_packet_parse",
                "_packet_parse($module, data, offset, maximum, /)\n--\n\nThe packet at an offset: (is_request, channel, tag, flags, type, payload's start, end), or how\nmany bytes there must be from the offset on."
            ) { _, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 3, let offset = arguments?[1], let limit = arguments?[2],
                        let start = try integer(offset), let maximum = try integer(limit), start >= 0,
                        maximum >= 0
                    else { throw typeError("_packet_parse() takes bytes, an offset and a maximum") }
                    return try withBuffer(arguments?[0]) { bytes throws(PythonError) in
                        try PacketModule.parse(bytes, start, maximum)
                    }.take()
                }
            },
            method(
                "_packet_head",
                "_packet_head($module, is_request, channel, tag, flags, type, payload_size, /)\n--\n\nWhat comes before the payload of a packet."
            ) { _, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 6, let arguments, let isRequest = arguments[0], let channel = arguments[1],
                        let tag = arguments[2], let flags = arguments[3], let type = arguments[4],
                        let size = arguments[5], let payload = try integer(size), payload >= 0
                    else { throw typeError("_packet_head() takes six arguments") }
                    let head = PacketHead(
                        isRequest: PyObject_IsTrue(isRequest) == 1, channel: try unsigned("channel", channel),
                        tag: try unsigned("tag", tag), flags: try unsigned("flags", flags),
                        requestType: try unsigned("rq_type", type))
                    guard head.flags <= PacketHead.largestFlags else {
                        throw valueError("flags must have at most 62 bits, not \(describe(flags))")
                    }
                    return try withUnsafeTemporaryAllocation(of: UInt8.self, capacity: PacketHead.longest) {
                        memory throws(PythonError) in
                        guard let base = memory.baseAddress else { throw PythonError() }
                        let count = head.write(payload: payload, to: base)
                        return try newBytes(UnsafeRawBufferPointer(start: base, count: count)).take()
                    }
                }
            },
        ]
    }

    private static func object(_ state: ModuleState, _ link: PacketLink) throws(Errno) -> PyPointer {
        do throws(PythonError) { return try PacketLinkObject.make(state.packetLinkType, link).take() } catch {
            throw Errno(ENOMEM)
        }
    }

    private static func parse(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ maximum: Int)
        throws(PythonError) -> Object
    {
        guard start <= bytes.count else { throw valueError("the offset \(start) is behind the end") }
        let found: FoundPacket
        do throws(PacketError) {
            // The buffer is held meanwhile.
            found = try FoundPacket.decode(
                bytes.bindMemory(to: UInt8.self).span.extracting(droppingFirst: start), maximum: maximum)
        } catch { throw valueError("\(error)") }
        switch found {
        case .incomplete(let needed): return try Object(PyLong_FromLong(needed))
        case .packet(let head, let payload):
            let tuple = try Object(PyTuple_New(7))
            PyTuple_SetItem(tuple.pointer, 0, newBool(head.isRequest))
            for (index, number) in [head.channel, head.tag, head.flags, head.requestType].enumerated() {
                PyTuple_SetItem(
                    tuple.pointer, index + 1,
                    try Object(PyLong_FromUnsignedLong(UInt(truncatingIfNeeded: number))).take())
            }
            for (index, place) in [payload.lowerBound, payload.upperBound].enumerated() {
                PyTuple_SetItem(tuple.pointer, index + 5, try Object(PyLong_FromLong(start + place)).take())
            }
            return tuple
        }
    }
}

extension PacketLink.Options {
    /// From a dict, whose values `erlang.packetstream` has checked.
    init(_ dict: PyPointer) throws(PythonError) {
        self.init()
        func number(_ name: StaticString) throws(PythonError) -> Int? {
            guard let value = PyDict_GetItemString(dict, cString(name)), value != cpython_none() else {
                return nil
            }
            return try integer(value)
        }
        maximum = try number("max_packet") ?? maximum
        workers = try number("workers") ?? workers
        maxOutstanding = try number("max_outstanding") ?? maxOutstanding
        sendWindow = try number("send_window") ?? sendWindow
        maxRequests = try number("max_requests") ?? maxRequests
        receiveWindow = try number("receive_window") ?? receiveWindow
        grace = Int64(try number("grace_ns") ?? 0)
        keepalive = Int64(try number("keepalive_ns") ?? 0)
        ticks = try number("ticks") == 1
    }
}
