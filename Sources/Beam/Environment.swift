import CErlNif

/// A process-independent environment: terms in it live until it is cleared or freed, on any thread.
///
/// One thread uses it at a time. The corresponding C function is `enif_alloc_env`.
public struct Environment: ~Copyable, @unchecked Sendable {
    /// What the C functions take.
    public let pointer: EnvPointer?

    /// An empty environment.
    public init() { pointer = enif_alloc_env() }

    /// Takes over what `release` gave.
    public init(owning pointer: EnvPointer?) { self.pointer = pointer }

    deinit { if let pointer { enif_free_env(pointer) } }

    /// Gives the environment up without freeing it.
    public consuming func release() -> EnvPointer? {
        let pointer = self.pointer
        discard self
        return pointer
    }

    /// Copies a term into this environment. Large binaries are shared, not copied. The corresponding C
    /// function is `enif_make_copy`.
    public func copy(_ term: Term) -> Term { enif_make_copy(pointer, term) }

    /// Ends the life of all its terms and keeps the environment for new ones. The corresponding C function
    /// is `enif_clear_env`.
    public func clear() { enif_clear_env(pointer) }
}

extension Environment {
    /// An environment that is freed with the last reference to it.
    public final class Shared: Sendable {
        private let environment: Environment

        /// Takes it over.
        public init(_ environment: consuming Environment) { self.environment = environment }

        /// What the C functions take.
        public var pointer: EnvPointer? { environment.pointer }

        /// Sends a message that was made in it; see `send(from:to:_:_:)`.
        @discardableResult
        public func send(from caller: EnvPointer?, to process: ErlNifPid, _ message: Term) -> Bool {
            Beam.send(from: caller, to: process, environment, message)
        }
    }
}

/// Sends a message from a thread of our own and clears the environment it was made in.
///
/// False when the process is gone. Legal on any thread that is not a scheduler's.
/// The corresponding C function is `enif_send`.
@discardableResult
public func send(to process: ErlNifPid, _ environment: borrowing Environment, _ message: Term) -> Bool {
    send(from: nil, to: process, environment, message)
}

/// Sends a message from a NIF or a resource callback, whose environment is `caller`. The corresponding C
/// function is `enif_send`.
@discardableResult
public func send(
    from caller: EnvPointer?, to process: ErlNifPid, _ environment: borrowing Environment, _ message: Term
)
    -> Bool
{
    var process = process
    let isSent = enif_send(caller, &process, environment.pointer, message) != 0
    // enif_send gives the terms' memory to the receiver, but leaves the environment pointing into it:
    // without this the next terms made here would overwrite the receiver's.
    environment.clear()
    return isSent
}
