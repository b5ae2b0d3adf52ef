import Beam
import CErlNif

/// The Erlang half of callbacks.
var callbackNifs: [ErlNifFunc] {
    [
        /// callbacks_update(Names :: [binary()]) -> ok: the caller serves these functions from now on.
        nif("callbacks_update", 1) { env, _, arguments in
            guard let arguments else { return enif_make_badarg(env) }
            var names = Set<String>()
            var rest = arguments[0]
            var head: Term = 0
            while enif_get_list_cell(env, rest, &head, &rest) != 0 {
                guard let name = text(env, head) else { return enif_make_badarg(env) }
                names.insert(name)
            }
            var server = ErlNifPid()
            _ = enif_self(env, &server)
            CallbackServer.shared.update(server, names: names)
            return atoms.ok
        },
        /// callback_begin(Callback) -> boolean(): whether somebody waits for the answer of the caller.
        nif("callback_begin", 1) { env, _, arguments in
            guard let arguments, let callback = resourceTypes.callback.object(env, arguments[0]) else {
                return enif_make_badarg(env)
            }
            var process = ErlNifPid()
            _ = enif_self(env, &process)
            return callback.begin(env, process) ? atoms.true : atoms.false
        },
        /// callback_answer(Callback, {ok, Value} | {error, Error}) -> ok
        nif("callback_answer", 2) { env, _, arguments in
            guard let arguments, let callback = resourceTypes.callback.object(env, arguments[0]) else {
                return enif_make_badarg(env)
            }
            callback.answer(with: arguments[1])
            return atoms.ok
        },
    ]
}
