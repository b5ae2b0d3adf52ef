import CPython
import Python
import Streams

/// The methods of transports of streams: sockets and pipes.
enum StreamMethods {
    static func makeType(in module: PyPointer, of base: PyPointer) throws(PythonError) -> PyType {
        try TransportObject.makeType(in: module, of: base, name: "_causeway._StreamTransport", methods)
    }

    private static func transport(_ me: PyPointer?) throws(PythonError) -> StreamTransport {
        guard let transport = try TransportObject.transport(me) as? StreamTransport else {
            throw typeError("a transport of a stream is needed")
        }
        return transport
    }

    private static func checkMayWrite(_ transport: StreamTransport, _ function: String) throws(PythonError) {
        if transport.direction == .read { throw runtimeError("\(function)(): this transport only reads") }
        if transport.hasEnded { throw runtimeError("Cannot call \(function)() after write_eof()") }
        if transport.isWriteAwaited {
            throw runtimeError("unable to \(function); sendfile is in progress")
        }
    }

    private static var methods: [PyMethodDef] {
        [
            method(
                "_begin",
                "_begin($self, loop, fd, protocol, direction, is_socket, /)\n--\n\nThe transport of a descriptor, which stays the caller's to close. The direction is 'both', 'read' or 'write'."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 5, let me, let arguments, let loop = arguments[0], let fd = arguments[1],
                        let receiver = arguments[2], let way = arguments[3], let isSocket = arguments[4]
                    else { throw typeError("_begin() takes 5 arguments (\(count) given)") }
                    let direction: StreamTransport.Direction =
                        switch try text(of: way) {
                        case "read": .read
                        case "write": .write
                        default: .both
                        }
                    try TransportObject.begin(me, loop, fd, receiver) { core, fd, context in
                        StreamTransport(
                            core, fd, me, direction, isSocket: isSocket == cpython_true(), context: context)
                    }
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
                    try StreamMethods.transport(me).hold(Object(retaining: data))
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
                    let transport = try StreamMethods.transport(me)
                    transport.isBuffered = isBuffered == cpython_true()
                    transport.set(receiver)
                    return newNone()
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
                    let transport = try StreamMethods.transport(me)
                    let bytes = try TransportObject.bytes(data)
                    try StreamMethods.checkMayWrite(transport, "write")
                    guard !transport.isInVain else {
                        if PyBytes_Size(bytes.pointer) > 0, let me {
                            // A pipe that still writes what came before is not lost yet.
                            if transport.lost != 0 { transport.writtenInVain() }
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
                    let transport = try StreamMethods.transport(me)
                    try StreamMethods.checkMayWrite(transport, "writelines")
                    let iterator = try Object(PyObject_GetIter(pieces))
                    while let piece = PyIter_Next(iterator.pointer) {
                        let held = Object(owning: piece)
                        let bytes = try TransportObject.bytes(held.pointer)
                        if !transport.isInVain { try transport.write(bytes) }
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
                    try StreamMethods.transport(me).writeEnd()
                    return newNone()
                }
            },
            method("can_write_eof", "can_write_eof($self, /)\n--\n\nTrue.") { _, _, _ in newBool(true) },
            method("is_reading", "is_reading($self, /)\n--\n\nWhether data is received.") { me, _, _ in
                returning { () throws(PythonError) in
                    let transport = try StreamMethods.transport(me)
                    return newBool(!transport.isClosing && !transport.isPaused)
                }
            },
            method("pause_reading", "pause_reading($self, /)\n--\n\nReceive no data until resume_reading().")
            {
                me, _, _ in
                returning { () throws(PythonError) in
                    try StreamMethods.transport(me).pauseReading()
                    return newNone()
                }
            },
            method("resume_reading", "resume_reading($self, /)\n--\n\nReceive data again.") { me, _, _ in
                returning { () throws(PythonError) in
                    try StreamMethods.transport(me).resumeReading()
                    return newNone()
                }
            },
            method("_deliver_held", "_deliver_held($self, /)\n--\n\nDeliver what came while paused.") {
                me, _, _ in
                returning { () throws(PythonError) in
                    try StreamMethods.transport(me).deliverHeld()
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
                    let transport = try StreamMethods.transport(me)
                    transport.isWriteAwaited = awaited == cpython_true()
                    return newBool(transport.size == 0)
                }
            },
        ]
    }
}
