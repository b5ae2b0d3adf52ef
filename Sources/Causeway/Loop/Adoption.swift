import CPython
import Python
import Streams

/// Protocols of asyncio for connections that a reactor was handed: the event loop of the context serves them, and they
/// keep their places among the connections of the reactor.
extension ContextThread {
    /// Calls a factory; where it needs a loop that runs, with the context's.
    func produce(_ factory: PyPointer) throws(PythonError) -> Object {
        if factory != loopFactory {
            if let made = PyObject_CallObject(factory, nil) { return Object(owning: made) }
            // What asyncio raises where no loop runs.
            guard PyErr_ExceptionMatches(cpython_RuntimeError()) != 0 else { throw PythonError() }
            let error = Exception.take()
            guard try state.hasImported("asyncio") else {
                error?.restore()
                throw PythonError()
            }
        }
        return try state.callTasks("produce", [try backgroundLoop().object, factory])
    }

    func adopt(_ made: PyPointer, by factory: PyPointer, _ fd: Int32, info: PyPointer, data: PyPointer?)
        throws(PythonError) -> Bool
    {
        guard try state.isProtocolOfAsyncio(made) else { return false }
        let background = try backgroundLoop()
        defer { background.look() }
        let number = try Object(PyLong_FromLong(Int(fd)))
        let place = try ReactorPlaceObject.make(state.reactorPlaceType, reactor.inbox)
        do throws(PythonError) {
            _ = try state.callTasks(
                "adopt",
                [background.object, number.pointer, made, info, data ?? cpython_none(), place.pointer])
        } catch {
            // It is the reactor's again, and so is its place.
            ReactorPlaceObject.forget(place.pointer)
            throw error
        }
        // The next one is made with the loop at once.
        Py_IncRef(factory)
        Py_DecRef(loopFactory)
        loopFactory = factory
        return true
    }

    func drainAdopted() {
        guard let background else { return }
        let answer = try? state.callTasks("drain", [background.object])
        if answer == nil { PyErr_Clear() }
        background.look()
    }
}

extension ModuleState {
    /// Whether somebody has imported a module.
    func hasImported(_ name: String) throws(PythonError) -> Bool {
        guard let modules = PyImport_GetModuleDict() else { return false }
        let key = try newString(name)
        let found = PyDict_GetItemWithError(modules, key.pointer)
        if found == nil, PyErr_Occurred() != nil { throw PythonError() }
        return found != nil
    }

    /// Whether an object is a protocol of asyncio's.
    func isProtocolOfAsyncio(_ object: PyPointer) throws(PythonError) -> Bool {
        guard try hasImported("asyncio.protocols") else { return false }
        let module = try Object(PyImport_ImportModule("asyncio.protocols"))
        let base = try Object(PyObject_GetAttrString(module.pointer, "BaseProtocol"))
        let answer = PyObject_IsInstance(object, base.pointer)
        if answer < 0 { throw PythonError() }
        return answer != 0
    }
}

/// The struct of `_causeway._ReactorPlace`: the place among a reactor's connections of one that a loop serves. Called, or
/// gone, it is given back.
struct ReactorPlaceObject {
    var head: PyObject
    private var inbox: Unmanaged<ReactorInbox>?

    static func make(_ type: PyType, _ inbox: ReactorInbox) throws(PythonError) -> Object {
        let object = try Object(cpython_alloc_instance(type))
        object.pointer.cast(to: ReactorPlaceObject.self).pointee.inbox = .passRetained(inbox)
        return object
    }

    /// Gives nothing back.
    static func forget(_ me: PyPointer) {
        let fields = me.cast(to: ReactorPlaceObject.self)
        fields.pointee.inbox?.release()
        fields.pointee.inbox = nil
    }

    private static func giveBack(_ me: PyPointer) {
        let fields = me.cast(to: ReactorPlaceObject.self)
        if let inbox = fields.pointee.inbox { _ = inbox.takeUnretainedValue().submit(.adoptedEnded) }
        forget(me)
    }

    static func makeType(in module: PyPointer) throws(PythonError) -> PyType {
        try Python.makeType(
            in: module, name: "_causeway._ReactorPlace", ReactorPlaceObject.self,
            flags: [.noConstructor, .immutable],
            slots: [
                slot(Py_tp_dealloc) { (me: PyPointer?) -> Void in
                    guard let me else { return }
                    ReactorPlaceObject.giveBack(me)
                    cpython_free_instance(me)
                },
                slot(Py_tp_call) { (me: PyPointer?, _: PyPointer?, _: PyPointer?) -> PyPointer? in
                    if let me { ReactorPlaceObject.giveBack(me) }
                    return newNone()
                },
            ])
    }
}
