import Beam
import CErlNif
import Streams

/// `{error, Reason}`.
func makeError(_ env: EnvPointer?, _ reason: Term) -> Term { makeTuple(env, atoms.error, reason) }

/// `{error, {Reason, Text}}`: a reason to match on, and a binary that says what to do about it.
func makeError(_ env: EnvPointer?, _ reason: Term, _ text: String) -> Term {
    makeTuple(env, atoms.error, makeTuple(env, reason, makeBinary(env, text)))
}

/// `{error, Posix}` in Erlang's spelling, or `{error, {errno, Number}}`.
func makeError(_ env: EnvPointer?, _ error: Errno) -> Term { makeError(env, makeReason(env, error)) }

/// The reason in that.
func makeReason(_ env: EnvPointer?, _ error: Errno) -> Term {
    // file:posix() has ebadf; the reactor's contract has badf.
    if let name = error.name { return Atom(env, name).term }
    return makeTuple(env, Atom(env, "errno").term, enif_make_int(env, error.code))
}
