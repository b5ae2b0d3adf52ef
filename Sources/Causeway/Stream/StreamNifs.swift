import Beam
import CErlNif

/// The Erlang half of streams.
var streamNifs: [ErlNifFunc] {
    [
        /// stream_outbox() -> Outbox
        nif("stream_outbox", 0) { env, _, _ in
            resourceTypes.streamOutbox.makeTerm(env, StreamOutbox()) ?? enif_make_badarg(env)
        },
        /// stream_take(Outbox) -> [Item]: the next items. After `[]` the caller is told `items` when there are more.
        nif("stream_take", 1) { env, _, arguments in
            guard let arguments, let outbox = resourceTypes.streamOutbox.object(env, arguments[0]) else {
                return enif_make_badarg(env)
            }
            return outbox.take(env)
        },
    ]
}
