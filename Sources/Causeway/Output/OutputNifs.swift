import Beam
import CErlNif
import Synchronization

/// The Erlang half of output.
var outputNifs: [ErlNifFunc] {
    [
        /// output_taken(Ticket) -> ok: what was written before is passed on.
        nif("output_taken", 1) { env, _, arguments in
            guard let arguments, let ticket = resourceTypes.outputTicket.object(env, arguments[0]) else {
                return enif_make_badarg(env)
            }
            ticket.taken(env)
            return atoms.ok
        },
        /// output_level(Level) -> ok: the least level of Python's logging that Erlang's logger takes.
        nif("output_level", 1) { env, _, arguments in
            guard let arguments, let level = integer(env, arguments[0]) else { return enif_make_badarg(env) }
            LogLevel.shared.set(level)
            return atoms.ok
        },
    ]
}

/// The level that Python's root logger begins with.
final class LogLevel: Sendable {
    static let shared = LogLevel()
    // Python's own default, until the application has started.
    private let level = Atomic<Int>(30)

    var value: Int { level.load(ordering: .relaxed) }

    func set(_ value: Int) { level.store(value, ordering: .relaxed) }
}
