import CErlNif

/// A Swift object that Erlang holds by reference: subclass it, and override what should happen.
///
/// Erlang's references keep the object alive. All three callbacks run on BEAM threads, schedulers
/// included: they must be short, and must never wait for the GIL.
open class Resource {
    /// The memory that the BEAM knows the object by; nil until a term was made.
    fileprivate var memory: UnsafeMutableRawPointer?

    /// For subclasses.
    public init() {}

    /// The last Erlang reference is gone.
    open func unreferenced(_ env: EnvPointer?) {}

    /// A process that this object monitors has ended.
    open func monitoredProcessDown(_ env: EnvPointer?) {}

    /// The BEAM's poll set has let go of a descriptor: it may be closed now.
    open func selectStopped(_ descriptor: Int32) {}
}

/// One kind of resource. The corresponding C function is `enif_open_resource_type_x`.
public struct ResourceType<Object: Resource> {
    private let type: OpaquePointer?

    /// No type: what a library has before it is loaded as a NIF.
    public init() { type = nil }

    /// Opens the type; to be called while the NIF library loads, the only time the BEAM allows it.
    public init?(_ env: EnvPointer?, name: StaticString) {
        var callbacks = ErlNifResourceTypeInit()
        callbacks.dtor = { env, memory in
            guard let object = Unmanaged<Resource>.of(memory) else { return }
            object.takeUnretainedValue().memory = nil
            object.takeUnretainedValue().unreferenced(env)
            object.release()
        }
        callbacks.down = { env, memory, _, _ in
            Unmanaged<Resource>.of(memory)?.takeUnretainedValue().monitoredProcessDown(env)
        }
        callbacks.stop = { _, memory, descriptor, _ in
            Unmanaged<Resource>.of(memory)?.takeUnretainedValue().selectStopped(descriptor)
        }
        guard let type = enif_open_resource_type_x(env, cString(name), &callbacks, ERL_NIF_RT_CREATE, nil)
        else { return nil }
        self.type = type
    }

    /// Makes a term that refers to the object, and keeps the object as long as one does. Once per object.
    /// The corresponding C functions are `enif_alloc_resource` and `enif_make_resource`.
    public func makeTerm(_ env: EnvPointer?, _ object: Object) -> Term? {
        guard hold(object), let memory = object.memory else { return nil }
        let term = enif_make_resource(env, memory)
        enif_release_resource(memory)
        return term
    }

    /// Keeps the object without any term, until `release()`: for one that only monitors a process. The
    /// corresponding C function is `enif_alloc_resource`.
    public func hold(_ object: Object) -> Bool {
        guard let memory = enif_alloc_resource(type, MemoryLayout<UnsafeRawPointer>.size) else {
            return false
        }
        let retained = Unmanaged<Resource>.passRetained(object)
        memory.storeBytes(of: UnsafeRawPointer(retained.toOpaque()), as: UnsafeRawPointer.self)
        object.memory = memory
        return true
    }

    /// The object that a term refers to, nil for any other term. The corresponding C function is
    /// `enif_get_resource`.
    @inline(__always)
    public func object(_ env: EnvPointer?, _ term: Term) -> Object? {
        var memory: UnsafeMutableRawPointer?
        guard enif_get_resource(env, term, type, &memory) != 0, let object = Unmanaged<Resource>.of(memory)
        else { return nil }
        // Each Swift class has a resource type of its own, so the class is known.
        return unsafeDowncast(object.takeUnretainedValue(), to: Object.self)
    }
}

extension ResourceType {
    /// Makes a binary that shows bytes which the object keeps valid, without a copy. Once per object.
    ///
    /// The corresponding C function is `enif_make_resource_binary`.
    public func makeBinary(_ env: EnvPointer?, _ object: Object, _ bytes: UnsafeRawBufferPointer) -> Term? {
        guard hold(object), let memory = object.memory else { return nil }
        let term = enif_make_resource_binary(env, memory, bytes.baseAddress, bytes.count)
        enif_release_resource(memory)
        return term
    }
}

extension Unmanaged where Instance == Resource {
    @inline(__always)
    fileprivate static func of(_ memory: UnsafeMutableRawPointer?) -> Unmanaged<Resource>? {
        memory.map { .fromOpaque($0.load(as: UnsafeRawPointer.self)) }
    }
}

extension Resource {
    /// Ends what `hold` began. The object may be gone afterwards. The corresponding C function is
    /// `enif_release_resource`.
    public func release() {
        if let memory { enif_release_resource(memory) }
    }

    /// Asks for `monitoredProcessDown` when a process ends. False when it already has.
    ///
    /// The corresponding C function is `enif_monitor_process`.
    public func monitor(_ env: EnvPointer?, _ process: ErlNifPid) -> Bool {
        var process = process
        guard let memory else { return false }
        return enif_monitor_process(env, memory, &process, nil) == 0
    }

    /// Asks the BEAM to tell `owner` once, by `{select, Resource, undefined, ready_input}`, when the
    /// descriptor is readable. Asked again, it replaces what was asked before.
    ///
    /// Only from a NIF. The corresponding C function is `enif_select`.
    public func selectRead(_ env: EnvPointer?, _ descriptor: Int32, owner: ErlNifPid, reference: Term) -> Bool
    {
        var owner = owner
        guard let memory else { return false }
        return enif_select(env, descriptor, ErlNifSelectFlags(rawValue: 1), memory, &owner, reference) >= 0
    }

    /// Asks the BEAM to send `owner` a message once, when the descriptor is readable, or writable. Asked again, it
    /// replaces what was asked before.
    ///
    /// The message is a term of `env`. Only from a NIF. The corresponding C function is `enif_select_x`.
    public func select(
        _ env: EnvPointer?, _ descriptor: Int32, forWriting: Bool, owner: ErlNifPid, message: Term
    ) -> Bool {
        var owner = owner
        guard let memory else { return false }
        // ERL_NIF_SELECT_CUSTOM_MSG with ERL_NIF_SELECT_WRITE or _READ.
        let flags = ErlNifSelectFlags(rawValue: 16 | (forWriting ? 2 : 1))
        return enif_select_x(env, descriptor, flags, memory, &owner, message, nil) >= 0
    }

    /// Takes a descriptor out of the BEAM's poll set; `selectStopped` follows when it may be closed. The
    /// corresponding C function is `enif_select(ERL_NIF_SELECT_STOP)`.
    public func selectStop(_ env: EnvPointer?, _ descriptor: Int32, undefined: Term) {
        guard let memory else { return }
        _ = enif_select(env, descriptor, ErlNifSelectFlags(rawValue: 4), memory, nil, undefined)
    }
}
