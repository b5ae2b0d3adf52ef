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
        },
        /// object_context(Reference) -> main | pid() | gone: where the object can be used. In any context of the main
        /// interpreter, in the one whose interpreter it is of, or nowhere.
        nif("object_context", 1) { env, _, arguments in
            guard let arguments, let reference = resourceTypes.object.object(env, arguments[0]) else {
                return enif_make_badarg(env)
            }
            if let main = PythonHost.shared.main, reference.belongs(to: main.state) { return atoms.main }
            guard let context = reference.context, !reference.isGone else { return atoms.gone }
            return context.owner.pid
        },
    ]
}
