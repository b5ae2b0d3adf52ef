import Beam
import CPython
import Python

/// A Python object that an Erlang term refers to: the term keeps the object alive, and turns into the
/// same object again where it comes back to Python.
final class ObjectReference: Resource, @unchecked Sendable {
    let pointer: PyPointer
    private let leftovers: Leftovers

    /// Adds a reference to the object. With the GIL.
    init(_ pointer: PyPointer, leftovers: Leftovers) {
        Py_IncRef(pointer)
        leftovers.held.add(pointer)
        self.pointer = pointer
        self.leftovers = leftovers
    }

    /// Whether the object is one of that interpreter. Each has leftovers of its own, which live as long as
    /// references to its objects do: nobody else can have their identity meanwhile.
    func belongs(to state: ModuleState) -> Bool { leftovers === state.leftovers }

    // Runs on a BEAM thread, which never takes the GIL: the reference is given back later.
    override func unreferenced(_ env: EnvPointer?) { leftovers.add(reference: pointer) }
}
