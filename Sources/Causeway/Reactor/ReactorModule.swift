import CPlatform
import CPython
import Python
import Streams

/// The functions of `erlang.reactor`, as Python calls them: also by hand, on a socketpair, without a BEAM.
enum ReactorModule {
    static var functions: [PyMethodDef] {
        [
            method(
                "set_protocol_factory",
                "set_protocol_factory($module, factory, /)\n--\n\nSet what makes the protocol of every new connection: a subclass of Protocol\nor any callable that returns an instance of one. None takes it back.\n\nIt is that of the interpreter; set by a context's setup_code, that of the context."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    let state = try ModuleState.required(module)
                    let factory = try ReactorModule.single(
                        arguments, count, "set_protocol_factory() takes one factory")
                    guard factory == cpython_none() || PyCallable_Check(factory) != 0 else {
                        throw typeError("the protocol factory must be callable, not \(typeName(of: factory))")
                    }
                    let isNone = factory == cpython_none()
                    let held = isNone ? nil : Object(retaining: factory).take()
                    if let thread = ContextThread.current, thread.runs(state), thread.isInSetup {
                        thread.reactor.setFactory(held)
                    } else {
                        Py_DecRef(state.setFactory(held))
                    }
                    return newNone()
                }
            },
            method(
                "get_protocol",
                "get_protocol($module, fd, /)\n--\n\nThe protocol that serves a file descriptor in this interpreter, or None."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    let fd = try ReactorModule.descriptor(
                        arguments, count, "get_protocol() takes one file descriptor")
                    guard let found = try ProtocolCalls(state: try ModuleState.required(module)).find(fd)
                    else { return newNone() }
                    return found.take()
                }
            },
            method(
                "init_connection",
                "init_connection($module, fd, client_info, /)\n--\n\nMake the protocol of a connection and call its connection_made().\n\nReturns the protocol. The descriptor stays yours. Raises RuntimeError before\nset_protocol_factory(), and what the factory and connection_made() raise."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 2, let info = arguments?[1] else {
                        throw typeError("init_connection() takes a file descriptor and a dict")
                    }
                    guard cpython_is_dict(info) != 0 else {
                        throw typeError("client_info must be a dict, not \(typeName(of: info))")
                    }
                    let fd = try ReactorModule.descriptor(arguments, 1, "")
                    let calls = ProtocolCalls(state: try ModuleState.required(module))
                    let made = try calls.make(fd, info: info)
                    do throws(PythonError) { try calls.begin(made.pointer, fd) } catch {
                        calls.unregister(fd)
                        throw error
                    }
                    return made.take()
                }
            },
            method(
                "on_read_ready",
                "on_read_ready($module, fd, data=None, /)\n--\n\nCall data_received() of a descriptor's protocol and return its action.\n\nWithout data the descriptor is read; at the end of the stream eof_received() is\ncalled instead, and the action is 'continue' when nothing is there. Raises\nValueError for a descriptor without a protocol, OSError, and what that raises."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 1 || count == 2 else {
                        throw typeError("on_read_ready() takes a file descriptor and perhaps data")
                    }
                    let fd = try ReactorModule.descriptor(arguments, 1, "")
                    let data = count == 2 ? arguments?[1] : nil
                    return try ReactorModule.readReady(
                        try ModuleState.required(module), fd, data == cpython_none() ? nil : data
                    ).take()
                }
            },
            method(
                "on_write_ready",
                "on_write_ready($module, fd, /)\n--\n\nCall write_ready() of a descriptor's protocol and return its action.\n\nRaises ValueError for a descriptor without a protocol, and what that raises."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    let fd = try ReactorModule.descriptor(
                        arguments, count, "on_write_ready() takes one file descriptor")
                    let state = try ModuleState.required(module)
                    let found = try ReactorModule.known(state, fd)
                    return try ProtocolCalls(state: state).writable(found.pointer).object(state.names).take()
                }
            },
            method(
                "close_connection",
                "close_connection($module, fd, /)\n--\n\nEnd a connection: connection_lost() is called, and get_protocol() forgets it.\n\nA descriptor that the reactor serves is closed by it, soon after this call;\none that is driven by hand stays yours. One without a protocol is no error."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    let fd = try ReactorModule.descriptor(
                        arguments, count, "close_connection() takes one file descriptor")
                    let calls = ProtocolCalls(state: try ModuleState.required(module))
                    guard let found = try calls.find(fd) else { return newNone() }
                    if !ReactorModule.submit(found.pointer, ReactorRequest.close) {
                        try calls.lost(found.pointer)
                    }
                    return newNone()
                }
            },
            method(
                "signal_write_ready",
                "signal_write_ready($module, fd, /)\n--\n\nHave write_ready() of a protocol called soon, on its context's thread: one that\nreturned 'async_pending', or that waits for something to read and whose\nwrite_buffer somebody else has filled. From any thread.\n\nReturns whether the reactor serves that descriptor."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    let fd = try ReactorModule.descriptor(
                        arguments, count, "signal_write_ready() takes one file descriptor")
                    guard let found = try ProtocolCalls(state: try ModuleState.required(module)).find(fd)
                    else { return newBool(false) }
                    return newBool(ReactorModule.submit(found.pointer, ReactorRequest.writeReady))
                }
            },
        ]
    }

    private static func single(_ arguments: UnsafePointer<PyPointer?>?, _ count: Int, _ usage: String)
        throws(PythonError) -> PyPointer
    {
        guard count == 1, let argument = arguments?[0] else { throw typeError(usage) }
        return argument
    }

    private static func descriptor(_ arguments: UnsafePointer<PyPointer?>?, _ count: Int, _ usage: String)
        throws(PythonError) -> Int32
    {
        let number = PyLong_AsLong(try single(arguments, count, usage))
        if number == -1, PyErr_Occurred() != nil { throw PythonError() }
        guard let fd = Int32(exactly: number), fd >= 0 else {
            throw valueError("\(number) is no file descriptor")
        }
        return fd
    }

    private static func known(_ state: ModuleState, _ fd: Int32) throws(PythonError) -> Object {
        guard let found = try ProtocolCalls(state: state).find(fd) else {
            throw valueError("no connection with the file descriptor \(fd)")
        }
        return found
    }

    private static func readReady(_ state: ModuleState, _ fd: Int32, _ data: PyPointer?) throws(PythonError)
        -> Object
    {
        let calls = ProtocolCalls(state: state)
        let found = try known(state, fd)
        if let data {
            return try calls.received(found.pointer, data).object(state.names)
        }
        let buffer = try ReactorBuffer.make(state.bufferType, capacity: ReadBuffers.size)
        let fields = buffer.pointer.cast(to: ReactorBuffer.self)
        guard let memory = fields.pointee.base else { throw PythonError.outOfMemory() }
        let isDatagram = (try? Descriptor.kind(of: fd)) == .datagramSocket
        var source = SocketAddress()
        let outcome =
            isDatagram
            ? receiveDatagram(fd, memory, ReadBuffers.size, &source)
            : readAvailable(fd, memory, ReadBuffers.size)
        switch outcome {
        case .bytes(0) where !isDatagram:
            return try calls.endOfStream(found.pointer).object(state.names)
        case .bytes(let count):
            fields.pointee.count = min(count, ReadBuffers.size)
            if isDatagram { ProtocolObject.setPeer(found.pointer, source) }
            return try calls.received(found.pointer, buffer.pointer).object(state.names)
        case .wouldBlock, .noMemory: return Object(retaining: state.names.continue)
        case .failed(let error): throw osError(error.code)
        }
    }

    /// Tells the reactor that serves a protocol; false when none does.
    private static func submit(_ protocolObject: PyPointer, _ request: (Poller.Token) -> ReactorRequest)
        -> Bool
    {
        let fields = protocolObject.cast(to: ProtocolObject.self).pointee
        guard let inbox = fields.inbox?.takeUnretainedValue() else { return false }
        return inbox.submit(request(Poller.Token(bits: fields.token)))
    }
}
