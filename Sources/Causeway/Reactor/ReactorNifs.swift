import Beam
import CErlNif
import Streams

/// The Erlang half of the reactor.
var reactorNifs: [ErlNifFunc] {
    [
        /// handoff(Context, Fd, Info, Data)
        ///     -> ok | {error, badf | eperm | eexist | max_connections | no_protocol_factory | closed | emfile}
        /// The descriptor is the reactor's exactly when the result is ok. Data was read from it already.
        nif("handoff", 4) { env, _, arguments in handOff(env, arguments, asDuplicate: false) },
        /// handoff_duplicate(Context, Fd, Info, Data): the same for a duplicate, which is nobody's at no time.
        nif("handoff_duplicate", 4) { env, _, arguments in handOff(env, arguments, asDuplicate: true) },
        /// handoff_check(Context, Fd) -> ok | {error, _}: what handoff would say now, without doing it.
        nif("handoff_check", 2) { env, _, arguments in
            guard let arguments, let context = resourceTypes.context.object(env, arguments[0]) else {
                return enif_make_badarg(env)
            }
            guard let fd = descriptor(env, arguments[1]) else { return makeError(env, atoms.badf) }
            do throws(Refusal) {
                let kind = try acceptableKind(of: fd, for: context)
                if kind != .listener, !context.reactor.hasRoom { throw Refusal(atoms.maxConnections) }
                return atoms.ok
            } catch { return makeError(env, error.reason) }
        },
        /// context_drain(Context) -> ok: no more connections; `{causeway, drained}` follows when the last has ended.
        nif("context_drain", 1) { env, _, arguments in
            guard let arguments, let context = resourceTypes.context.object(env, arguments[0]) else {
                return enif_make_badarg(env)
            }
            return context.reactor.drain() ? atoms.ok : makeError(env, atoms.closed)
        },
    ]
}

/// Why a descriptor is not taken.
private struct Refusal: Error {
    let reason: Term
    init(_ reason: Term) { self.reason = reason }
}

private func handOff(_ env: EnvPointer?, _ arguments: UnsafePointer<Term>?, asDuplicate: Bool) -> Term {
    guard let arguments, let context = resourceTypes.context.object(env, arguments[0]) else {
        return enif_make_badarg(env)
    }
    guard let fd = descriptor(env, arguments[1]) else { return makeError(env, atoms.badf) }
    let (info, data) = (arguments[2], arguments[3])
    guard enif_is_map(env, info) != 0, enif_is_binary(env, data) != 0 else { return enif_make_badarg(env) }
    do throws(Refusal) {
        if asDuplicate {
            try handOffDuplicate(fd, env, info: info, data: data, to: context)
        } else {
            try handOff(fd, env, info: info, data: data, to: context)
        }
        return atoms.ok
    } catch { return makeError(env, error.reason) }
}

private func handOffDuplicate(
    _ fd: Int32, _ env: EnvPointer?, info: Term, data: Term, to context: Context
) throws(Refusal) {
    let duplicate: Descriptor
    do throws(Errno) { duplicate = try Descriptor.duplicate(fd) } catch {
        throw Refusal(makeReason(env, error))
    }
    try handOff(duplicate.number, env, info: info, data: data, to: context)
    // It is the reactor's now.
    _ = duplicate.release()
}

private func handOff(_ fd: Int32, _ env: EnvPointer?, info: Term, data: Term, to context: Context)
    throws(Refusal)
{
    let kind = try acceptableKind(of: fd, for: context)
    let reactor = context.reactor
    guard ServedDescriptors.shared.claim(fd) else { throw Refusal(atoms.eexist) }
    func refusal(_ reason: Term) -> Refusal {
        ServedDescriptors.shared.release(fd)
        return Refusal(reason)
    }
    guard kind == .listener || reactor.reserve() else { throw refusal(atoms.maxConnections) }
    do throws(Errno) { try reactor.prepare() } catch {
        if kind != .listener { reactor.giveUpPlace() }
        throw refusal(makeReason(env, error))
    }
    let environment = Environment()
    let (info, data) = (environment.copy(info), environment.copy(data))
    let handoff = Handoff(owning: fd, kind, environment: environment, info: info, data: data)
    guard reactor.submit(.open(handoff)) else {
        if kind != .listener { reactor.giveUpPlace() }
        throw refusal(atoms.closed)
    }
}

/// What a descriptor is, where a context would serve it.
private func acceptableKind(of fd: Int32, for context: Context) throws(Refusal) -> Descriptor.Kind {
    guard let kind = try? Descriptor.kind(of: fd) else { throw Refusal(atoms.badf) }
    if kind == .file { throw Refusal(atoms.eperm) }
    let reactor = context.reactor
    if context.isEnding || reactor.isDraining.load(ordering: .sequentiallyConsistent) {
        throw Refusal(atoms.closed)
    }
    guard
        reactor.hasFactory.load(ordering: .sequentiallyConsistent)
            || context.interpreter?.state.hasFactory.load(ordering: .sequentiallyConsistent) == true
    else { throw Refusal(atoms.noProtocolFactory) }
    return kind
}
