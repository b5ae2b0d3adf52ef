import CPython
import Python

/// The module definition of `_causeway`: one image serves as the built-in module of the embedded
/// interpreter and as the extension module of a plain `python3`.
private nonisolated(unsafe) let moduleDefinition: UnsafeMutablePointer<PyModuleDef> = {
    var slots = [
        PyModuleDef_Slot(
            slot: Py_mod_exec, value: unsafeBitCast(executeModule, to: UnsafeMutableRawPointer.self))
    ]
    // Slots that older Pythons would refuse, appended by what runs: Py_mod_multiple_interpreters (3) =
    // PER_INTERPRETER_GIL_SUPPORTED (2), and Py_mod_gil (4) = GIL_USED (0).
    let version = cpython_running_version()
    if version >= 0x030C_0000 {
        slots.append(PyModuleDef_Slot(slot: 3, value: UnsafeMutableRawPointer(bitPattern: 2)))
    }
    if version >= 0x030D_0000 { slots.append(PyModuleDef_Slot(slot: 4, value: nil)) }
    slots.append(PyModuleDef_Slot())
    var definition = cpython_module_head()
    definition.m_name = cString("_causeway")
    definition.m_doc = cString("The native half of the package erlang. Use that, not this.")
    definition.m_size = MemoryLayout<UnsafeRawPointer?>.size
    definition.m_methods = immortal(
        ReactorModule.functions + PlainReactorModule.functions + ErlangModule.functions
            + CallbackModule.functions + OutputModule.functions + ObjectModule.functions + Sleep.functions
            + ChannelModule.functions + CborModule.functions + PacketModule.functions + RpcModule.functions
            + LoopModule.functions + ProgramModule.functions
            + [PyMethodDef()])
    definition.m_slots = immortal(slots)
    definition.m_free = { module in
        // The memory is NULL where the module never was executed.
        guard let memory = PyModule_GetState(module?.assumingMemoryBound(to: PyObject.self)),
            let state = memory.load(as: UnsafeRawPointer?.self)
        else { return }
        Unmanaged<ModuleState>.fromOpaque(state).release()
    }
    return immortal([definition])
}()

/// Fills a new module object.
private let executeModule: @convention(c) (PyPointer?) -> Int32 = { module in
    guard let module, let memory = PyModule_GetState(module) else { return -1 }
    do throws(PythonError) {
        let state = try ModuleState(module: module)
        memory.storeBytes(
            of: UnsafeRawPointer(Unmanaged.passRetained(state).toOpaque()), as: UnsafeRawPointer?.self)
        return 0
    } catch { return -1 }
}

/// What Python calls to import `_causeway`, built in or as a file.
@c public func PyInit__causeway() -> PyPointer? { PyModuleDef_Init(moduleDefinition) }

extension ModuleState {
    /// The state behind a type of ours or a subclass of one, found from an instance.
    static func of(instance: PyPointer) throws(PythonError) -> ModuleState {
        guard let module = PyType_GetModuleByDef(cpython_type(instance), moduleDefinition),
            let state = ModuleState.of(module: module)
        else { throw PythonError() }
        return state
    }
}
