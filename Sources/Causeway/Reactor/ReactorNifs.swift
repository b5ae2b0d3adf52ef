import Beam
import CErlNif
import Streams

/// The Erlang half of the reactor.
var reactorNifs: [ErlNifFunc] {
    [
        /// handoff(Context, Fd, Info) -> ok | {error, badf | eperm | max_connections | no_protocol_factory | closed}
        /// The descriptor is the reactor's exactly when the result is ok.
        nif("handoff", 3) { env, _, arguments in
            guard let arguments, let context = resourceTypes.context.object(env, arguments[0]) else {
                return enif_make_badarg(env)
            }
            guard let fd = descriptor(env, arguments[1]) else { return makeError(env, atoms.badf) }
            guard enif_is_map(env, arguments[2]) != 0 else { return enif_make_badarg(env) }
            return handOff(env, fd, arguments[2], to: context)
        }
    ]
}

private func handOff(_ env: EnvPointer?, _ fd: Int32, _ info: Term, to context: Context) -> Term {
    guard let kind = try? Descriptor.kind(of: fd) else { return makeError(env, atoms.badf) }
    if kind == .file { return makeError(env, atoms.eperm) }
    guard context.interpreter?.state.hasFactory.load(ordering: .sequentiallyConsistent) == true else {
        return makeError(env, atoms.noProtocolFactory)
    }
    // Reserved before it is queued, so that the limit holds however many come at once.
    let before = context.connections.add(1, ordering: .relaxed).oldValue
    guard before < context.options.maximumConnections else {
        context.connections.subtract(1, ordering: .relaxed)
        return makeError(env, atoms.maxConnections)
    }
    guard ServedDescriptors.shared.claim(fd) else {
        context.connections.subtract(1, ordering: .relaxed)
        return makeError(env, atoms.eexist)
    }
    if kind == .stream {
        let descriptor = Descriptor(owning: fd)
        try? descriptor.makeNonBlocking()
        _ = descriptor.release()
    }
    let environment = Environment()
    let copy = environment.copy(info)
    let handoff = Handoff(owning: fd, environment: environment, info: copy)
    guard context.submit(ReactorRequest.open(handoff)) == .queued else {
        ServedDescriptors.shared.release(fd)
        context.connections.subtract(1, ordering: .relaxed)
        return makeError(env, atoms.closed)
    }
    return atoms.ok
}
