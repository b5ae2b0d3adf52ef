import CErlNif

/// A process-independent environment: terms in it live until it is cleared or freed, on any thread.
///
/// One thread uses it at a time. The corresponding C function is `enif_alloc_env`.
public final class Environment: @unchecked Sendable {
    /// What the C functions take.
    public let pointer: EnvPointer?

    /// An empty environment.
    public init() { pointer = enif_alloc_env() }

    deinit { if let pointer { enif_free_env(pointer) } }

    /// Copies a term into this environment. Large binaries are shared, not copied.
    public func copy(_ term: Term) -> Term { enif_make_copy(pointer, term) }

    /// Ends the life of all its terms and keeps the environment for new ones.
    public func clear() { enif_clear_env(pointer) }
}

/// Sends a message from a thread of our own and clears the environment it was made in.
///
/// False when the process is gone. Legal on any thread that is not a scheduler's.
/// The corresponding C function is `enif_send`.
@discardableResult
public func send(to process: ErlNifPid, _ environment: Environment, _ message: Term) -> Bool {
    send(from: nil, to: process, environment, message)
}

/// Sends a message from a NIF or a resource callback, whose environment is `caller`.
@discardableResult
public func send(from caller: EnvPointer?, to process: ErlNifPid, _ environment: Environment, _ message: Term)
    -> Bool
{
    var process = process
    let isSent = enif_send(caller, &process, environment.pointer, message) != 0
    // Sent or not: the terms now belong to the receiver, and made in here without this the next ones
    // would overwrite them. enif_send leaves that to its caller.
    environment.clear()
    return isSent
}
