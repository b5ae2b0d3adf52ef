import CErlNif

/// The C signature of a NIF.
public typealias NifFunction =
    @convention(c) (EnvPointer?, Int32, UnsafePointer<Term>?) -> Term

/// One row of a NIF table.
///
/// All NIFs of this library are short and run on normal schedulers: what may take long is handed to a
/// thread of the core, which answers by a message.
public func nif(_ name: StaticString, _ arity: UInt32, _ function: NifFunction) -> ErlNifFunc {
    ErlNifFunc(name: cString(name), arity: arity, fptr: function, flags: 0)
}

/// Makes the entry that `nif_init` returns. It and the table live for ever, as the BEAM wants.
public func makeNifEntry(
    module: StaticString, functions: [ErlNifFunc],
    load: @convention(c) (EnvPointer?, UnsafeMutablePointer<UnsafeMutableRawPointer?>?, Term) -> Int32
) -> UnsafeMutablePointer<ErlNifEntry> {
    let table = UnsafeMutablePointer<ErlNifFunc>.allocate(capacity: functions.count)
    table.initialize(from: functions, count: functions.count)
    let entry = UnsafeMutablePointer<ErlNifEntry>.allocate(capacity: 1)
    entry.initialize(
        to: ErlNifEntry(
            major: ERL_NIF_MAJOR_VERSION, minor: ERL_NIF_MINOR_VERSION, name: cString(module),
            num_of_funcs: Int32(truncatingIfNeeded: functions.count), funcs: table,
            load: load, reload: nil, upgrade: nil, unload: nil,
            vm_variant: cString("beam.vanilla"), options: 1,
            sizeof_ErlNifResourceTypeInit: MemoryLayout<ErlNifResourceTypeInit>.size,
            min_erts: cString("erts-12.0")))
    return entry
}
