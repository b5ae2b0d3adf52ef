import Beam
import CPython
import Python
import Streams
import Synchronization

/// References to Python objects that were let go of on threads without the GIL. A context thread of
/// the same interpreter gives them back when it next holds it; where there is none, the janitor does.
///
/// Unbounded: the BEAM's destructors run late and in bursts, and none may be lost.
final class Leftovers: Sendable {
    private struct Waiting: @unchecked Sendable {
        var objects: [PyPointer] = []
        var references: [PyPointer] = []
        var endedProcesses: [Term] = []
    }
    /// What Erlang refers to until then.
    let held = HeldObjects()
    private let waiting = Mutex(Waiting())
    private let someWait = Atomic<Bool>(false)
    private let tenancies = Atomic<Int>(0)
    private let contexts: ContextRegistry
    private let janitor: Janitor

    /// Of one interpreter: its contexts and its janitor.
    init(_ contexts: ContextRegistry, _ janitor: Janitor) {
        self.contexts = contexts
        self.janitor = janitor
    }

    /// How many contexts have had the interpreter for themselves. What Erlang refers to belongs to one of them.
    var tenancy: Int { tenancies.load(ordering: .sequentiallyConsistent) }

    /// The context that has the interpreter for itself ends.
    func endTenancy() { tenancies.add(1, ordering: .sequentiallyConsistent) }

    /// A context that runs in the interpreter, if there is one.
    var context: Context? { contexts.all.first }

    /// Whether there is nothing to give back.
    var isEmpty: Bool { !someWait.load(ordering: .sequentiallyConsistent) }

    /// Adds a reference that the caller owned. From any thread.
    func add(_ pointer: PyPointer) {
        let pointer = Waiting(objects: [pointer])
        append { $0.objects += pointer.objects }
    }

    /// Adds what an Erlang term referred to. From any thread.
    func add(reference pointer: PyPointer) {
        let pointer = Waiting(references: [pointer])
        append { $0.references += pointer.references }
    }

    /// Notes that a process has ended, whose namespace is to be forgotten. From any thread.
    func endNamespace(_ process: Term) { append { $0.endedProcesses.append(process) } }

    private func append(_ change: (inout Waiting) -> Void) {
        let isFirst = waiting.withLock { waiting in
            change(&waiting)
            return !someWait.exchange(true, ordering: .sequentiallyConsistent)
        }
        if isFirst, !contexts.ringOne() { janitor.ring() }
    }

    /// Gives back what waits. With the GIL; it runs the objects' finalizers, so it may take any time.
    func giveBack(_ namespaces: Namespaces) {
        if isEmpty { return }
        let taken = waiting.withLock { waiting in
            someWait.store(false, ordering: .sequentiallyConsistent)
            let taken = waiting
            waiting = Waiting()
            return taken
        }
        for process in taken.endedProcesses { namespaces.remove(process) }
        for pointer in taken.objects { Py_DecRef(pointer) }
        for pointer in taken.references {
            held.remove(pointer)
            Py_DecRef(pointer)
        }
    }
}
