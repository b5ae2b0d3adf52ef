import Beam
import CErlNif
import CPython
import Python
import Synchronization

/// The global names of one Erlang process in one interpreter: what `py:exec` defines there is seen by
/// the later calls of that process, by nobody else, and goes when the process does.
final class Namespace: Resource, @unchecked Sendable {
    let dict: PyPointer
    private let process: ErlNifPid
    private let leftovers: Leftovers
    private let over = Atomic<Bool>(false)
    private let dictGivenBack = Atomic<Bool>(false)

    /// With the GIL. Takes over the reference to the dict.
    init(dict: consuming Object, process: ErlNifPid, leftovers: Leftovers) {
        self.dict = dict.take()
        self.process = process
        self.leftovers = leftovers
    }

    /// Whether the process has ended, so that its identifier may by now be another's.
    var isOver: Bool { over.load(ordering: .sequentiallyConsistent) }

    // On a scheduler. The registration is removed by whoever next looks for ended namespaces.
    override func monitoredProcessDown(_ env: EnvPointer?) {
        if end() { leftovers.endNamespace(process.pid) }
    }

    /// Lets go of what keeps it; false where somebody else has done so.
    @discardableResult
    func end() -> Bool {
        if over.exchange(true, ordering: .sequentiallyConsistent) { return false }
        release()
        return true
    }

    /// Gives the dict back at once, which otherwise the BEAM's destructor has somebody do. With the GIL.
    func giveBackDict() {
        if !dictGivenBack.exchange(true, ordering: .sequentiallyConsistent) { Py_DecRef(dict) }
    }

    override func unreferenced(_ env: EnvPointer?) {
        if !dictGivenBack.exchange(true, ordering: .sequentiallyConsistent) { leftovers.add(dict) }
    }
}

/// The namespaces of one interpreter. With the GIL.
final class Namespaces {
    private var byProcess: [Term: Namespace] = [:]

    /// How many processes have one.
    var count: Int { byProcess.count }

    /// The dict of a process, made when it has none, as a new reference.
    func dict(of process: ErlNifPid, leftovers: Leftovers) throws(PythonError) -> Object {
        if let known = byProcess[process.pid], !known.isOver { return Object(retaining: known.dict) }
        let dict = try Namespaces.makeDict()
        let namespace = Namespace(
            dict: Object(retaining: dict.pointer), process: process, leftovers: leftovers)
        guard resourceTypes.namespace.hold(namespace) else { throw valueError("no memory for a namespace") }
        // A process that ended meanwhile gets a namespace that lives for this call only.
        if namespace.monitor(nil, process) {
            byProcess[process.pid] = namespace
        } else {
            namespace.end()
        }
        return dict
    }

    /// Forgets the namespace of a process that has ended, unless a new process has its identifier now.
    func remove(_ process: Term) {
        if let known = byProcess[process], known.isOver { byProcess[process] = nil }
    }

    /// Forgets all of them: the interpreter is made as it was at first.
    func forgetAll() {
        let all = byProcess
        byProcess = [:]
        for namespace in all.values {
            namespace.giveBackDict()
            namespace.end()
        }
    }

    /// What a module has at its beginning.
    private static func makeDict() throws(PythonError) -> Object {
        let dict = try Object(PyDict_New())
        let name = try newString("__main__")
        guard let builtins = PyEval_GetBuiltins(),
            PyDict_SetItemString(dict.pointer, "__name__", name.pointer) == 0,
            PyDict_SetItemString(dict.pointer, "__builtins__", builtins) == 0
        else { throw PythonError() }
        return dict
    }
}
