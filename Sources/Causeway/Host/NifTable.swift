import Beam
import CErlNif
import Python
import Streams

/// What the BEAM calls to load this library: `erlang:load_nif/2` of the module `causeway_nif`.
@c public func nif_init() -> UnsafeMutablePointer<ErlNifEntry> { nifEntry }

private nonisolated(unsafe) let nifEntry = makeNifEntry(
    module: "causeway_nif",
    functions: hostNifs + contextNifs + streamNifs + objectNifs + callbackNifs + outputNifs + reactorNifs
        + channelNifs
        + processNifs + cborNifs + packetNifs + wireNifs + rpcNifs,
    load: { env, _, _ in
        // The library stays in the process when its Erlang module is purged. Loaded again it would find
        // threads of the old one: refused.
        if atoms.ok != 0 { return 1 }
        atoms = Atoms(env)
        seed = LargeMap.Seed(onScheduler: env)
        return resourceTypes.open(env) ? 0 : 2
    })

private var hostNifs: [ErlNifFunc] {
    [
        /// start_python(Executable, Packages) -> ok | already | {error, _}. The caller is told how it went.
        nif("start_python", 2) { env, _, arguments in
            guard let arguments, let executable = text(env, arguments[0]),
                let packages = text(env, arguments[1])
            else {
                return enif_make_badarg(env)
            }
            var requester = ErlNifPid()
            _ = enif_self(env, &requester)
            do throws(Errno) {
                let isFirst = try PythonHost.shared.start(
                    .init(executable: executable, packages: packages, requester: requester))
                return isFirst ? atoms.ok : Atom(env, "already").term
            } catch { return makeError(env, error) }
        },
        /// python_version() -> Binary
        nif("python_version", 0) { env, _, _ in makeBinary(env, PythonHost.shared.version) },
        /// duplicate(Fd) -> {ok, Fd} | {error, Posix}
        nif("duplicate", 1) { env, _, arguments in
            guard let arguments, let fd = descriptor(env, arguments[0]) else {
                return makeError(env, atoms.badf)
            }
            do throws(Errno) {
                let made = try Descriptor.duplicate(fd)
                return makeTuple(env, atoms.ok, enif_make_int(env, made.release()))
            } catch { return makeError(env, error) }
        },
        /// close(Fd) -> ok: for a descriptor that `duplicate` made and nobody took.
        nif("close", 1) { env, _, arguments in
            guard let arguments, let fd = descriptor(env, arguments[0]) else {
                return makeError(env, atoms.badf)
            }
            _ = Descriptor(owning: fd)
            return atoms.ok
        },
        /// context_threads() -> integer(): what the tests look at for leaks.
        nif("context_threads", 0) { env, _, _ in enif_make_long(env, ContextRegistry.shared.count) },
    ]
}

/// A file descriptor in a term, nil for what cannot be one.
func descriptor(_ env: EnvPointer?, _ term: Term) -> Int32? {
    integer(env, term).flatMap { Int32(exactly: $0) }.flatMap { $0 >= 0 ? $0 : nil }
}
