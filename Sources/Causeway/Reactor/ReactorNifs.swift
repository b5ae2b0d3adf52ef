import Beam
import CErlNif
import Streams

/// The Erlang half of the reactor.
var reactorNifs: [ErlNifFunc] {
    [
        /// handoff(Context, Fd, Info, Data)
        ///     -> ok | {error, badf | eperm | eexist | max_connections | no_protocol_factory | closed}
        /// The descriptor is the reactor's exactly when the result is ok. Data was read from it already.
        nif("handoff", 4) { env, _, arguments in
            guard let arguments, let context = resourceTypes.context.object(env, arguments[0]) else {
                return enif_make_badarg(env)
            }
            guard let fd = descriptor(env, arguments[1]) else { return makeError(env, atoms.badf) }
            guard enif_is_map(env, arguments[2]) != 0, enif_is_binary(env, arguments[3]) != 0 else {
                return enif_make_badarg(env)
            }
            return handOff(env, fd, info: arguments[2], data: arguments[3], to: context)
        },
        /// context_drain(Context) -> ok: no more connections; `{causeway, drained}` follows when the last has ended.
        nif("context_drain", 1) { env, _, arguments in
            guard let arguments, let context = resourceTypes.context.object(env, arguments[0]) else {
                return enif_make_badarg(env)
            }
            return context.reactor.submit(.drain) ? atoms.ok : makeError(env, atoms.closed)
        },
    ]
}

private func handOff(_ env: EnvPointer?, _ fd: Int32, info: Term, data: Term, to context: Context) -> Term {
    guard let kind = try? Descriptor.kind(of: fd) else { return makeError(env, atoms.badf) }
    if kind == .file { return makeError(env, atoms.eperm) }
    let reactor = context.reactor
    guard
        reactor.hasFactory.load(ordering: .sequentiallyConsistent)
            || context.interpreter?.state.hasFactory.load(ordering: .sequentiallyConsistent) == true
    else { return makeError(env, atoms.noProtocolFactory) }
    guard kind == .listener || reactor.reserve() else { return makeError(env, atoms.maxConnections) }
    func refuse(_ reason: Term) -> Term {
        if kind != .listener { reactor.giveUpPlace() }
        return makeError(env, reason)
    }
    guard ServedDescriptors.shared.claim(fd) else { return refuse(atoms.eexist) }
    let environment = Environment()
    let (info, data) = (environment.copy(info), environment.copy(data))
    let handoff = Handoff(owning: fd, kind, environment: environment, info: info, data: data)
    guard reactor.submit(.open(handoff)) else {
        ServedDescriptors.shared.release(fd)
        return refuse(atoms.closed)
    }
    return atoms.ok
}
