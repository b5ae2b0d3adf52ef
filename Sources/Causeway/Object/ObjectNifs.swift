import Beam
import CErlNif

/// The Erlang half of references to Python objects.
var objectNifs: [ErlNifFunc] {
    [
        /// is_object(Term) -> boolean()
        nif("is_object", 1) { env, _, arguments in
            guard let arguments, resourceTypes.object.object(env, arguments[0]) != nil else {
                return atoms.false
            }
            return atoms.true
        }
    ]
}
