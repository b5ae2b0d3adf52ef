import CPython
import Python

/// The calls of a protocol's methods, the same for connections that the reactor serves and for
/// protocols that are driven by hand. With the GIL.
struct ProtocolCalls {
    let state: ModuleState

    /// Makes the protocol of a new connection, which has `fd` and `client_info` from the beginning.
    /// By the factory of a reactor where it has one, else by that of the interpreter.
    func make(_ fd: Int32, info: PyPointer, factory own: PyPointer? = nil) throws(PythonError) -> Object {
        let made = try Object(PyObject_CallObject(try factory(own), nil))
        try prepare(made.pointer, fd, info: info)
        return made
    }

    /// The factory of a reactor where it has one, else that of the interpreter.
    func factory(_ own: PyPointer?) throws(PythonError) -> PyPointer {
        guard let factory = own ?? state.factory else {
            throw runtimeError("no protocol factory: call erlang.reactor.set_protocol_factory() first")
        }
        return factory
    }

    /// Checks what a factory has made, and tells it of its connection.
    func prepare(_ made: PyPointer, _ fd: Int32, info: PyPointer) throws(PythonError) {
        guard isProtocol(made) else {
            let remedy =
                try state.isProtocolOfAsyncio(made)
                ? ": an asyncio protocol is served by an event loop, see erlang.server" : ""
            throw typeError(
                "the protocol factory returned \(typeName(of: made)), "
                    + "no instance of erlang.reactor.Protocol\(remedy)")
        }
        guard made.cast(to: ProtocolObject.self).pointee.registered < 0 else {
            throw typeError("the protocol factory returned a protocol that has served a connection before")
        }
        ProtocolObject.setConnection(made, fd, info)
    }

    func isProtocol(_ made: PyPointer) -> Bool { cpython_is_subtype_of(made, state.protocolType) != 0 }

    /// Tells a protocol that its connection begins. Who serves it holds it until `forget`; one that is driven by hand
    /// is held by its place in the table.
    func begin(
        _ protocolObject: PyPointer, _ fd: Int32, _ overrides: Overrides = .connectionMade,
        isServed: Bool = false
    ) throws(PythonError) {
        guard let info = protocolObject.cast(to: ProtocolObject.self).pointee.clientInfo else {
            throw runtimeError("client_info was deleted")
        }
        // The method may put another dict in its place.
        let held = Object(retaining: info)
        try register(protocolObject, fd, isServed: isServed)
        guard overrides.contains(.connectionMade) else { return }
        let number = try Object(PyLong_FromLong(Int(fd)))
        _ = try Object(
            cpython_call_method2(protocolObject, state.names.connectionMade, number.pointer, held.pointer))
    }

    /// Hands data to a protocol.
    @inline(__always)
    func received(_ protocolObject: PyPointer, _ data: PyPointer) throws(PythonError) -> Action {
        let result = try Object(cpython_call_method1(protocolObject, state.names.dataReceived, data))
        return try Action(result, of: "data_received", state.names, accepting: Action.afterData)
    }

    /// Tells a protocol that it may write.
    @inline(__always)
    func writable(_ protocolObject: PyPointer) throws(PythonError) -> Action {
        let result = try Object(cpython_call_method0(protocolObject, state.names.writeReady))
        return try Action(result, of: "write_ready", state.names, accepting: Action.afterWrite)
    }

    /// Tells a protocol that nothing more will come.
    func endOfStream(_ protocolObject: PyPointer) throws(PythonError) -> Action {
        let result = try Object(cpython_call_method0(protocolObject, state.names.eofReceived))
        return try Action(result, of: "eof_received", state.names, accepting: Action.afterWrite)
    }

    /// Tells a protocol that its connection is over.
    func lost(_ protocolObject: PyPointer, _ overrides: Overrides = .connectionLost) throws(PythonError) {
        let fields = protocolObject.cast(to: ProtocolObject.self)
        if fields.pointee.closed != 0 { return }
        fields.pointee.closed = 1
        unregister(fields.pointee.registered)
        guard overrides.contains(.connectionLost) else { return }
        _ = try Object(cpython_call_method0(protocolObject, state.names.connectionLost))
    }

    /// Which methods of the base class a protocol's class has changed. Looked up in the class, as Python does it
    /// for methods that it calls by itself.
    func overrides(of protocolObject: PyPointer) -> Overrides {
        var overrides: Overrides = []
        let names = state.names
        for (name, method) in [
            (names.connectionMade, Overrides.connectionMade), (names.connectionLost, .connectionLost),
            (names.writeReady, .writeReady), (names.eofReceived, .eofReceived),
        ] where !isBase(name, of: protocolObject) {
            overrides.insert(method)
        }
        return overrides
    }

    private func isBase(_ name: PyPointer, of protocolObject: PyPointer) -> Bool {
        guard let type = cpython_type(protocolObject) else { return false }
        let own = PyObject_GetAttr(asObject(type), name)
        let base = PyObject_GetAttr(asObject(state.protocolType), name)
        defer {
            Py_DecRef(own)
            Py_DecRef(base)
        }
        PyErr_Clear()
        return own != nil && own == base
    }

    // MARK: The protocols by descriptor

    /// The protocol of a descriptor.
    func find(_ fd: Int32) throws(PythonError) -> Object? {
        let key = try Object(PyLong_FromLong(Int(fd)))
        if let found = PyDict_GetItemWithError(state.protocols, key.pointer) {
            return Object(retaining: served(found) ?? found)
        }
        if PyErr_Occurred() != nil { throw PythonError() }
        return nil
    }

    private func register(_ protocolObject: PyPointer, _ fd: Int32, isServed: Bool) throws(PythonError) {
        let key = try Object(PyLong_FromLong(Int(fd)))
        // A reference would keep a loop that nobody closes for ever, with all that its protocols refer to.
        let value =
            try isServed ? Object(PyLong_FromVoidPtr(protocolObject)) : Object(retaining: protocolObject)
        guard PyDict_SetItem(state.protocols, key.pointer, value.pointer) == 0 else { throw PythonError() }
        protocolObject.cast(to: ProtocolObject.self).pointee.registered = fd
    }

    /// The protocol that somebody serves, by what is in the table; nil for one that is there itself.
    private func served(_ entry: PyPointer) -> PyPointer? {
        guard cpython_is_subtype_of(entry, state.protocolType) == 0 else { return nil }
        // Sound: it is forgotten before who serves it lets go of it.
        return PyLong_AsVoidPtr(entry)?.assumingMemoryBound(to: PyObject.self)
    }

    /// Forgets a protocol that is served no more, whatever it has done to itself.
    func forget(_ protocolObject: PyPointer, _ fd: Int32) {
        guard let key = PyLong_FromLong(Int(fd)) else { return PyErr_Clear() }
        defer { Py_DecRef(key) }
        guard let entry = PyDict_GetItemWithError(state.protocols, key), served(entry) == protocolObject
        else { return PyErr_Clear() }
        unregister(fd)
    }

    /// Forgets the protocol of a descriptor; to be done before the number can be used again.
    func unregister(_ fd: Int32) {
        guard let key = PyLong_FromLong(Int(fd)) else { return PyErr_Clear() }
        defer { Py_DecRef(key) }
        if PyDict_DelItem(state.protocols, key) != 0 { PyErr_Clear() }
    }
}
