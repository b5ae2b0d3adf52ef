import Beam
import CErlNif
import CPython
import Python
import Streams
import Synchronization

/// How a context is set apart from others.
enum ContextMode: Sendable, CaseIterable {
    /// In the main interpreter, with every other worker.
    case worker
    /// In an interpreter of its own, with the GIL of all.
    case subinterp
    /// In an interpreter of its own with a GIL of its own: Python 3.12 and later.
    case owngil

    init?(_ term: Term) {
        switch term {
        case atoms.worker: self = .worker
        case atoms.subinterp: self = .subinterp
        case atoms.owngil: self = .owngil
        default: return nil
        }
    }

    /// Why the Python that runs cannot do that; nil where it can.
    var obstacle: String? {
        guard self == .owngil, cpython_has_own_gil() == 0 else { return nil }
        return
            "an interpreter with a GIL of its own needs Python 3.12 or later: use the mode subinterp or worker"
    }
}

/// A Python interpreter inside the BEAM: the main one, or another with modules of its own.
///
/// Each has a thread that has started it and never ends: Python's `threading` takes that for its main thread,
/// and it does the janitor's work for that interpreter.
final class Interpreter: Sendable {
    /// `PyInterpreterState`, never freed.
    private struct Pointer: @unchecked Sendable { let state: OpaquePointer? }
    private let interpreter: Pointer
    private let idleness = Atomic<Bool>(false)
    let mode: ContextMode
    /// The state of its module `_causeway`.
    let state: ModuleState

    /// The interpreter that the calling thread runs. With its GIL.
    init(mode: ContextMode) throws(PythonError) {
        self.mode = mode
        interpreter = Pointer(state: PyInterpreterState_Get())
        state = try ModuleState.current()
    }

    /// A thread state for the calling thread; nil when memory is short.
    func makeThreadState() -> ThreadState? { ThreadState(interpreter: interpreter.state) }

    /// Makes `import erlang` work in the interpreter that the calling thread runs, and loads what every context
    /// needs. With its GIL.
    static func boot(_ mode: ContextMode, packages: String) throws(PythonError) -> Interpreter {
        guard let path = PySys_GetObject("path") else { throw runtimeError("sys.path is missing") }
        let folder = try newString(packages)
        guard PyList_Insert(path, 0, folder.pointer) == 0 else { throw PythonError() }
        if mode != .worker { try avoidSharedState() }
        _ = try Object(PyImport_ImportModule("erlang._boot"))
        return try Interpreter(mode: mode)
    }

    /// In Python 3.11 the C half of asyncio remembers the running loop for all interpreters: the Python half does not.
    private static func avoidSharedState() throws(PythonError) {
        guard cpython_running_version() < 0x030C_0000 else { return }
        guard PyDict_SetItemString(PyImport_GetModuleDict(), "_asyncio", cpython_none()) == 0 else {
            throw PythonError()
        }
    }

    /// Python 3.12 finds out that an extension module refuses further interpreters by initialising it there, which
    /// leaves the module's static types in pieces: a second time is the end of the process. Where the main one has it
    /// already, it refuses without that. Python 3.13 always does. In the main one, with its GIL.
    static func loadWhatRefuses() {
        guard (0x030C_0000..<0x030D_0000).contains(cpython_running_version()) else { return }
        guard let module = PyImport_ImportModule("erlang._refusals") else { return PyErr_Clear() }
        defer { Py_DecRef(module) }
        guard let answer = cpython_call_method_named(module, "load") else { return PyErr_Clear() }
        Py_DecRef(answer)
    }

    // MARK: More than the main one

    /// Whether no context uses it, and nothing of one is left.
    var isIdle: Bool { idleness.load(ordering: .sequentiallyConsistent) }

    /// Interpreters that no context uses. CPython leaks megabytes at the end of each, so none ever ends.
    private static let idle = Mutex<[Interpreter]>([])

    /// One for a new context: the main one, one that another context has given back, or a new one.
    /// Blocks until it is ready, some 20 ms for a new one. Without any GIL.
    static func take(_ mode: ContextMode) throws(Failure) -> Interpreter {
        guard let main = PythonHost.shared.main else { throw Failure(text: "Python does not run") }
        if mode == .worker { return main }
        let known = idle.withLock { idle in
            idle.lastIndex { $0.mode == mode }.map { idle.remove(at: $0) }
        }
        if let known {
            known.idleness.store(false, ordering: .sequentiallyConsistent)
            return known
        }
        return try InterpreterStart(mode, besides: main).result()
    }

    /// The context that took it ends: frees what is left of it, and makes an interpreter as it was at first. With its
    /// GIL, on the context's thread. False where no other context can have it.
    ///
    /// Where Python code of the context still runs in it, on a thread that it has started, nobody can: then it is
    /// not used again.
    func reset(after context: Context) -> Bool {
        // It runs finalizers, which may take long: the janitor interrupts them as it does callbacks.
        context.isTidying.store(true, ordering: .relaxed)
        // At the end: also what finalizers pass on to Erlang is of this context.
        defer { if mode != .worker { state.leftovers.endTenancy() } }
        state.releaseImportLock()
        for _ in 0..<Interpreter.attempts {
            var outcome: Bool?
            context.asCallback {
                state.leftovers.giveBack(state.namespaces)
                guard mode != .worker else { return outcome = false }
                state.namespaces.forgetAll()
                Py_DecRef(state.setFactory(nil))
                state.leftovers.giveBack(state.namespaces)
                outcome = isReset()
            }
            if let outcome { return outcome }
        }
        return false
    }

    /// How often it is tried: what was in the way was interrupted, and is gone the next time.
    private static let attempts = 3

    /// Keeps it for another context, after ``reset(after:)``.
    func giveBack() {
        idleness.store(true, ordering: .sequentiallyConsistent)
        Interpreter.idle.withLock { $0.append(self) }
    }

    /// Nil where that was interrupted, or failed.
    private func isReset() -> Bool? {
        do throws(PythonError) {
            let module = try Object(PyImport_ImportModule("erlang._isolation"))
            let answer = try Object(cpython_call_method_named(module.pointer, "reset"))
            return answer.pointer == cpython_true()
        } catch {
            PyErr_Clear()
            return nil
        }
    }

    /// Why there is none.
    struct Failure: Error { let text: String }
}

/// The start of one more interpreter, on the thread that becomes its janitor.
private final class InterpreterStart: Sendable {
    private let outcome = Mutex<Result<Interpreter, Interpreter.Failure>?>(nil)
    private let isOver = FutexWord(0)

    init(_ mode: ContextMode, besides main: Interpreter) throws(Interpreter.Failure) {
        if let obstacle = mode.obstacle { throw Interpreter.Failure(text: obstacle) }
        do throws(Errno) {
            try NativeThread.start(name: "causeway-python", stackSize: pythonStackSize) {
                self.run(mode, main)
            }
        } catch {
            throw Interpreter.Failure(text: "no thread for another interpreter: \(error)")
        }
    }

    /// Waits for it.
    func result() throws(Interpreter.Failure) -> Interpreter {
        while isOver.value == 0 { isOver.wait(while: 0) }
        guard let outcome = outcome.withLock({ $0 }) else { throw Interpreter.Failure(text: "no outcome") }
        return try outcome.get()
    }

    private func finish(_ result: Result<Interpreter, Interpreter.Failure>) {
        outcome.withLock { $0 = result }
        isOver.store(1)
        isOver.wake()
    }

    /// Where there is no thread for that, the interpreter works, but waits while others compute.
    private func share(_ interpreter: Interpreter, _ main: Interpreter) {
        if interpreter.mode == .subinterp { try? Pacemaker.shared.add(interpreter, beside: main) }
    }

    private func run(_ mode: ContextMode, _ main: Interpreter) {
        // A new interpreter is made by a thread that runs another, and then it runs the new one.
        guard let visit = main.makeThreadState() else {
            return finish(.failure(Interpreter.Failure(text: "no thread state for Python")))
        }
        visit.enter()
        Interpreter.loadWhatRefuses()
        guard cpython_new_interpreter(mode == .owngil ? 1 : 0) != 0 else {
            let text = Exception.takeText() ?? "Python could not make another interpreter"
            visit.leave()
            visit.end()
            return finish(.failure(Interpreter.Failure(text: text)))
        }
        do throws(PythonError) {
            let interpreter = try Interpreter.boot(mode, packages: PythonHost.shared.packages)
            let threadState = ThreadState(releasing: ())
            visit.end()
            share(interpreter, main)
            finish(.success(interpreter))
            interpreter.state.janitor.run(interpreter.state, threadState: threadState)
        } catch {
            let text = Exception.takeText() ?? "unknown"
            _ = PyEval_SaveThread()
            visit.end()
            finish(.failure(Interpreter.Failure(text: "another interpreter could not be set up: \(text)")))
        }
    }
}
