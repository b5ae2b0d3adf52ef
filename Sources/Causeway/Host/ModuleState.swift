import Beam
import CPython
import Python
import Synchronization

/// What the module `_causeway` of one interpreter holds. Everything in it needs that interpreter's GIL;
/// any call into Python may let another thread have it meanwhile.
final class ModuleState: @unchecked Sendable {
    let bufferType: PyType
    let protocolType: PyType
    let pidType: PyType
    let refType: PyType
    let termType: PyType
    let atomType: PyType
    /// The native half of `erlang.ByteChannel`.
    let channelType: PyType
    let channelWaiterType: PyType
    let loopBellType: PyType
    let packetLinkType: PyType
    let packetResultType: PyType
    let rpcHalfType: PyType
    let rpcWaiterType: PyType
    /// The native half of `erlang.EventLoop`, of its transports, and its handles.
    let loopType: PyType
    let handleType: PyType
    let timerHandleType: PyType
    let taskAnswerType: PyType
    let programType: PyType
    let callbackWaiterType: PyType
    let streamEmitterType: PyType
    let coroutineType: PyType
    let taskOwnerType: PyType
    let reactorPlaceType: PyType
    /// A `contextvars.ContextVar` with the owner of a task.
    let taskOwnerVariable: PyPointer
    private let namesOfCreateTask: PyPointer
    let loopNames: LoopNames
    /// Nil while nobody has imported `erlang._loop`.
    var runningLoop: RunningLoop?
    private var registeredPacketTypes: PacketTypes?
    private var registeredChannelTypes: ChannelTypes?
    private var registeredRpcFunctions: RpcFunctions?
    /// What is raised where a call is interrupted: `erlang.CallInterrupted`.
    let interruption: PyPointer
    let names: Names
    let namespaces = Namespaces()
    /// The connections that the reactor serves, by descriptor.
    let protocols: PyPointer
    /// What makes protocols of new connections; nil before `set_protocol_factory`.
    private(set) var factory: PyPointer?
    /// Whether there is a factory, for who does not hold the GIL.
    let hasFactory = Atomic<Bool>(false)
    /// Names of atoms that were seen, so that each is converted once. Atoms are never collected.
    private(set) var atomNames: [Term: PyPointer] = [:]
    /// The contexts that run in this interpreter, and who does what needs its GIL on behalf of the BEAM.
    let contexts = ContextRegistry()
    let janitor = Janitor()
    let leftovers: Leftovers
    /// About how many bytes of terms were read since somebody set it to 0. Another thread may do so while
    /// this one runs Python code: it is good for decisions that may be wrong.
    var decodedBytes = 0
    /// How many byte channels were read from terms; good for the same.
    var decodedChannels = 0
    /// How many atoms all interpreters of this node have made for names of exceptions, and for `erlang.Atom`.
    static let exceptionNames = Atomic<Int>(0)
    static let newAtoms = Atomic<Int>(0)
    /// What serves in a plain python3, from the first `serve` to the end of its `run`.
    var plainReactor: PlainReactor?
    private var compiled: [String: PyPointer] = [:]
    private var describer: PyPointer?
    private let importLockReleaser: PyPointer

    init(module: PyPointer) throws(PythonError) {
        leftovers = Leftovers(contexts, janitor)
        bufferType = try ReactorBuffer.makeType(in: module)
        protocolType = try ProtocolObject.makeType(in: module)
        pidType = try TermObject.makeType(
            in: module, name: "erlang.Pid",
            doc: "An Erlang process identifier, from Erlang. Equal and ordered as there.")
        refType = try TermObject.makeType(
            in: module, name: "erlang.Ref",
            doc: "An Erlang reference, from Erlang. Equal and ordered as there.")
        termType = try TermObject.makeType(
            in: module, name: "erlang.Term", doc: "An Erlang term that Python can only hold: a fun or a port."
        )
        atomType = try AtomObject.makeType(in: module)
        channelType = try ChannelObject.makeType(in: module)
        channelWaiterType = try ChannelWaiterObject.makeType(in: module)
        loopBellType = try LoopBellObject.makeType(in: module)
        packetLinkType = try PacketLinkObject.makeType(in: module)
        packetResultType = try PacketResultObject.makeType(in: module)
        rpcHalfType = try RpcHalfObject.makeType(in: module)
        rpcWaiterType = try RpcWaiterObject.makeType(in: module)
        loopType = try LoopObject.makeType(in: module)
        handleType = try HandleObject.makeType(in: module)
        timerHandleType = try HandleObject.makeTimerType(in: module)
        callbackWaiterType = try CallbackWaiterObject.makeType(in: module)
        taskAnswerType = try TaskAnswerObject.makeType(in: module)
        programType = try ProgramObject.makeType(in: module)
        taskOwnerType = try TaskOwnerObject.makeType(in: module)
        reactorPlaceType = try ReactorPlaceObject.makeType(in: module)
        streamEmitterType = try StreamEmitterObject.makeType(in: module)
        let types = try Object(PyImport_ImportModule("types"))
        coroutineType = asType(try Object(PyObject_GetAttrString(types.pointer, "CoroutineType")).take())
        loopNames = try LoopNames()
        taskOwnerVariable = try Object(cpython_new_context_variable("erlang.self")).take()
        let keywords = try Object(PyTuple_New(1))
        PyTuple_SetItem(keywords.pointer, 0, try newString("context").take())
        namesOfCreateTask = keywords.take()
        interruption = try Object(
            PyErr_NewExceptionWithDoc(
                "erlang.CallInterrupted",
                "Raised where a call is interrupted: its Erlang caller has given it up, or its context stops.",
                cpython_BaseException(), nil)
        ).take()
        names = try Names()
        let imports = try Object(PyImport_ImportModule("_imp"))
        importLockReleaser = try Object(PyObject_GetAttrString(imports.pointer, "release_lock")).take()
        protocols = try Object(PyDict_New()).take()
        for type in [
            bufferType, protocolType, pidType, refType, termType, atomType, channelType, channelWaiterType,
            loopBellType, packetLinkType, packetResultType, rpcHalfType, rpcWaiterType, loopType, handleType,
            timerHandleType, programType,
        ] {
            guard PyModule_AddType(module, type) == 0 else { throw PythonError() }
        }
        guard PyModule_AddObjectRef(module, "CallInterrupted", interruption) == 0 else { throw PythonError() }
    }

    /// Calls `create_task(coroutine, context=context)`.
    func createTask(_ method: PyPointer, _ coroutine: PyPointer, _ context: PyPointer) throws(PythonError)
        -> Object
    {
        let arguments: [PyPointer?] = [coroutine, context]
        return try Object(
            arguments.withUnsafeBufferPointer {
                cpython_call_with_names(method, $0.baseAddress, 1, namesOfCreateTask)
            })
    }

    /// The state of the module of the interpreter that runs, imported where it is not yet.
    static func current() throws(PythonError) -> ModuleState {
        let module = try Object(PyImport_ImportModule("_causeway"))
        return try required(module.pointer)
    }

    /// The state of a module object of ours, for a function that cannot do without.
    static func required(_ module: PyPointer?) throws(PythonError) -> ModuleState {
        guard let state = of(module: module) else { throw runtimeError("the module _causeway has no state") }
        return state
    }

    /// The state of a module object of ours.
    static func of(module: PyPointer?) -> ModuleState? {
        guard let memory = PyModule_GetState(module),
            let pointer = memory.load(as: UnsafeRawPointer?.self)
        else { return nil }
        return Unmanaged<ModuleState>.fromOpaque(pointer).takeUnretainedValue()
    }

    /// Keeps the name of an atom, up to a number of atoms that no program reaches by its own text.
    func remember(atom: Term, as name: PyPointer) {
        guard atomNames.count < 20_000 else { return }
        Py_IncRef(name)
        if let other = atomNames.updateValue(name, forKey: atom) { Py_DecRef(other) }
    }

    /// Code that was compiled before, or compiles it. Short expressions tend to come again.
    func code(_ source: String, mode: Int32) throws(PythonError) -> Object {
        let isKept = mode == Int32(cpython_eval_input) && source.utf8.count <= 1024
        if isKept, let known = compiled[source] { return Object(retaining: known) }
        if source.utf8.contains(0) { throw valueError("source code cannot contain null bytes") }
        let code = try Object(Py_CompileString(source, "<erlang>", mode))
        if isKept {
            if compiled.count >= 512 { forgetCode() }
            Py_IncRef(code.pointer)
            if let other = compiled.updateValue(code.pointer, forKey: source) { Py_DecRef(other) }
        }
        return code
    }

    private func forgetCode() {
        let all = compiled
        compiled = [:]
        for code in all.values { Py_DecRef(code) }
    }

    /// Takes over the reference to a factory, and gives that to the old one to the caller.
    func setFactory(_ factory: PyPointer?) -> PyPointer? {
        let old = self.factory
        self.factory = factory
        hasFactory.store(factory != nil, ordering: .sequentiallyConsistent)
        return old
    }

    /// Gives back the import lock where the calling thread has it: an interruption may come after it was taken and
    /// before the block that gives it back, and nobody could import anything any more. Between calls no thread has it.
    func releaseImportLock() {
        while let released = PyObject_CallNoArgs(importLockReleaser) { Py_DecRef(released) }
        PyErr_Clear()
    }

    /// Undoes what an import that was interrupted leaves half done.
    func repairImports() {
        releaseImportLock()
        if let imports = PyImport_ImportModule("erlang._imports") {
            Py_DecRef(cpython_call_method_named(imports, "keep_orphans"))
            Py_DecRef(imports)
        }
        PyErr_Clear()
    }

    /// The classes of `erlang._channel`, which registers them when it is imported.
    func channelTypes() throws(PythonError) -> ChannelTypes {
        try registered("erlang._channel", registeredChannelTypes)
    }

    /// Takes over the references to them. Those of before live on: somebody may be using them.
    func register(_ types: ChannelTypes) { registeredChannelTypes = types }

    /// The classes of `erlang.packetstream`, which registers them when it is imported.
    func packetTypes() throws(PythonError) -> PacketTypes {
        try registered("erlang.packetstream", registeredPacketTypes)
    }

    /// Takes over the references to them. Those of before live on: somebody may be using them.
    func register(_ types: PacketTypes) { registeredPacketTypes = types }

    /// The functions of `erlang.rpc`, which registers them when it is imported.
    func rpcFunctions() throws(PythonError) -> RpcFunctions {
        try registered("erlang.rpc", registeredRpcFunctions)
    }

    /// What a module registers when it is imported: imports it where nobody has.
    private func registered<Parts>(_ module: String, _ parts: @autoclosure () -> Parts?)
        throws(PythonError) -> Parts
    {
        if let parts = parts() { return parts }
        _ = try Object(PyImport_ImportModule(module))
        guard let parts = parts() else {
            throw runtimeError("\(module) has not registered what it has to")
        }
        return parts
    }

    /// Takes over the references to them. Those of before live on: somebody may be using them.
    func register(_ functions: RpcFunctions) { registeredRpcFunctions = functions }

    /// `erlang._errors.describe`, which turns an exception into plain tuples.
    func exceptionDescriber() throws(PythonError) -> PyPointer {
        if let describer { return describer }
        let module = try Object(PyImport_ImportModule("erlang._errors"))
        let function = try Object(PyObject_GetAttrString(module.pointer, "describe")).take()
        describer = function
        return function
    }
}

/// Interned names that are looked up often, or compared by identity.
struct Names {
    let connectionMade, connectionLost, dataReceived, writeReady, eofReceived: PyPointer
    let `continue`, writePending, readPending, close, asyncPending: PyPointer
    let main: PyPointer

    init() throws(PythonError) {
        connectionMade = try internedName("connection_made")
        connectionLost = try internedName("connection_lost")
        dataReceived = try internedName("data_received")
        writeReady = try internedName("write_ready")
        eofReceived = try internedName("eof_received")
        `continue` = try internedName("continue")
        writePending = try internedName("write_pending")
        readPending = try internedName("read_pending")
        close = try internedName("close")
        asyncPending = try internedName("async_pending")
        main = try internedName("__main__")
    }
}
