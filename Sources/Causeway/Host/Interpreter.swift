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
        _ = try Object(PyImport_ImportModule("erlang._boot"))
        return try Interpreter(mode: mode)
    }

    // MARK: More than the main one

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
        if let known { return known }
        return try InterpreterStart(mode, besides: main).result()
    }

    /// The context that took it has ended. With its GIL, on the context's thread.
    ///
    /// It is made as it was at first and kept for another context. Where Python code of the context still runs
    /// in it, on a thread that it has started, nobody can: then it is not used again.
    func giveBack() {
        if mode == .worker { return }
        state.namespaces.forgetAll()
        Py_DecRef(state.setFactory(nil))
        guard isReset() else { return }
        Interpreter.idle.withLock { $0.append(self) }
    }

    private func isReset() -> Bool {
        guard let module = PyImport_ImportModule("erlang._isolation") else {
            PyErr_Clear()
            return false
        }
        defer { Py_DecRef(module) }
        guard let answer = cpython_call_method_named(module, "reset") else {
            PyErr_Clear()
            return false
        }
        defer { Py_DecRef(answer) }
        return answer == cpython_true()
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

    private func run(_ mode: ContextMode, _ main: Interpreter) {
        // A new interpreter is made by a thread that runs another, and then it runs the new one.
        guard let visit = main.makeThreadState() else {
            return finish(.failure(Interpreter.Failure(text: "no thread state for Python")))
        }
        visit.enter()
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
