import Beam
import CPython
import Python

/// A Python object that an Erlang term refers to: the term keeps the object alive, and turns into the
/// same object again where it comes back to Python.
final class ObjectReference: Resource, @unchecked Sendable {
    let pointer: PyPointer
    private let leftovers: Leftovers
    private let tenancy: Int

    /// Adds a reference to the object. With the GIL.
    init(_ pointer: PyPointer, leftovers: Leftovers) {
        Py_IncRef(pointer)
        leftovers.held.add(pointer)
        self.pointer = pointer
        self.leftovers = leftovers
        tenancy = leftovers.tenancy
    }

    /// Whether the object is one of that interpreter. Each has leftovers of its own, which live as long as
    /// references to its objects do: nobody else can have their identity meanwhile.
    func belongs(to state: ModuleState) -> Bool { leftovers === state.leftovers }

    /// Whether the context that it came from had its interpreter for itself, and has ended. The object is alive, but
    /// the interpreter is another context's now, or will be.
    var isGone: Bool { tenancy != leftovers.tenancy }

    /// A context that runs in the interpreter of the object, if there is one.
    var context: Context? { leftovers.context }

    // Runs on a BEAM thread, which never takes the GIL: the reference is given back later.
    override func unreferenced(_ env: EnvPointer?) { leftovers.add(reference: pointer) }
}
